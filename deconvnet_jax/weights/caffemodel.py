"""Reads the layers and arrays of caffemodels, as protobuf or HDF5, without Caffe.

The field numbers are those of Caffe's caffe.proto. Three forms are read: the older one ("layers", types as numbers),
the newer one ("layer", types as words), and that of NVIDIA's fork, which writes arrays as raw bytes. Damaged and
hostile files are safe to read: shapes are checked before memory is allocated.
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax import file_kinds
from deconvnet_jax.errors import InputError
from deconvnet_jax.protobuf import BYTES, VARINT, Field, WireError, fields, varint
from deconvnet_jax.weights.hdf5_file import caffe_hdf5_layers

MAX_AXES = 32  # axes per array, Caffe's own limit
MAX_NAME = 1000  # bytes per name of a layer


class CaffemodelError(InputError):
    """Error about a file that is not a caffemodel, is damaged, or does not hold the layers of the network."""


class CaffeLayer(NamedTuple):
    """Layer of a caffemodel.

    Attributes:
      name: the name of the layer.
      type: a word such as "Convolution" in newer files, a number in older ones (4 = CONVOLUTION, ...), "" in HDF5.
      blobs: the parameters in Caffe's shapes, float16, float32 or float64; empty if the layer has none, or if the
        blobs were not requested.
    """

    name: str
    type: str | int
    blobs: list[np.ndarray]


class _Form(NamedTuple):
    """Field numbers of a layer in the older or in the newer form."""

    name: int
    type: int
    blobs: int


# Keys are the numbers of the fields of NetParameter that hold the layers.
LAYER_FORMS = {2: _Form(name=4, type=5, blobs=6), 100: _Form(name=1, type=2, blobs=7)}
V0_LAYER = 1  # field of a layer in the older form that holds a layer in the form before 2014
LEGACY_DIMS, DATA, SHAPE, DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8  # fields of BlobProto
RAW_DATA = 12  # field of BlobProto in NVCaffe since 0.16
# dtypes by bytes per number. NVCaffe also stores a code of the type, but its codes differ between versions.
RAW_TYPES = {2: "<f2", 4: "<f4", 8: "<f8"}


def load_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Reads the parameters of all layers of a caffemodel.

    Args:
      path: a .caffemodel that Caffe or NVCaffe wrote (solver or `Net.save`), or a .caffemodel.h5.

    Returns:
      {layer name: [blob, ...]} of all layers with parameters. Blobs have Caffe's shapes: convolution [out, in, kh, kw],
      deconvolution [in, out, kh, kw], inner product [out, in] or [1, 1, out, in], bias [out] or [1, 1, 1, out]. They
      are float32, float64 if the file has doubles, or float16 if NVCaffe wrote halves. The arrays are copies, so the
      file may be deleted.

    Raises:
      CaffemodelError: for a file that is missing, of another kind, truncated or damaged, or that has two layers with
        parameters and the same name.

    Example:
      >>> from deconvnet_jax.weights import load_caffemodel
      >>> layers = load_caffemodel("DeconvNet_trainval_inference.caffemodel")
      >>> kernel, bias = layers["conv1_1"]
      >>> kernel.shape[1:]  # [out, in, kh, kw]; the authors' file has 64 channels out
      (3, 3, 3)
    """
    layers: dict[str, list[np.ndarray]] = {}
    for layer in read_layers(path):
        if not layer.blobs:
            continue
        if layer.name in layers:
            raise CaffemodelError(
                f"{path} has two layers with parameters that are called {layer.name!r}; rename one and save the file"
            )
        layers[layer.name] = layer.blobs
    return layers


def read_layers(path: str | Path, with_blobs: bool = True) -> Iterator[CaffeLayer]:
    """Yields all layers of a caffemodel in the order of the file, including those without parameters.

    Args:
      path: a .caffemodel or .caffemodel.h5. The latter does not store the types of layers, which are "".
      with_blobs: read the arrays. False takes only milliseconds and leaves `CaffeLayer.blobs` empty.

    Yields:
      One `CaffeLayer` after the other.

    Raises:
      CaffemodelError: for a file that is missing, of another kind, truncated or damaged. Damage may be noticed after
        some layers were yielded.
    """
    path = Path(path).expanduser()
    try:
        kind = file_kinds.file_kind(path)
        if kind == file_kinds.CAFFE_HDF5:
            blobs = caffe_hdf5_layers(path)
            yield from (CaffeLayer(name, "", blobs[name] if with_blobs else []) for name in blobs)
            return
    except InputError as error:
        raise CaffemodelError(str(error)) from error
    if kind not in (file_kinds.CAFFEMODEL, file_kinds.UNKNOWN):  # An unknown kind may be a damaged caffemodel.
        raise CaffemodelError(file_kinds.wrong_kind(path, kind, "a .caffemodel"))
    try:
        with path.open("rb") as stream:
            data, found = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)), False
        for field in fields(data, 0, len(data)):
            if field.number in LAYER_FORMS:
                found = True
                yield _layer(path, data, field, LAYER_FORMS[field.number], with_blobs)
    except WireError as error:
        raise CaffemodelError(f"{path} is not a caffemodel, or is damaged ({error}); download it again") from error
    except OSError as error:
        raise CaffemodelError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    if not found:
        raise CaffemodelError(f"{path} holds no layers; expected a caffemodel with layers: give another file")


