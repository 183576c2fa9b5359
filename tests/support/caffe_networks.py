"""Makes the original networks of Caffe's prototxts: random blobs for a caffemodel, and the same network in PyTorch."""

import numpy as np

DECONVNET_BLOCKS = (2, 2, 3, 3, 3)


def draw_conv(rng, fan_out, fan_in, k):
    """Returns a random kernel [out, in, k, k] that keeps the scale of values; transpose it for a deconvolution."""
    return rng.normal(0, np.sqrt(2 / (fan_in * k * k)), (fan_out, fan_in, k, k)).astype(np.float32)


def draw_bias(rng, count):
    return rng.uniform(-0.3, 0.3, (1, 1, 1, count)).astype(np.float32)


def random_deconvnet(rng, width=1.0, decoder_width=1.0, fc=4096, classes=21, fc_window=7):
    """Returns [(name, type, blobs)] of DeconvNet_inference_deploy.prototxt, in its order."""
    layers = []

    def channels(count, factor=1.0):
        return max(1, round(count * width * factor))

    def add(kind, name, bn, fan_in, fan_out, k):
        kernel = draw_conv(rng, fan_out, fan_in, k)
        kernel[0] *= np.sign(kernel[0].sum())  # Like the shifts below, this keeps a layer with one channel alive.
        if kind == "Deconvolution":
            kernel = np.ascontiguousarray(kernel.swapaxes(0, 1))
        layers.append((name, kind, [kernel, draw_bias(rng, fan_out)]))
        if bn:
            # The shifts are positive, because ReLUs that are zero everywhere would make a narrow network constant.
            scale, shift = rng.uniform(0.5, 1.5, (1, fan_out, 1, 1)), rng.uniform(0, 0.6, (1, fan_out, 1, 1))
            layers.append((bn, "BN", [scale.astype(np.float32), shift.astype(np.float32)]))
            layers.append((bn.replace("bn", "relu"), "ReLU", []))
        return fan_out

    last = 3
    for block, (count, out) in enumerate(zip(DECONVNET_BLOCKS, (64, 128, 256, 512, 512), strict=True), 1):
        for i in range(1, count + 1):
            last = add("Convolution", f"conv{block}_{i}", f"bn{block}_{i}", last, channels(out), 3)
        layers.append((f"pool{block}", "Pooling", []))
    last = add("Convolution", "fc6", "bnfc6", last, fc, fc_window)
    last = add("Convolution", "fc7", "bnfc7", last, fc, 1)
    last = add("Deconvolution", "fc6-deconv", "fc6-deconv-bn", last, channels(512), fc_window)
    outs = {5: (512, 512, 512), 4: (512, 512, 256), 3: (256, 256, 128), 2: (128, 64), 1: (64, 64)}
    for block, widths in outs.items():
        layers.append((f"unpool{block}", "Unpooling", []))
        for i, out in enumerate(widths, 1):
            fixed = i == len(widths) and block > 1
            out = channels(out) if fixed else channels(out, decoder_width)
            last = add("Deconvolution", f"deconv{block}_{i}", f"debn{block}_{i}", last, out, 3)
    add("Convolution", "seg-score-voc", None, last, classes, 1)
    return layers


class TorchNetwork:
    """Caffe's layers [(name, type, blobs)] in PyTorch, in one floating-point type."""

    def __init__(self, torch, layers, dtype):
        self.f = torch.nn.functional
        self._blobs = {
            name: [torch.from_numpy(blob.astype(dtype)) for blob in blobs] for name, _, blobs in layers if blobs
        }

    def _parameters(self, name):
        kernel, *bias = self._blobs[name]
        return kernel, bias[0].ravel() if bias else None

    def conv(self, name, x, padding=0):
        return self.f.conv2d(x, *self._parameters(name), padding=padding)

    def deconv(self, name, x, **options):
        return self.f.conv_transpose2d(x, *self._parameters(name), **options)

    def bn_relu(self, name, x):
        scale, shift = self._blobs[name]
        return self.f.relu(x * scale + shift)


def torch_deconvnet(torch, layers, images, switches=None, dtype=np.float64):
    """Computes the forward pass of DeconvNet with folded normalisation.

    Args:
      torch: the module.
      layers: from `random_deconvnet`.
      images: [N, H, W, 3], BGR minus mean.
      switches: the switches of the five poolings that unpooling uses, [N, h, w, C]; None for the network's own.
      dtype: the floating-point type.

    Returns:
      Logits [N, H, W, K]. For every pooling, the switches [N, h, w, C] and the gaps [N, h, w, C] between the largest
      and the second largest value of each window, relative to the largest value of the map.
    """
    net = TorchNetwork(torch, layers, dtype)
    x = torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).astype(dtype))
    found, gaps = [], []
    for block, count in enumerate(DECONVNET_BLOCKS, 1):
        for i in range(1, count + 1):
            x = net.bn_relu(f"bn{block}_{i}", net.conv(f"conv{block}_{i}", x, 1))
        gaps.append(_gaps(torch, x))
        x, indices = net.f.max_pool2d(x, 2, return_indices=True)
        found.append(indices)
    used = found if switches is None else [torch.from_numpy(np.array(s).transpose(0, 3, 1, 2)).long() for s in switches]
    x = net.bn_relu("bnfc6", net.conv("fc6", x))
    x = net.bn_relu("bnfc7", net.conv("fc7", x))
    x = net.bn_relu("fc6-deconv-bn", net.deconv("fc6-deconv", x))
    for block in (5, 4, 3, 2, 1):
        x = net.f.max_unpool2d(x, used[block - 1], 2)
        for i in range(1, DECONVNET_BLOCKS[block - 1] + 1):
            x = net.bn_relu(f"debn{block}_{i}", net.deconv(f"deconv{block}_{i}", x, padding=1))
    logits = net.conv("seg-score-voc", x)
    return _channels_last(logits), [_channels_last(s) for s in found], gaps


