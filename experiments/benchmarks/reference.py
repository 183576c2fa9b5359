"""DeconvNet in PyTorch, as a user of PyTorch would write it, with the layer names and weights of this project.

This file imports PyTorch, so benchmarks import it only where `harness.find_torch` found PyTorch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deconvnet_jax.models import DeconvNet, Variables, batch_norm_name
from deconvnet_jax.models.deconvnet import DECODER_WIDTHS, ENCODER_WIDTHS
from deconvnet_jax.ops.preprocess import MEAN_BGR

from .harness import Contender
from .network import CLASSES, optimizer_settings


class Network(nn.Module):
    """DeconvNet made of PyTorch's own modules."""

    def __init__(self, variables: Variables) -> None:
        super().__init__()
        params = variables["params"]
        names = [name for name in params if "kernel" in params[name]]
        norms = {name: batch_norm_name(name) for name in names if batch_norm_name(name) != name}
        self.layers = nn.ModuleDict({name: _layer(name, params[name]) for name in names})
        self.norms = nn.ModuleDict({name: _batch_norm(params[norm]) for name, norm in norms.items()})
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def apply_layer(self, name: str, x: Tensor) -> Tensor:
        """Applies a convolution with its batch normalisation and ReLU.

        Args:
          name: of the layer.
          x: float tensor [N, C, H, W].

        Returns:
          Float tensor [N, C', H', W'].
        """
        return nn.functional.relu(self.norms[name](self.layers[name](x)))

    def forward(self, x: Tensor) -> Tensor:
        """Computes scores [N, K, H, W] of images [N, 3, H, W], which are BGR less the mean."""
        switches = {}
        for block, widths in ENCODER_WIDTHS.items():
            for i in range(1, len(widths) + 1):
                x = self.apply_layer(f"conv{block}_{i}", x)
            x, switches[block] = self.pool(x)
        for name in ("fc6", "fc7", "fc6-deconv"):
            x = self.apply_layer(name, x)
        for block, widths in DECODER_WIDTHS.items():
            x = self.unpool(x, switches[block])
            for i in range(1, len(widths) + 1):
                x = self.apply_layer(f"deconv{block}_{i}", x)
        return self.layers["seg-score-voc"](x)


def _layer(name: str, layer: dict[str, jax.Array]) -> nn.Conv2d | nn.ConvTranspose2d:
    """Returns a Conv2d with this project's kernel [h, w, in, out]; for fc6-deconv a ConvTranspose2d.

    fc6-deconv enlarges its map. The other deconvolutions are convolutions, as in this project: PyTorch computes a
    Conv2d faster than a ConvTranspose2d.
    """
    kernel = torch.tensor(layer["kernel"])
    height, width, channels, features = kernel.shape
    if name == "fc6-deconv":
        module = nn.ConvTranspose2d(channels, features, (height, width))
        kernel = kernel.permute(2, 3, 0, 1).flip(2, 3)
    else:
        module = nn.Conv2d(channels, features, (height, width), padding=1 if height == 3 else 0)
        kernel = kernel.permute(3, 2, 0, 1)
    module.load_state_dict({"weight": kernel, "bias": torch.tensor(layer["bias"])})
    return module


def _batch_norm(layer: dict[str, jax.Array]) -> nn.BatchNorm2d:
    """Returns a BatchNorm2d with this project's epsilon and momentum; PyTorch's momentum is 1 minus ours."""
    net = DeconvNet(CLASSES)
    module = nn.BatchNorm2d(len(layer["scale"]), eps=net.bn_epsilon, momentum=1 - net.bn_momentum)
    values = {"weight": torch.tensor(layer["scale"]), "bias": torch.tensor(layer["bias"])}
    module.load_state_dict(values, strict=False)  # Initial running statistics are the same in both.
    return module


def device() -> str:
    """Returns PyTorch's name of the device that JAX uses; on a GPU, switches on TF32 and cuDNN's search."""
    if jax.default_backend() == "cpu":
        return "cpu"
    torch.backends.cudnn.benchmark = True
    _allow_tf32()
    return "cuda"