def _layer(path: Path, data: memoryview, layer: Field, form: _Form, with_blobs: bool) -> CaffeLayer:
    """Returns the layer in a field of NetParameter."""
    _expect(layer, BYTES)
    name, kind, blobs = "", 0, []
    for field in fields(data, layer.start, layer.end):
        if field.number == form.name:
            name = _text(data, field)
        elif field.number == form.type:
            _expect(field, VARINT, BYTES)
            kind = _text(data, field) if field.wire_type == BYTES else field.start
        elif field.number == form.blobs:
            _expect(field, BYTES)
            blobs.append(field)
        elif field.number == V0_LAYER and form is LAYER_FORMS[2]:
            raise CaffemodelError(
                f"{path} has the format that Caffe used before 2014; convert it with Caffe's upgrade_net_proto_binary"
            )
    blobs = [_blob(data, blob, f"blob {i} of layer {name!r}") for i, blob in enumerate(blobs)] if with_blobs else []
    return CaffeLayer(name, kind, blobs)


def _expect(field: Field, *wire_types: int) -> None:
    """Raises WireError unless a field has one of the wire types."""
    if field.wire_type not in wire_types:
        raise WireError(f"wire type {field.wire_type} where Caffe writes {wire_types[0]} before byte {field.end:,}")


def _text(data: memoryview, field: Field) -> str:
    _expect(field, BYTES)
    size = field.end - field.start
    if size > MAX_NAME:
        raise WireError(f"a name of {size:,} bytes at byte {field.start:,}")
    try:
        return str(data[field.start : field.end], "utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"a name that is not UTF-8 text at byte {field.start:,}") from error


def _blob(data: memoryview, blob: Field, what: str) -> np.ndarray:
    """Returns the array in a BlobProto; memory is allocated only for numbers that the file holds.

    Args:
      data: the whole file.
      blob: the field that holds the BlobProto.
      what: how error messages name the array.
    """
    legacy: dict[int, int] = {}
    shape: list[int] | None = None
    numbers: dict[int, list[Field]] = {DOUBLE_DATA: [], DATA: [], RAW_DATA: []}
    for field in fields(data, blob.start, blob.end):
        if field.number in LEGACY_DIMS:
            _expect(field, VARINT)
            legacy[field.number] = _signed(field.start)
        elif field.number == SHAPE:
            _expect(field, BYTES)
            shape = [*(shape or []), *_dims(data, field, what)]
        elif field.number in numbers:
            _expect(field, BYTES)
            numbers[field.number] += [field] if field.end > field.start else []
    dims = [legacy.get(axis, 0) for axis in LEGACY_DIMS] if shape is None else shape
    count = math.prod(dims) if all(dim > 0 for dim in dims) else 0
    number, pieces = next(((number, found) for number, found in numbers.items() if found), (DATA, []))
    size = sum(piece.end - piece.start for piece in pieces)
    item = {DATA: 4, DOUBLE_DATA: 8}.get(number) or (size // count if count else 0)
    if not count or count * item != size or item not in RAW_TYPES:
        raise WireError(f"{what} has the shape {dims} but {size:,} bytes of numbers")
    content = [np.frombuffer(data[piece.start : piece.end], np.uint8) for piece in pieces]
    return np.concatenate(content).view(RAW_TYPES[item]).reshape(dims)


def _signed(value: int) -> int:
    """Returns the int64 that a varint encodes."""
    return value - 2**64 if value >= 2**63 else value


def _dims(data: memoryview, shape: Field, what: str) -> list[int]:
    """Returns the dimensions in a BlobShape; arguments as for `_blob`."""
    dims: list[int] = []
    for field in fields(data, shape.start, shape.end):
        if field.number != 1:
            continue
        _expect(field, BYTES)
        position = field.start
        while position < field.end:
            value, position = varint(data, position, field.end)
            dims.append(_signed(value))
            if len(dims) > MAX_AXES:
                raise WireError(f"{what} has more than {MAX_AXES} dimensions")
    return dims
