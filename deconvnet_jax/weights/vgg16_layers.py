"""Finds the layers of a VGG-16 among the arrays of a file, by the names that Caffe, Keras or PyTorch give them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS, FC_WINDOW

CONVOLUTIONS = tuple(f"conv{block}_{i}" for block, widths in ENCODER_WIDTHS.items() for i in range(1, len(widths) + 1))
WINDOWS = {"fc6": FC_WINDOW, "fc7": 1}  # window in pixels of the convolution that replaces each dense layer
EXPECTED = "expected plain VGG-16 (13 convolutions, no batch normalisation)"

# Indices of the convolutions in torchvision's "features", which also counts ReLUs and poolings.
TORCH_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
TORCH_NAMES = {name: f"features.{i}" for name, i in zip(CONVOLUTIONS, TORCH_INDICES, strict=True)}
MAX_NAME = 1000  # characters; longer names belong to no network
KERAS_NAMES = {name: name.replace("conv", "block").replace("_", "_conv") for name in CONVOLUTIONS}


NOTHING = np.zeros(())  # an array without axes, which marks a missing kernel or bias


class StoredLayer(NamedTuple):
    """Layer with the arrays of a file.

    Attributes:
      kernel: [out, in, h, w] or [out, in] if `channels_first`, else [h, w, in, out] or [in, out]; `NOTHING` if missing.
      bias: [out]; `NOTHING` if missing.
      channels_first: whether channels come first in the kernel, and in the order in which the input of a dense layer
        was flattened.
    """

    kernel: np.ndarray
    bias: np.ndarray
    channels_first: bool


class Naming(NamedTuple):
    """Names that a library gives to the layers of VGG-16.

    Attributes:
      convolutions: the 13 names of the convolutions.
      dense: pairs of names of fc6 and fc7; the first pair that a file has is used.
      parts: the suffixes of kernels and biases, for error messages.
      sees_caffe: True if all known networks with these names were trained on Caffe's input (BGR, 0..255 minus mean).
    """

    convolutions: tuple[str, ...]
    dense: tuple[tuple[str, str], ...]
    parts: tuple[str, str]
    sees_caffe: bool


TORCH_DENSE = (("classifier.0", "classifier.3"), ("classifier.1", "classifier.4"), ("pre_logits.fc1", "pre_logits.fc2"))
CAFFE = Naming(CONVOLUTIONS, (("fc6", "fc7"),), ("", ""), True)
KERAS = Naming(tuple(KERAS_NAMES.values()), (("fc1", "fc2"),), ("/kernel", "/bias"), True)
TORCH = Naming(tuple(TORCH_NAMES.values()), TORCH_DENSE, (".weight", ".bias"), False)
# The names in a file of torchvision's features alone, and, behind "features.module.", of features in DataParallel.
NUMBERS = Naming(tuple(map(str, TORCH_INDICES)), TORCH_DENSE, (".weight", ".bias"), False)
NAMINGS = (CAFFE, KERAS, TORCH, NUMBERS)


class Found(NamedTuple):
    """VGG-16's layers in a file.

    Attributes:
      layers: the layers "conv1_1", ..., "conv5_3", and "fc6" and "fc7" if the file has them.
      names: the names of these layers in the file.
      sees_caffe: see `Naming.sees_caffe`.
    """

    layers: dict[str, StoredLayer]
    names: dict[str, str]
    sees_caffe: bool


def stored_layers(arrays: Mapping[str, np.ndarray]) -> dict[str, StoredLayer]:
    """Groups the arrays of a file into layers by their names.

    Args:
      arrays: {name: array}, with names such as "features.0.weight" (PyTorch), "block1_conv1/kernel" or
        "block1_conv1/block1_conv1_W_1:0" (Keras 1 and 2), "layers/conv2d/vars/0" (Keras 3) or "conv1_1_W".

    Returns:
      {name of the layer: its arrays}, in the order of the file. Arrays whose name ends in no known part are left out.
    """
    parts: dict[str, dict[str, np.ndarray]] = {}
    torch: dict[str, bool] = {}
    for name, array in arrays.items():
        match = _PART.fullmatch(name) if len(name) <= MAX_NAME else None
        if not match or array.ndim == 0:
            continue
        layer, part = match["layer"].removesuffix("/vars"), match["part"].lower()
        if "/" in layer and "/vars/" not in name:
            layer = layer.rsplit("/", 1)[-1]  # Keras 1 and 2 repeat the name of the layer after a slash.
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
    """Finds VGG-16's layers by the names that a library gives them, or else by their order in the file.

    Args:
      layers: from `stored_layers`. Their names may have any prefix, such as "module." or "backbone.".
      path: the file, named in error messages.

    Returns:
      The layers with their names in this project.

    Raises:
      InputError: if there is no VGG-16, more than one, or a network with other layers too, such as VGG-19.
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
            raise InputError(f"{path} holds {len(complete)} of them, at {names}; give a file with one VGG-16")
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
    """Returns the name of the first layer that is missing or incomplete, and the suffix of the part that it lacks."""
    name = next(prefix + name for name in naming.convolutions if not _is_layer(layers.get(prefix + name)))
    return name, naming.parts[name in layers and layers[name].kernel.ndim > 0]


