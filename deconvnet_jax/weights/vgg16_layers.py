"""The layers of a VGG-16 among the arrays of a file, under whatever names Caffe, Keras or PyTorch gave them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS, FC_WINDOW

CONVOLUTIONS = tuple(f"conv{block}_{i}" for block, widths in ENCODER_WIDTHS.items() for i in range(1, len(widths) + 1))
WINDOWS = {"fc6": FC_WINDOW, "fc7": 1}  # of the convolutions that they are here
EXPECTED = "expected plain VGG-16 (13 convolutions, no batch normalisation)"

# Indices of torchvision's "features", where ReLUs and poolings count too.
TORCH_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
TORCH_NAMES = {name: f"features.{i}" for name, i in zip(CONVOLUTIONS, TORCH_INDICES, strict=True)}
MAX_NAME = 1000  # of an array, as a network's are shorter
KERAS_NAMES = {name: name.replace("conv", "block").replace("_", "_conv") for name in CONVOLUTIONS}


NOTHING = np.zeros(())  # an array without axes, which no layer has


class StoredLayer(NamedTuple):
    """A layer as a file has it.

    Attributes:
      kernel: [out, in, h, w] or [out, in] if `channels_first`, else [h, w, in, out] or [in, out]; `NOTHING` if it has
        none.
      bias: [out], or `NOTHING`.
      channels_first: also the order in which a dense layer's input was flattened.
    """

    kernel: np.ndarray
    bias: np.ndarray
    channels_first: bool


class Naming(NamedTuple):
    """Names that a library gives the layers.

    Attributes:
      convolutions: the 13 names.
      dense: names of fc6 and fc7, of which the first pair that is there counts.
      parts: what follows the names of kernels and biases, for messages.
      sees_caffe: whether networks under these names were, as far as known, all trained on Caffe's input.
    """

    convolutions: tuple[str, ...]
    dense: tuple[tuple[str, str], ...]
    parts: tuple[str, str]
    sees_caffe: bool


TORCH_DENSE = (("classifier.0", "classifier.3"), ("classifier.1", "classifier.4"), ("pre_logits.fc1", "pre_logits.fc2"))
CAFFE = Naming(CONVOLUTIONS, (("fc6", "fc7"),), ("", ""), True)
KERAS = Naming(tuple(KERAS_NAMES.values()), (("fc1", "fc2"),), ("/kernel", "/bias"), True)
TORCH = Naming(tuple(TORCH_NAMES.values()), TORCH_DENSE, (".weight", ".bias"), False)
# torchvision's features alone, or "features.module.0", ... of the features in DataParallel.
NUMBERS = Naming(tuple(map(str, TORCH_INDICES)), TORCH_DENSE, (".weight", ".bias"), False)
NAMINGS = (CAFFE, KERAS, TORCH, NUMBERS)


class Found(NamedTuple):
    """VGG-16's layers in a file.

    Attributes:
      layers: "conv1_1", ..., "conv5_3", and where the file has them "fc6" and "fc7".
      names: what the file calls them.
      sees_caffe: as of `Naming`.
    """

    layers: dict[str, StoredLayer]
    names: dict[str, str]
    sees_caffe: bool


def stored_layers(arrays: Mapping[str, np.ndarray]) -> dict[str, StoredLayer]:
    """Groups arrays by the layer that their names tell.

    Args:
      arrays: by names such as "features.0.weight" (PyTorch), "block1_conv1/kernel", "block1_conv1/block1_conv1_W_1:0"
        (Keras 1 and 2), "layers/conv2d/vars/0" (Keras 3) or "conv1_1_W".

    Returns:
      {layer: its arrays}, in their order; arrays whose names tell no part are left out.
    """
    parts: dict[str, dict[str, np.ndarray]] = {}
    torch: dict[str, bool] = {}
    for name, array in arrays.items():
        match = _PART.fullmatch(name) if len(name) <= MAX_NAME else None
        if not match or array.ndim == 0:
            continue
        layer, part = match["layer"].removesuffix("/vars"), match["part"].lower()
        if "/" in layer and "/vars/" not in name:
            layer = layer.rsplit("/", 1)[-1]  # Keras 1 and 2 repeat the layer's name
        found = parts.setdefault(layer, {})
        kernel = array.ndim > 1 if part.isdecimal() else part.startswith(("w", "k"))
        kind = "other" if part in _NORMALISATION else "kernel" if kernel else "bias"
        found["other" if kind in found else kind] = array
        torch[layer] = torch.get(layer, False) or part == "weight"
    return {
        layer: StoredLayer(
            found.get("kernel", NOTHING), NOTHING if "other" in found else found.get("bias", NOTHING), torch[layer]
        )
        for layer, found in parts.items()
    }


_NORMALISATION = ("gamma", "beta", "moving_mean", "moving_variance", "running_mean", "running_var")
_PART = re.compile(
    rf"(?P<layer>.+?)[./_](?P<part>weights?|kernel|bias|biases|W|b|{'|'.join(_NORMALISATION)}|(?<=/vars/)\d+)"
    r"(?:_\d+)?(?::0)?"
)


def find_vgg16(layers: Mapping[str, StoredLayer], path: Path) -> Found:
    """Finds VGG-16's layers by the names of a library, behind any prefix, or else by their order.

    Raises:
      InputError: if there is no VGG-16, more than one, or another network that has its layers.
    """
    best: tuple[int, str, Naming] = (0, "", TORCH)
    for naming in NAMINGS:
        complete = []
        for prefix in _prefixes(layers, naming.convolutions):
            count = sum(_is_layer(layers.get(prefix + name)) for name in naming.convolutions)
            best = max(best, (count, prefix, naming), key=lambda found: found[0])
            if count == len(CONVOLUTIONS):
                complete.append(prefix)
        if len(complete) > 1:
            names = " and ".join(repr(prefix + naming.convolutions[0]) for prefix in complete[:3])
            raise InputError(f"{path} holds {len(complete)} of them, at {names}; give a file of one")
        if complete:
            return _named(layers, naming, complete[0], path)
    if found := _in_order(layers):
        return found
    count, prefix, naming = best
    _refuse_more_convolutions(layers, prefix, path)
    if not count:
        some = ", ".join(repr(name) for name in list(layers)[:3]) or "none with weights"
        raise InputError(f"{path} has other layers ({some}); {EXPECTED}: give another file")
    name, part = _missing(layers, prefix, naming)
    raise InputError(f"{path} has no '{name}{part}'; {EXPECTED}: give another file")


def _missing(layers: Mapping[str, StoredLayer], prefix: str, naming: Naming) -> tuple[str, str]:
    """Returns the name of the first layer that is missing or incomplete, and of the part that it lacks."""
    name = next(prefix + name for name in naming.convolutions if not _is_layer(layers.get(prefix + name)))
    return name, naming.parts[name in layers and layers[name].kernel.ndim > 0]


def _is_layer(layer: StoredLayer | None) -> bool:
    return layer is not None and layer.kernel.ndim > 0 and layer.bias.ndim > 0


def _prefixes(layers: Iterable[str], names: tuple[str, ...]) -> Iterator[str]:
    """Yields what stands before any of the names, such as "module." or "backbone.": each once, "" first."""
    wanted, prefixes = set(names), {"": None}
    for layer in layers:
        parts = re.split(r"(?<=[./])", layer)
        for i in range(len(parts)):
            if "".join(parts[i:]) in wanted:
                prefixes["".join(parts[:i])] = None
    yield from prefixes


def _named(layers: Mapping[str, StoredLayer], naming: Naming, prefix: str, path: Path) -> Found:
    names = {ours: prefix + name for ours, name in zip(CONVOLUTIONS, naming.convolutions, strict=True)}
    if naming in (CAFFE, KERAS):
        _refuse_more_convolutions(layers, prefix, path)
    stem = prefix.removesuffix("module.").removesuffix("features.") if "features." in prefix else prefix
    for pair in naming.dense:
        there = {ours: stem + name for ours, name in zip(WINDOWS, pair, strict=True) if stem + name in layers}
        for name in there.values():
            if not _is_layer(layers[name]):
                part = naming.parts[layers[name].kernel.ndim > 0]
                raise InputError(f"{path} has no '{name}{part}'; {EXPECTED}: give another file")
        if there:
            names |= there
            break
    return Found({ours: layers[name] for ours, name in names.items()}, names, naming.sees_caffe)


def _refuse_more_convolutions(layers: Iterable[str], prefix: str, path: Path) -> None:
    """Raises InputError for VGG-19, which has all layers of VGG-16 and others between them."""
    for layer in layers:
        match = re.fullmatch(r"conv\d_\d+|block\d_conv\d+", layer.removeprefix(prefix))
        if match and match[0] not in (*CAFFE.convolutions, *KERAS.convolutions):
            raise InputError(f"{path} has a layer '{layer}'; {EXPECTED}: give another file")


def _in_order(layers: Mapping[str, StoredLayer]) -> Found | None:
    """Returns 13 convolutions of 3x3 that each take what the one before gives, and the dense layers that follow."""
    if not all(_is_layer(layer) and layer.kernel.ndim in (2, 4) for layer in layers.values()):  # batch normalisation
        return None
    convolutions = [name for name, layer in layers.items() if _fans(layer)[2] == (3, 3)]
    channels = 3
    for name in convolutions:
        fan_in, fan_out, _ = _fans(layers[name])
        if fan_in != channels:
            return None
        channels = fan_out
    if len(convolutions) != len(CONVOLUTIONS):
        return None
    names = dict(zip(CONVOLUTIONS, convolutions, strict=True))
    dense = [name for name, layer in layers.items() if layer.kernel.ndim == 2]
    for (ours, window), name in zip(WINDOWS.items(), dense, strict=False):
        fan_in, fan_out, _ = _fans(layers[name])
        if fan_in != channels * window**2:
            break
        names[ours], channels = name, fan_out
    return Found(
        {ours: layers[name] for ours, name in names.items()}, names, not layers[convolutions[0]].channels_first
    )


def _fans(layer: StoredLayer) -> tuple[int, int, tuple[int, ...]]:
    """Returns channels in, channels out and window of a layer; 0, 0 and () if it is no convolution or dense layer."""
    shape = layer.kernel.shape if layer.channels_first else layer.kernel.shape[::-1]
    return (shape[1], shape[0], shape[2:]) if len(shape) in (2, 4) else (0, 0, ())


def flax_layer(name: str, layer: StoredLayer) -> dict[str, np.ndarray]:
    """Returns the arrays as Flax has them: kernel [h, w, in, out], also of dense layers, as a view.

    Kernels of other shapes stay as they are.
    """
    kernel, window = layer.kernel, WINDOWS.get(name)
    if kernel.ndim == 4 and layer.channels_first:
        kernel = kernel.transpose(2, 3, 1, 0)
    elif window and kernel.ndim == 2 and 0 not in kernel.shape and _fans(layer)[0] % window**2 == 0:
        convert = conv_from_dense_chw if layer.channels_first else conv_from_dense_hwc
        kernel = convert(kernel, window)
    return {"kernel": kernel, "bias": layer.bias}


def conv_from_dense_hwc(kernel: np.ndarray, window: int) -> np.ndarray:
    """Returns a view HWIO of [window * window * in, out], for a map flattened as height, width, channel (Keras)."""
    return kernel.reshape(window, window, -1, kernel.shape[1])


def conv_from_dense_chw(weight: np.ndarray, window: int) -> np.ndarray:
    """Returns a view HWIO of [out, in * window * window], for a map flattened as channel, height, width (PyTorch)."""
    return weight.reshape(len(weight), -1, window, window).transpose(2, 3, 1, 0)
