"""Reads the arrays of HDF5 files of Keras (all versions) and Caffe.

Only content of the file itself is read: no links to other files, and no array that is larger than the file can hold.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.npz import check_size

if TYPE_CHECKING:
    import h5py

OPTIMIZERS = ("optimizer_weights", "optimizer")  # names of Keras's groups with the state of the optimizer


def read_hdf5(path: Path, stream: BinaryIO | None = None) -> dict[str, np.ndarray]:
    """Reads all arrays of an HDF5 file except the state of Keras's optimizer.

    Args:
      path: the file. If it is a whole Keras model, only its group "model_weights" is read.
      stream: the content of the HDF5 file, if it is part of the file `path`, for example of a .keras archive.

    Returns:
      {"group/.../name": array}. The order is the one that Keras 1 and 2 record, or else the natural order of the names
      ("conv2d_2" before "conv2d_10"). Arrays without axes and arrays that hold no numbers are left out.

    Raises:
      InputError: if h5py is not installed, or the file is damaged or claims arrays that are too large for its size.
    """
    with _opened(path, stream) as file:
        return dict(_arrays(_group(file, "model_weights") or file, path.stat().st_size))


@contextlib.contextmanager
def _opened(path: Path, stream: BinaryIO | None = None) -> Iterator["h5py.File"]:
    """Yields the opened file, and turns h5py's errors in the block into an InputError."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path} needs h5py, which is not installed; pip install h5py") from error
    try:
        with h5py.File(stream or path, "r") as file:
            yield file
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, MemoryError) as error:
        raise InputError(f"{path} is not a complete HDF5 file ({one_line(error)}); download it again") from error


def _group(root: "h5py.Group", name: str) -> "h5py.Group | None":
    """Returns the group of this name; None if there is none."""
    import h5py

    found = root.get(name)
    return found if isinstance(found, h5py.Group) else None


def _arrays(root: "h5py.Group", file_size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) of all arrays below a group, as `read_hdf5` returns them."""
    import h5py

    names: list[str] = []
    root.visit(names.append)  # `visit` does not follow links to other files.
    claimed, recorded = 0, {name: i for i, name in enumerate(_recorded_order(root))}
    for name in sorted(names, key=lambda name: (recorded.get(name, len(recorded)), natural_order(name))):
        item = root[name]
        if name.split("/")[0] in OPTIMIZERS or not isinstance(item, h5py.Dataset) or not item.shape:
            continue
        if item.is_virtual or item.external:
            raise ValueError(f"{name} lies in another file")
        claimed += item.nbytes
        check_size(name, claimed, file_size)
        if not _has_all_values(item):
            raise ValueError(f"{name} claims {item.nbytes:,} bytes and lacks some of them")
        if item.dtype.kind in "fiub":
            yield name, item[...]


def _has_all_values(item: "h5py.Dataset") -> bool:
    """Returns whether a data set is stored completely; HDF5 silently replaces missing parts by zeros."""
    if item.chunks is None:
        return item.id.get_storage_size() >= item.nbytes
    wanted = math.prod(-(-side // chunk) for side, chunk in zip(item.shape, item.chunks, strict=True))
    return item.id.get_num_chunks() >= wanted


def _recorded_order(root: "h5py.Group") -> Iterator[str]:
    """Yields the names of the arrays as Keras 1 and 2 list them in the attributes of the file and of the layers."""
    for layer in _texts(root.attrs.get("layer_names")):
        if group := _group(root, layer):
            yield from (f"{layer}/{weight}" for weight in _texts(group.attrs.get("weight_names")))


def _texts(values: object) -> list[str]:
    """Returns an attribute as a list of texts; an empty list if it is missing or no list."""
    items = values.tolist() if isinstance(values, np.ndarray) and values.ndim == 1 else []
    return [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in items]


def natural_order(name: str) -> list[str | int]:
    """Returns a sort key that puts "conv2d_2" before "conv2d_10"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def caffe_hdf5_layers(path: Path) -> dict[str, list[np.ndarray]]:
    """Reads the parameters in a .caffemodel.h5, which Caffe's solver writes with `snapshot_format: HDF5`.

    Returns:
      {layer name: [blob, ...]} of all layers, [] for layers without parameters. Blobs have Caffe's shapes, as in
      `load_caffemodel`.

    Raises:
      InputError: if h5py is not installed, or the file is damaged or claims arrays that are too large for its size.
    """
    with _opened(path) as file:
        layers: dict[str, list[np.ndarray]] = {str(name): [] for name in _group(file, "data") or ()}
    for name, array in read_hdf5(path).items():
        group, _, layer = name.partition("/")
        layer, _, number = layer.rpartition("/")  # The name of a layer may contain slashes.
        if group == "data" and layer and number.isdecimal():
            layers.setdefault(layer, []).append(array)
    return layers
