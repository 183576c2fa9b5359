"""ImageNet's VGG-16 (Simonyan and Zisserman, 2015) from the files in which Keras, PyTorch and Caffe have it."""

import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS, FC_WINDOW
from deconvnet_jax.ops.preprocess import MEAN_BGR
from deconvnet_jax.weights.caffemodel import load_caffemodel
from deconvnet_jax.weights.torch_file import load_torch_file

if TYPE_CHECKING:
    import h5py

Layers = dict[str, dict[str, np.ndarray]]

CONVOLUTIONS = tuple(f"conv{block}_{i}" for block, widths in ENCODER_WIDTHS.items() for i in range(1, len(widths) + 1))
WINDOWS = {"fc6": FC_WINDOW, "fc7": 1}  # of the convolutions that they are here

KERAS_NAMES = {name: name.replace("conv", "block").replace("_", "_conv") for name in CONVOLUTIONS} | {
    "fc6": "fc1",
    "fc7": "fc2",
}
# Indices of torchvision's "features", where ReLUs and poolings count too.
TORCH_INDICES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
TORCH_NAMES = {name: f"features.{i}" for name, i in zip(CONVOLUTIONS, TORCH_INDICES, strict=True)}
# torchvision's and timm's.
TORCH_FC_LAYERS = {"classifier.0": "fc6", "classifier.3": "fc7", "pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7"}

# What torchvision and timm take off and divide by; red, green, blue, of values in 0..1.
TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

EXPECTED = "expected plain VGG-16 (13 convolutions, no batch normalisation)"
MAX_BYTES = 2**30  # of one array of an HDF5 file, which may announce any size; fc6 has 0.4 of it


def read_vgg16(path: str | Path) -> Layers:
    """The layers of a VGG-16 for this project's input: blue, green, red, 0..255 minus `ops.preprocess.MEAN_BGR`.

    Args:
      path: by its suffix
        .npz: arrays `block1_conv1/kernel`, `block1_conv1/bias`, ..., optionally `fc1/kernel`, ..., as in Keras;
        .h5, .hdf5: Keras's weights, with or without top;
        .pth, .pt: torchvision's state dict;
        .safetensors: timm's or torchvision's state dict;
        .caffemodel: the authors' VGG_ILSVRC_16_layers.

    Returns:
      {"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ..., "conv5_3": ...}, float32, and where the file has
      them "fc6" (kernel [7, 7, in, out]) and "fc7" ([1, 1, in, out]), the dense layers as convolutions. Sizes are the
      file's. To save memory kernels may be views that are not contiguous.

    Raises:
      InputError: for a file that is missing, of another kind or damaged, that needs a library which is not installed,
        or whose layers are not VGG-16's.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(
            f"VGG-16 weights: no file {path}; give an .npz, .h5, .pth, .safetensors or .caffemodel as "
            "--config.init.vgg16 (README, 'VGG-16 weights')"
        )
    match path.suffix.lower():
        case ".npz":
            layers = _from_keras(_read_npz(path), path)
        case ".h5" | ".hdf5":
            layers = _from_keras(_read_hdf5(path), path)
        case ".pth" | ".pt":
            layers = _from_torch(load_torch_file(path), path)
        case ".safetensors":
            layers = _from_torch(_read_safetensors(path), path)
        case ".caffemodel":
            layers = _from_caffe(load_caffemodel(path), path)
        case suffix:
            raise InputError(
                f"VGG-16 weights: {path} ends with '{suffix}'; expected .npz, .h5, .hdf5, .pth, .pt, .safetensors or "
                ".caffemodel: rename it if it is such a file"
            )
    _check(layers, path)
    for parts in layers.values():
        for part, values in parts.items():
            parts[part] = values.astype(np.float32, copy=False)
    return layers


def first_kernel_for_bgr(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A first convolution made for torchvision's input, changed so that it gives the same for this project's.

    Exact but for one thing: beyond the border there are zeros, which mean torchvision's mean colour in the one case
    and the original's in the other. They differ by at most 1 of 255, and so do, a little, the outermost pixels.

    Args:
      kernel: [h, w, 3, out], for red, green, blue in 0..1 minus TORCH_MEAN, divided by TORCH_STD.
      bias: [out].

    Returns:
      kernel and bias of the same shapes, float32, for blue, green, red in 0..255 minus MEAN_BGR.
    """
    std, mean = 255 * np.array(TORCH_STD), 255 * np.array(TORCH_MEAN)
    scaled = kernel.astype(np.float64) / std[:, None]
    shift = (np.array(MEAN_BGR[::-1]) - mean) @ scaled.sum((0, 1))
    return scaled[:, :, ::-1].astype(np.float32), (bias + shift).astype(np.float32)


