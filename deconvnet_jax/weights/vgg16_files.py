"""Reads an ImageNet VGG-16 (Simonyan and Zisserman, 2015) from files of Keras, PyTorch, Caffe or NumPy."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from deconvnet_jax import file_kinds
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import no_file
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
# End of fc6's name in vgg16-00b39a1b.pth, which has Caffe's weights under torchvision's names.
JOHNSON_NAME = "classifier.1"


def read_vgg16(path: str | Path) -> Layers:
    """Reads the layers of a VGG-16, converted to this project's input: BGR, 0..255 minus `ops.preprocess.MEAN_BGR`.

    The first layer is changed if it expects another input; see `vgg16_input`.

    Args:
      path: a file of one of these kinds. The content decides, not the suffix.
        Keras's weights or models of any version (.h5, .hdf5, .keras), with or without the dense layers.
        A state dict of PyTorch (.pth, .pt, .safetensors) with torchvision's, timm's or Caffe's names, also with a
        prefix such as "module.", and also of the features alone ("0.weight", ...).
        The original VGG_ILSVRC_16_layers.caffemodel, or a .caffemodel.h5.
        An .npz of arrays with any of these names, such as `block1_conv1/kernel`.

    Returns:
      {"conv1_1": {"kernel": [3, 3, in, out], "bias": [out]}, ..., "conv5_3": ...}, float32. If the file has the dense
      layers, also "fc6" (kernel [7, 7, in, out]) and "fc7" (kernel [1, 1, in, out]), as convolutions. The numbers of
      channels are those of the file. Kernels may be views that are not contiguous, which saves memory.

    Raises:
      InputError: for a file that is missing, damaged, of another kind or no VGG-16, and for one that needs a library
        that is not installed.
    """
    try:
        return _read_vgg16(Path(path).expanduser())
    except InputError as error:
        raise type(error)(f"VGG-16 weights: {error}") from error


def _read_vgg16(path: Path) -> Layers:
    """Returns the layers as `read_vgg16` does; its errors do not start with "VGG-16 weights"."""
    # A TensorFlow checkpoint NAME is stored as NAME.index and more; `file_kind` explains what to do with it.
    if not path.exists() and not path.with_name(f"{path.name}.index").exists():
        raise InputError(no_file(path, remedy=f"give an {KINDS}, or {file_kinds.GET_VGG16}"))
    found = find_vgg16(_read_layers(path), path)
    layers = {name: flax_layer(name, layer) for name, layer in found.layers.items()}
    channels: int | None = 3
    for name, parts in layers.items():
        channels = None if name == "fc7" and "fc6" not in layers else channels
        _check_layer(name, parts, channels, path)
        channels = parts["kernel"].shape[-1]
    dense = found.names.get("fc6", "")
    hint = f"its dense layers are named as in vgg16-00b39a1b.pth ('{dense}')" if dense.endswith(JOHNSON_NAME) else ""
    first = for_caffe_input(**layers["conv1_1"], sees_caffe=found.sees_caffe, hint=hint, source=str(path))
    layers["conv1_1"] = dict(zip(("kernel", "bias"), first, strict=True))
    for parts in layers.values():
        parts.update({part: values.astype(np.float32, copy=False) for part, values in parts.items()})
    return layers


def _read_layers(path: Path) -> Mapping[str, StoredLayer]:
    """Returns the layers in a file of any supported kind."""
    match file_kinds.file_kind(path):
        case file_kinds.NPZ:
            return stored_layers(read_npz(path))
        case file_kinds.HDF5 | file_kinds.BROKEN_HDF5:  # For a broken file, the reader reports what is wrong.
            return stored_layers(read_hdf5(path))
        case file_kinds.KERAS:
            return stored_layers(_read_keras(path))
        case file_kinds.TORCH_ZIP | file_kinds.TORCH_LEGACY:
            return stored_layers(load_torch_file(path))
        case file_kinds.SAFETENSORS:
            return stored_layers(_read_safetensors(path))
        case kind if kind in (file_kinds.CAFFEMODEL, file_kinds.CAFFE_HDF5) or (
            # The file is probably damaged; the reader reports where.
            kind == file_kinds.UNKNOWN and path.suffix.lower() == ".caffemodel"
        ):
            return _caffe_layers(load_caffemodel(path), path)
        case kind:
            raise InputError(file_kinds.wrong_kind(path, kind, f"a VGG-16 as {KINDS}"))


def _caffe_layers(blobs: dict[str, list[np.ndarray]], path: Path) -> dict[str, StoredLayer]:
    """Returns the layers of a caffemodel, without the additional axes of older files."""
    layers = {}
    for name, (weight, *bias) in blobs.items():
        if name in (*CONVOLUTIONS, *WINDOWS) and len(bias) != 1:
            raise InputError(
                f"{name} in {path} has {len(bias) + 1} blob(s), expected 2 (weights and bias); {EXPECTED}: give "
                "another file"
            )
        if name in WINDOWS and weight.shape[:2] == (1, 1) and weight.ndim == 4:  # Older files: [1, 1, out, in].
            weight = weight[0, 0]
        values = bias[0] if bias else NOTHING
        if bias and values.size == max(values.shape, default=1):  # Older files: [1, 1, 1, out].
            values = values.reshape(-1)
        layers[name] = StoredLayer(weight, values, channels_first=True)
    return layers


def _check_layer(name: str, parts: dict[str, np.ndarray], channels: int | None, path: Path) -> None:
    """Raises InputError unless a layer has the expected shape and finite values of a floating-point type.

    Args:
      name: the name of the layer in this project.
      parts: its kernel and bias in Flax's axes.
      channels: the number of input channels, which is that of the layer before; None for any.
      path: the file, named in error messages.
    """
    kernel, bias = parts["kernel"], parts["bias"]
    side = None if name in WINDOWS else 3  # Some VGG-16 have a smaller fc6; their encoders can still be used.
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
                f"the {part} of {name} in {path} has the type {values.dtype}, expected float16, float32 or float64; "
                "convert it"
            )
        if not np.isfinite(values).all():
            raise InputError(
                f"the {part} of {name} in {path} has values that are no finite numbers; download it again "
                "(torchvision's VGG16_Weights.IMAGENET1K_V1, not IMAGENET1K_FEATURES)"
            )


def _read_keras(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a .keras archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("model.weights.h5")
            check_size(info.filename, info.file_size, path.stat().st_size)
            content = archive.read(info)
    except (OSError, ValueError, EOFError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not a complete .keras file ({one_line(error)}); download it again") from error
    return read_hdf5(path, io.BytesIO(content))


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a .safetensors file; bfloat16 becomes float32."""
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise InputError(f"{path} needs safetensors, which is not installed; pip install safetensors") from error
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        raise InputError(
            f"{path} is not a complete .safetensors file of floats ({one_line(error)}); download it again"
        ) from error
    return {name: a.astype(np.float32) if a.dtype == jnp.dtype("bfloat16") else a for name, a in arrays.items()}