def _gaps(torch, x):
    n, c, h, w = x.shape
    windows = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h // 2, w // 2, c, 4)
    first, second = torch.topk(windows, 2).values.unbind(-1)
    return ((first - second) / x.abs().max()).numpy()


def _channels_last(x):
    return x.numpy().transpose(0, 2, 3, 1)


def random_fcn8s(rng, width=1.0, fc=4096, classes=21):
    """Returns [(name, type, blobs)] of fcn-8s-pascal-deploy.prototxt, in its order."""
    layers, outs, last = [], [], 3

    def conv(name, fan_in, fan_out, k):
        layers.append((name, "Convolution", [draw_conv(rng, fan_out, fan_in, k), draw_bias(rng, fan_out)]))

    def deconv(name, k, bias=False):
        kernel = rng.normal(0, 2 / k / np.sqrt(classes), (classes, classes, k, k)).astype(np.float32)
        layers.append((name, "Deconvolution", [kernel, draw_bias(rng, classes)] if bias else [kernel]))

    for block, (count, out) in enumerate(zip(DECONVNET_BLOCKS, (64, 128, 256, 512, 512), strict=True), 1):
        out = max(1, round(out * width))
        for i in range(1, count + 1):
            conv(f"conv{block}_{i}", last, out, 3)
            last = out
        outs.append(out)
    conv("fc6", last, fc, 7)
    conv("fc7", fc, fc, 1)
    conv("score-fr", fc, classes, 1)
    deconv("score2", 4, bias=True)
    conv("score-pool4", outs[3], classes, 1)
    layers.append(("crop", "Crop", []))
    deconv("score4", 4)
    conv("score-pool3", outs[2], classes, 1)
    layers.append(("crop", "Crop", []))
    deconv("upsample", 16)
    layers.append(("crop", "Crop", []))
    return layers


def crop_offset(path, target):
    """Returns the offset at which Caffe's Crop layer cuts.

    Args:
      path: (a, b) of the layer that is cropped: position x in its output is position a * x + b in the image.
      target: (a, b) of the layer whose size and position the result has.
    """
    assert path[0] == target[0]
    offset = (target[1] - path[1]) / path[0]
    assert offset == round(offset)
    return round(offset)


def torch_fcn8s(torch, layers, images, dtype=np.float64):
    """Returns the logits [N, H, W, K] of FCN-8s for images [N, H, W, 3], BGR minus mean.

    The offsets of the crops follow from strides, kernels and paddings.
    """
    net = TorchNetwork(torch, layers, dtype)

    def filtered(position, k, stride, pad):
        a, b = position
        return a * stride, a * ((k - 1) / 2 - pad) + b

    def unfiltered(position, k, stride):
        a, b = position
        return a / stride, b - a / stride * (k - 1) / 2

    def cropped(x, position, target, like):
        offset = crop_offset(position, target)
        return x[:, :, offset : offset + like.shape[2], offset : offset + like.shape[3]]

    image = torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).astype(dtype))
    x, position, pooled = image, (1, 0), {}
    for block, count in enumerate(DECONVNET_BLOCKS, 1):
        for i in range(1, count + 1):
            pad = 100 if (block, i) == (1, 1) else 1
            x, position = net.f.relu(net.conv(f"conv{block}_{i}", x, pad)), filtered(position, 3, 1, pad)
        x, position = net.f.max_pool2d(x, 2, ceil_mode=True), filtered(position, 2, 2, 0)
        pooled[block] = x, position
    x, position = net.f.relu(net.conv("fc6", x)), filtered(position, 7, 1, 0)
    x = net.conv("score-fr", net.f.relu(net.conv("fc7", x)))
    for name, score, block in (("score2", "score-pool4", 4), ("score4", "score-pool3", 3)):
        x, position = net.deconv(name, x, stride=2), unfiltered(position, 4, 2)
        skip, skip_position = pooled[block]
        x = x + cropped(net.conv(score, skip), skip_position, position, x)
    x, position = net.deconv("upsample", x, stride=8), unfiltered(position, 16, 8)
    return _channels_last(cropped(x, position, (1, 0), image))
