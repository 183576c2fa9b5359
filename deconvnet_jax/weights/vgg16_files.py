"""ImageNet's VGG-16 (Simonyan and Zisserman, 2015) from the files in which Keras, PyTorch and Caffe have it."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from deconvnet_jax import file_kinds
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.npz import check_size, read_npz
from deconvnet_jax.weights.caffemodel import load_caffemodel
from deconvnet_jax.weights.hdf5_file import read_hdf5
from deconvnet_jax.weights.torch_file import load_torch_file
from deconvnet_jax.weights.vgg16_input import for_caffe_input
from deconvnet_jax.weights.vgg16_layers import (
    CONVOLUTIONS,
    EXPECTED,
    NOTHING,
    TORCH_NAMES,
    WINDOWS,
    StoredLayer,
    find_vgg16,
    flax_layer,
    stored_layers,
)

__all__ = ["CONVOLUTIONS", "TORCH_NAMES", "WINDOWS", "Layers", "read_vgg16"]

Layers = dict[str, dict[str, np.ndarray]]

KINDS = ".npz, .h5, .hdf5, .keras, .pth, .pt, .safetensors or .caffemodel"
# The names of dense layers in vgg16-00b39a1b.pth, which has Caffe's weights.
JOHNSON_NAME = "classifier.1"


def read_vgg16(path: str | Path) -> Layers:
    """Reads the layers of a VGG-16 for this project's input: BGR, 0..255 minus `ops.preprocess.MEAN_BGR`.

    Args:
      path: a file of any of these kinds, whatever its suffix:
        Keras's weights or models of any version (.h5, .hdf5, .keras), with or without top;
        a state dict of PyTorch (.pth, .pt, .safetensors) with torchvision's, timm's or Caffe's names, also behind
        prefixes such as "module.", also of the features alone ("0.weight", ...);
        the authors' VGG_ILSVRC_16_layers.caffemodel or a .caffemodel.h5;
        an .npz of arrays with any of these names, such as `block1_conv1/kernel`.

    Returns:
      {"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ..., "conv5_3": ...}, float32, and where the file has
      them "fc6" (kernel [7, 7, in, out]) and "fc7" ([1, 1, in, out]), the dense layers as convolutions. Sizes are the
      file's. To save memory kernels may be views that are not contiguous. The first layer is changed where it was made
      for another input (`vgg16_input`).

    Raises:
      InputError: for a file that is missing, of another kind or damaged, that needs a library which is not installed,
        or whose layers are not VGG-16's.
    """
    try:
        return _read_vgg16(Path(path).expanduser())
    except InputError as error:
        raise type(error)(f"VGG-16 weights: {error}") from error


def _read_vgg16(path: Path) -> Layers:
    if not path.exists() and not path.with_name(f"{path.name}.index").exists():  # as TensorFlow's checkpoints have
        raise InputError(f"no file {path}; give an {KINDS} as --config.init.vgg16 (README, 'VGG-16 weights')")
    found = find_vgg16(_read_layers(path), path)
    layers = {name: flax_layer(name, layer) for name, layer in found.layers.items()}
    channels: int | None = 3
    for name, parts in layers.items():
        channels = None if name == "fc7" and "fc6" not in layers else channels
        _check_layer(name, parts, channels, path)
        channels = parts["kernel"].shape[-1]
    dense = found.names.get("fc6", "")
    hint = f"its dense layers are called as in vgg16-00b39a1b.pth ('{dense}')" if dense.endswith(JOHNSON_NAME) else ""
    first = for_caffe_input(**layers["conv1_1"], sees_caffe=found.sees_caffe, hint=hint, source=str(path))
    layers["conv1_1"] = dict(zip(("kernel", "bias"), first, strict=True))
    for parts in layers.values():
        parts.update({part: values.astype(np.float32, copy=False) for part, values in parts.items()})
    return layers


def _read_layers(path: Path) -> Mapping[str, StoredLayer]:
    match file_kinds.file_kind(path):
        case file_kinds.NPZ:
            return stored_layers(read_npz(path))
        case file_kinds.HDF5 | file_kinds.BROKEN_HDF5:  # of which the reader says more
            return stored_layers(read_hdf5(path))
        case file_kinds.KERAS:
            return stored_layers(_read_keras(path))
        case file_kinds.TORCH_ZIP | file_kinds.TORCH_LEGACY:
            return stored_layers(load_torch_file(path))
        case file_kinds.SAFETENSORS:
            return stored_layers(_read_safetensors(path))
        case kind if kind in (file_kinds.CAFFEMODEL, file_kinds.CAFFE_HDF5) or (
            kind == file_kinds.UNKNOWN and path.suffix.lower() == ".caffemodel"  # the reader says where it is damaged
        ):
            return _caffe_layers(load_caffemodel(path), path)
        case kind:
            raise InputError(file_kinds.wrong_kind(path, kind, f"a VGG-16 as {KINDS}"))


def _caffe_layers(blobs: dict[str, list[np.ndarray]], path: Path) -> dict[str, StoredLayer]:
    layers = {}
    for name, (weight, *bias) in blobs.items():
        if name in (*CONVOLUTIONS, *WINDOWS) and len(bias) != 1:
            raise InputError(
                f"{name} in {path} has {len(bias) + 1} blob(s), expected 2 (weights and bias); {EXPECTED}: give "
                "another file"
            )
        if name in WINDOWS and weight.shape[:2] == (1, 1) and weight.ndim == 4:  # (1, 1, out, in) in older files
            weight = weight[0, 0]
        values = bias[0] if bias else NOTHING
        if bias and values.size == max(values.shape, default=1):  # (1, 1, 1, out) in older files
            values = values.reshape(-1)
        layers[name] = StoredLayer(weight, values, channels_first=True)
    return layers


def _check_layer(name: str, parts: dict[str, np.ndarray], channels: int | None, path: Path) -> None:
    """Raises InputError unless a layer has the shape that follows from the one before, and finite values."""
    kernel, bias = parts["kernel"], parts["bias"]
    side = None if name in WINDOWS else 3  # there are VGG-16 whose fc6 is smaller; the encoder of such a one is good
    expected = (side, side, channels, None)
    if kernel.ndim != 4 or any(want not in (None, n) for want, n in zip(expected, kernel.shape, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in expected)
        raise InputError(
            f"the kernel of {name} in {path} has the shape {kernel.shape} (height, width, input, output), expected "
            f"({wanted}); {EXPECTED}: give another file"
        )
    if bias.shape != kernel.shape[3:]:
        raise InputError(
            f"the bias of {name} in {path} has the shape {bias.shape}, expected {kernel.shape[3:]}; {EXPECTED}: give "
            "another file"
        )
    for part, values in parts.items():
        if values.dtype.kind != "f":
            raise InputError(
                f"the {part} of {name} in {path} has the type {values.dtype}, expected float16, float32 or float64: "
                "convert it"
            )
        if not np.isfinite(values).all():
            raise InputError(
                f"the {part} of {name} in {path} has values that are no finite numbers; download it again "
                "(torchvision's VGG16_Weights.IMAGENET1K_V1, not IMAGENET1K_FEATURES)"
            )


def _read_keras(path: Path) -> dict[str, np.ndarray]:
    """Reads the weights in a .keras archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("model.weights.h5")
            check_size(info.filename, info.file_size, path.stat().st_size)
            content = archive.read(info)
    except (OSError, ValueError, EOFError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not a complete .keras file ({one_line(error)}); download it again") from error
    return read_hdf5(path, io.BytesIO(content))


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise InputError(f"{path} is read by safetensors, which is not there: pip install safetensors") from error
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        raise InputError(
            f"{path} is not a complete .safetensors file of floats ({one_line(error)}); download it again"
        ) from error
    return {name: a.astype(np.float32) if a.dtype == jnp.dtype("bfloat16") else a for name, a in arrays.items()}
