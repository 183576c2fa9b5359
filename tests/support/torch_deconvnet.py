"""DeconvNet in PyTorch as an independent reference; PyTorch itself is passed as an argument."""

import numpy as np


def torch_forward(torch, variables, x, epsilon):
    """Computes the forward pass with PyTorch's own layers, from the paper's table, with batch statistics.

    Returns:
      Logits [N, K, H, W], and {(layer, part): parameter}, whose `grad` a backward pass fills.
    """
    functional = torch.nn.functional
    leaves = {
        (layer, part): torch.tensor(np.asarray(value), requires_grad=True)
        for layer, parts in variables["params"].items()
        for part, value in parts.items()
    }

    def leaf(layer, part):
        return leaves[layer, part]

    def bn_relu(name, x):
        return functional.relu(
            functional.batch_norm(x, None, None, leaf(name, "scale"), leaf(name, "bias"), training=True, eps=epsilon)
        )

    def conv(name, x, padding):
        return functional.conv2d(x, leaf(name, "kernel").permute(3, 2, 0, 1), leaf(name, "bias"), padding=padding)

    def deconv(name, x, padding):  # Our kernels are those of the equivalent convolution, so they are flipped here.
        kernel = leaf(name, "kernel").permute(2, 3, 0, 1).flip(2, 3)
        return functional.conv_transpose2d(x, kernel, leaf(name, "bias"), padding=padding)

    switches = []
    for block, layers in enumerate((2, 2, 3, 3, 3), 1):
        for i in range(1, layers + 1):
            x = bn_relu(f"bn{block}_{i}", conv(f"conv{block}_{i}", x, 1))
        x, indices = functional.max_pool2d(x, 2, return_indices=True)
        switches.append(indices)
    x = bn_relu("bnfc6", conv("fc6", x, 0))
    x = bn_relu("bnfc7", conv("fc7", x, 0))
    x = bn_relu("fc6-deconv-bn", deconv("fc6-deconv", x, 0))
    for block, layers in ((5, 3), (4, 3), (3, 3), (2, 2), (1, 2)):
        x = functional.max_unpool2d(x, switches[block - 1], 2)
        for i in range(1, layers + 1):
            x = bn_relu(f"debn{block}_{i}", deconv(f"deconv{block}_{i}", x, 1))
    return conv("seg-score-voc", x, 0), leaves


def to_torch(torch, x):
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))