def conv_from_dense_hwc(kernel: np.ndarray, window: int) -> np.ndarray:
    """[window * window * in, out], made for a map flattened as height, width, channel (Keras) -> HWIO, a view."""
    return kernel.reshape(window, window, -1, kernel.shape[1])


def conv_from_dense_chw(weight: np.ndarray, window: int) -> np.ndarray:
    """[out, in * window * window], made for a map flattened as channel, height, width (PyTorch) -> HWIO, a view."""
    return weight.reshape(len(weight), -1, window, window).transpose(2, 3, 1, 0)


def _from_keras(arrays: dict[str, np.ndarray], path: Path) -> Layers:
    names = dict(KERAS_NAMES)
    _refuse_more_convolutions(arrays, r"block\d_conv\d+", names.values(), path)
    for fc in WINDOWS:
        if f"{names[fc]}/kernel" not in arrays:
            del names[fc]
    _require(arrays, [f"{name}/{part}" for name in names.values() for part in ("kernel", "bias")], path)
    layers = {layer: {part: arrays[f"{name}/{part}"] for part in ("kernel", "bias")} for layer, name in names.items()}
    for fc, window in WINDOWS.items():
        if fc in layers and _is_dense(layers[fc]["kernel"].shape[::-1], window):
            layers[fc]["kernel"] = conv_from_dense_hwc(layers[fc]["kernel"], window)
    return layers


def _from_torch(arrays: dict[str, np.ndarray], path: Path) -> Layers:
    names = dict(TORCH_NAMES)
    names |= {layer: name for name, layer in TORCH_FC_LAYERS.items() if f"{name}.weight" in arrays}
    _require(arrays, [f"{name}.{part}" for name in names.values() for part in ("weight", "bias")], path)
    layers = {
        layer: {"kernel": _hwio(arrays[f"{name}.weight"], WINDOWS.get(layer)), "bias": arrays[f"{name}.bias"]}
        for layer, name in names.items()
    }
    _check_layer("conv1_1", layers["conv1_1"], 3, path)
    layers["conv1_1"] = dict(zip(("kernel", "bias"), first_kernel_for_bgr(**layers["conv1_1"]), strict=True))
    return layers


def _from_caffe(blobs: dict[str, list[np.ndarray]], path: Path) -> Layers:
    _refuse_more_convolutions(blobs, r"conv\d_\d+", CONVOLUTIONS, path)
    _require(blobs, CONVOLUTIONS, path)
    layers = {}
    for name in (*CONVOLUTIONS, *WINDOWS):
        if name not in blobs:
            continue
        if len(blobs[name]) != 2:
            raise InputError(
                f"VGG-16 weights: {name} in {path} has {len(blobs[name])} blob(s), expected 2 (weights and bias); "
                f"{EXPECTED}: give another file"
            )
        weight, bias = blobs[name]
        if bias.size == max(bias.shape, default=1):  # (1, 1, 1, out) in older files
            bias = bias.reshape(-1)
        if name in WINDOWS and weight.shape[:2] == (1, 1):  # (1, 1, out, in) in older files
            weight = weight[0, 0]
        layers[name] = {"kernel": _hwio(weight, WINDOWS.get(name)), "bias": bias}
    return layers


def _hwio(weight: np.ndarray, window: int | None) -> np.ndarray:
    """OIHW, or with a window also [out, in * window * window] -> HWIO, a view; other shapes stay for `_check`."""
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    return conv_from_dense_chw(weight, window) if window and _is_dense(weight.shape, window) else weight


def _is_dense(shape: tuple[int, ...], window: int) -> bool:
    """Whether (out, in) fits a layer on a square window."""
    return len(shape) == 2 and 0 not in shape and shape[1] % window**2 == 0