def training(variables: Variables, batch: dict[str, np.ndarray], dtype: str) -> Contender[Tensor]:
    """Returns PyTorch's training step, which computes the same as `train.ours`.

    It uses channels_last, autocast for bfloat16, and torch.compile on a GPU if that works.

    Args:
      variables: initial values, those of this project's network.
      batch: "image" uint8 RGB [B, S, S, 3] and "label" uint8 [B, S, S], 255 = ignored.
      dtype: of the computation, "float32" or "bfloat16".
    """
    on = device()
    if on == "cuda":
        torch.cuda.reset_peak_memory_stats()
    network = Network(variables).to(on, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images, labels = (torch.from_numpy(batch[key]).to(on) for key in ("image", "label"))
    labels, mean = labels.long(), torch.tensor(MEAN_BGR, device=on)[:, None, None]
    optimizer = _optimizer(network)

    def loss_of(forward: Callable[[Tensor], Tensor]) -> Tensor:
        x = images.permute(0, 3, 1, 2)[:, [2, 1, 0]].float() - mean
        with torch.autocast(on, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = forward(x.contiguous(memory_format=torch.channels_last))
        return nn.functional.cross_entropy(logits.float(), labels, ignore_index=255)

    forward, mode = _compiled(network, lambda fast: loss_of(fast).backward(), on)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(forward)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def wait(loss: Tensor) -> float:
        if on == "cuda":
            torch.cuda.synchronize()
        return float(loss)

    peak_bytes = torch.cuda.max_memory_allocated if on == "cuda" else lambda: None
    return Contender(step, wait, _count(network), mode, peak_bytes)


def _optimizer(network: Network) -> torch.optim.SGD:
    """Returns SGD with the learning rates and weight decay of `make_optimizer`."""
    settings = optimizer_settings()
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    weights = [layer.weight for layer in network.layers.values()]
    biases = [layer.bias for layer in network.layers.values()]
    groups = [
        {"params": weights, "lr": rate, "weight_decay": decay},
        {"params": biases, "lr": rate * settings["bias_rate"], "weight_decay": 0.0},
        {"params": network.norms.parameters(), "lr": rate, "weight_decay": decay if settings["decay_bn"] else 0.0},
    ]
    return torch.optim.SGD(groups, momentum=settings["momentum"], fused=True)


def forward_pass(variables: Variables, example: Tensor) -> tuple[Callable[[Tensor], Tensor], int, str]:
    """Returns the network for inference, with batch normalisation folded into the convolutions.

    Args:
      variables: of this project's network.
      example: images, float tensor [N, 3, H, W] on `device()`, with the size and batch that will be used.

    Returns:
      A function from images [N, 3, H, W] to scores [N, K, H, W], the number of parameters, and how the network runs,
      such as "torch.compile".
    """
    network = Network(variables).eval()
    for name, norm in network.norms.items():
        layer = network.layers[name]
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        assert isinstance(norm, nn.BatchNorm2d)
        network.layers[name] = fuse_conv_bn_eval(layer, norm, isinstance(layer, nn.ConvTranspose2d))
        network.norms[name] = nn.Identity()
    network.to(example.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def scores(forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        with torch.inference_mode():
            return forward(images.contiguous(memory_format=torch.channels_last))

    forward, mode = _compiled(network, lambda fast: scores(fast, example), example.device.type)
    return partial(scores, forward), _count(network), mode


def _compiled(
    network: Network, trial: Callable[[Callable[[Tensor], Tensor]], object], on: str
) -> tuple[Callable[[Tensor], Tensor], str]:
    """Returns the network, compiled on a GPU if that works, and "eager", "torch.compile" or why compilation failed."""
    if on == "cpu":
        return network, "eager"
    try:
        fast = torch.compile(network)
        trial(fast)
    except Exception as error:  # Triton, a compiler or an operation is missing; errors are of many kinds.
        return network, f"eager; torch.compile fails: {str(error).strip().splitlines()[0][:80]}"
    return fast, "torch.compile"


def _count(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@contextmanager
def full_precision() -> Iterator[None]:
    """Switches TF32 off on both sides inside the context.

    A network with random weights amplifies the rounding of TF32, so equal computations would seem different. PyTorch
    runs eagerly inside the context, because it would compile the network again for another precision.

    Yields:
      None.
    """
    if jax.default_backend() == "cpu":  # A CPU has no TF32, and another precision would compile our programs again.
        yield
        return
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    with jax.default_matmul_precision("highest"), torch.compiler.set_stance("force_eager"):
        yield
    _allow_tf32()


def _allow_tf32() -> None:
    """Lets PyTorch multiply float32 in TF32, as XLA does by default."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