def _is_layer(layer: StoredLayer | None) -> bool:
    """Returns whether a layer exists and has both kernel and bias."""
    return layer is not None and layer.kernel.ndim > 0 and layer.bias.ndim > 0


def _prefixes(layers: Iterable[str], names: tuple[str, ...]) -> Iterator[str]:
    """Yields every prefix of any of the names once, such as "module." or "backbone."; the empty prefix comes first."""
    wanted, prefixes = set(names), {"": None}
    for layer in layers:
        parts = re.split(r"(?<=[./])", layer)
        for i in range(len(parts)):
            if "".join(parts[i:]) in wanted:
                prefixes["".join(parts[:i])] = None
    yield from prefixes


def _named(layers: Mapping[str, StoredLayer], naming: Naming, prefix: str, path: Path) -> Found:
    """Returns the 13 convolutions with this prefix, and the dense layers if there are any."""
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
    """Raises InputError for VGG-19, which has all layers of VGG-16 and additional ones between them."""
    for layer in layers:
        match = re.fullmatch(r"conv\d_\d+|block\d_conv\d+", layer.removeprefix(prefix))
        if match and match[0] not in (*CAFFE.convolutions, *KERAS.convolutions):
            raise InputError(f"{path} has a layer '{layer}'; {EXPECTED}: give another file")


def _in_order(layers: Mapping[str, StoredLayer]) -> Found | None:
    """Returns VGG-16's layers by their order: 13 convolutions of 3x3 with matching channels, then the dense layers.

    None if the file has other layers, such as batch normalisation, or another number of convolutions.
    """
    if not all(_is_layer(layer) and layer.kernel.ndim in (2, 4) for layer in layers.values()):
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
    """Returns input channels, output channels and window of a layer; 0, 0, () for any other kind of layer."""
    shape = layer.kernel.shape if layer.channels_first else layer.kernel.shape[::-1]
    return (shape[1], shape[0], shape[2:]) if len(shape) in (2, 4) else (0, 0, ())


def flax_layer(name: str, layer: StoredLayer) -> dict[str, np.ndarray]:
    """Returns the arrays of a layer in Flax's axes.

    Args:
      name: the name of the layer in this project, e.g. "conv1_1" or "fc6".
      layer: the layer.

    Returns:
      {"kernel": [h, w, in, out], "bias": [out]}. Dense layers become convolutions with the windows of `WINDOWS`. The
      kernel is a view. A kernel of an unexpected shape is returned unchanged.
    """
    kernel, window = layer.kernel, WINDOWS.get(name)
    if kernel.ndim == 4 and layer.channels_first:
        kernel = kernel.transpose(2, 3, 1, 0)
    elif window and kernel.ndim == 2 and 0 not in kernel.shape and _fans(layer)[0] % window**2 == 0:
        convert = conv_from_dense_chw if layer.channels_first else conv_from_dense_hwc
        kernel = convert(kernel, window)
    return {"kernel": kernel, "bias": layer.bias}


def conv_from_dense_hwc(kernel: np.ndarray, window: int) -> np.ndarray:
    """Returns a dense kernel of Keras as the kernel of a convolution.

    Args:
      kernel: [window * window * in, out], for a map that was flattened as height, width, channel.
      window: height and width of the map in pixels.

    Returns:
      A view [window, window, in, out].
    """
    return kernel.reshape(window, window, -1, kernel.shape[1])


def conv_from_dense_chw(weight: np.ndarray, window: int) -> np.ndarray:
    """Returns a dense kernel of PyTorch or Caffe as the kernel of a convolution.

    Args:
      weight: [out, in * window * window], for a map that was flattened as channel, height, width.
      window: height and width of the map in pixels.

    Returns:
      A view [window, window, in, out].
    """
    return weight.reshape(len(weight), -1, window, window).transpose(2, 3, 1, 0)