def _require(found: Iterable[str], names: Iterable[str], path: Path) -> None:
    missing = next((name for name in names if name not in found), None)
    if missing:
        raise InputError(f"VGG-16 weights: {path} has no '{missing}'; {EXPECTED}: give another file")


def _refuse_more_convolutions(found: Iterable[str], pattern: str, names: Iterable[str], path: Path) -> None:
    """VGG-19 has all layers of VGG-16, and others between them."""
    for name in found:
        match = re.match(pattern, name)
        if match and match[0] not in names:
            raise InputError(f"VGG-16 weights: {path} has a layer '{match[0]}'; {EXPECTED}: give another file")


def _check(layers: Layers, path: Path) -> None:
    """Raises InputError unless every layer takes what the one before gives, and all values are finite."""
    channels = 3
    for name, parts in layers.items():
        if name == "fc7" and "fc6" not in layers:
            channels = None
        _check_layer(name, parts, channels, path)
        channels = parts["kernel"].shape[-1]


def _check_layer(name: str, parts: dict[str, np.ndarray], channels: int | None, path: Path) -> None:
    kernel, bias = parts["kernel"], parts["bias"]
    side = None if name in WINDOWS else 3  # there are VGG-16 whose fc6 is smaller; the encoder of such a one is good
    expected = (side, side, channels, None)
    if kernel.ndim != 4 or any(want not in (None, n) for want, n in zip(expected, kernel.shape, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in expected)
        raise InputError(
            f"VGG-16 weights: the kernel of {name} in {path} has the shape {kernel.shape} (height, width, input, "
            f"output), expected ({wanted}); {EXPECTED}: give another file"
        )
    if bias.shape != kernel.shape[3:]:
        raise InputError(
            f"VGG-16 weights: the bias of {name} in {path} has the shape {bias.shape}, expected {kernel.shape[3:]}; "
            f"{EXPECTED}: give another file"
        )
    for part, values in parts.items():
        if values.dtype.kind != "f":
            raise InputError(
                f"VGG-16 weights: the {part} of {name} in {path} has the type {values.dtype}, expected float16, "
                "float32 or float64: convert it"
            )
        if not np.isfinite(values).all():
            raise InputError(
                f"VGG-16 weights: the {part} of {name} in {path} has values that are no finite numbers; fetch it "
                "again (torchvision's VGG16_Weights.IMAGENET1K_V1, not IMAGENET1K_FEATURES)"
            )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path):
            pass  # only here does np.load give a mapping
        with path.open("rb") as stream, np.load(stream) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"VGG-16 weights: {path} is not a complete .npz file ({_line(error)}); fetch or write it again"
        ) from error


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """{"block1_conv1/kernel": array, ...} of Keras's weights; further convolutions (VGG-19's) too."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"VGG-16 weights: {path} is read by h5py, which is not there: pip install h5py") from error
    arrays = {}
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            for name in root:
                if name in KERAS_NAMES.values() or re.fullmatch(r"block\d_conv\d+", name):
                    arrays |= {f"{name}/{part}": values for part, values in _kernel_and_bias(root[name]).items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, MemoryError) as error:  # h5py's
        raise InputError(
            f"VGG-16 weights: {path} is not a complete HDF5 file of Keras's ({_line(error)}); fetch it again"
        ) from error
    return arrays


def _kernel_and_bias(group: "h5py.Group") -> dict[str, np.ndarray]:
    """Of one layer, told by their ranks: names differ (block1_conv1_W_1:0 in 2016, block1_conv1/kernel:0 later)."""
    items, parts = [], {}
    group.visititems(lambda _, item: items.append(item))
    for item in items:
        if not getattr(item, "shape", ()):  # a group within, or a lone number
            continue
        if item.nbytes > MAX_BYTES:
            raise ValueError(f"{item.name} announces {item.nbytes:,} bytes")
        parts["bias" if item.ndim == 1 else "kernel"] = item[...]
    return parts


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise InputError(
            f"VGG-16 weights: {path} is read by safetensors, which is not there: pip install safetensors"
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        raise InputError(
            f"VGG-16 weights: {path} is not a complete .safetensors file of floats ({_line(error)}); fetch it again"
        ) from error


def _line(error: Exception) -> str:
    """The beginning of another library's message, on one line."""
    return " ".join(str(error).split())[:200]
