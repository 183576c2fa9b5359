"""Reads caffemodels without Caffe: the layers of a NetParameter message, or of Caffe's HDF5, with their arrays.

The few field numbers needed are those of Caffe's caffe.proto, in its older ("layers", types as numbers) and newer form
("layer", types as words), and of NVIDIA's fork, which writes numbers as raw bytes. Of a damaged or hostile file nothing
is believed: shapes are checked before memory is taken.
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

MAX_AXES = 32  # Caffe's own limit
MAX_NAME = 1000


class CaffemodelError(InputError):
    """The file is no caffemodel, is damaged, or holds other layers than the network's."""


class CaffeLayer(NamedTuple):
    """A layer as the file describes it.

    Attributes:
      name: its name.
      type: "Convolution", ... in newer files, the number of the type in older ones (4 = CONVOLUTION, ...).
      blobs: its parameters, float32 or float64, shaped as Caffe stores them; empty if they were not asked for.
    """

    name: str
    type: str | int
    blobs: list[np.ndarray]


class _Form(NamedTuple):
    """Field numbers of a layer in one of the two forms."""

    name: int
    type: int
    blobs: int


LAYER_FORMS = {2: _Form(name=4, type=5, blobs=6), 100: _Form(name=1, type=2, blobs=7)}  # by field of NetParameter
V0_LAYER = 1  # in a layer of the older form: one of the form before that
LEGACY_DIMS, DATA, SHAPE, DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8  # of BlobProto
RAW_DATA = 12  # of BlobProto in NVCaffe since 0.16
RAW_TYPES = {2: "<f2", 4: "<f4", 8: "<f8"}  # by bytes per number: the numbers of NVCaffe's types differ by version


def load_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """The parameters of all layers that have any.

    Args:
      path: a .caffemodel, as Caffe's solver or `Net.save` writes it, NVCaffe's included, or a .caffemodel.h5.

    Returns:
      {layer name: [blob, ...]}, blobs as Caffe stores them: convolution (out, in, kh, kw), deconvolution
      (in, out, kh, kw), inner product (out, in) or (1, 1, out, in), bias (out,) or (1, 1, 1, out). float32, or
      float64 where the file has doubles, or float16 where NVCaffe wrote halves. The arrays are copies: the file may go.

    Raises:
      CaffemodelError: for a file that is missing, of another kind, truncated or damaged, or has two layers with
        parameters of the same name.
    """
    layers: dict[str, list[np.ndarray]] = {}
    for layer in read_layers(path):
        if not layer.blobs:
            continue
        if layer.name in layers:
            raise CaffemodelError(f"{path}: two layers with parameters are called {layer.name!r}")
        layers[layer.name] = layer.blobs
    return layers


def read_layers(path: str | Path, with_blobs: bool = True) -> Iterator[CaffeLayer]:
    """All layers one by one, in the file's order, those without parameters too.

    Of a .caffemodel.h5, which does not tell them, the types are "".

    Args:
      path: a .caffemodel or .caffemodel.h5.
      with_blobs: False leaves the arrays where they are, which makes it a matter of milliseconds.

    Raises:
      CaffemodelError: as `load_caffemodel`, on the way.
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
    if kind not in (file_kinds.CAFFEMODEL, file_kinds.UNKNOWN):  # what is unknown may be a damaged caffemodel
        raise CaffemodelError(file_kinds.wrong_kind(path, kind, "a .caffemodel"))
    try:
        with path.open("rb") as stream:
            data, found = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)), False
        for field in fields(data, 0, len(data)):
            if field.number in LAYER_FORMS:
                found = True
                yield _layer(path, data, field, LAYER_FORMS[field.number], with_blobs)
    except WireError as error:
        raise CaffemodelError(f"{path} is no caffemodel, or damaged: {error}; download it again") from error
    except OSError as error:
        raise CaffemodelError(f"{path} cannot be read ({error})") from error
    if not found:
        raise CaffemodelError(f"{path} holds no layers; it is no caffemodel, or an empty one")


def _layer(path: Path, data: memoryview, layer: Field, form: _Form, with_blobs: bool) -> CaffeLayer:
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
                f"{path} has the form that Caffe used before 2014; run Caffe's upgrade_net_proto_binary on it"
            )
    blobs = [_blob(data, blob, f"blob {i} of layer {name!r}") for i, blob in enumerate(blobs)] if with_blobs else []
    return CaffeLayer(name, kind, blobs)


def _expect(field: Field, *wire_types: int) -> None:
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
        raise WireError(f"a name that is no text at byte {field.start:,}") from error


def _blob(data: memoryview, blob: Field, what: str) -> np.ndarray:
    """Reads an array; memory is taken only for numbers that the file has."""
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
    return value - 2**64 if value >= 2**63 else value


def _dims(data: memoryview, shape: Field, what: str) -> list[int]:
    """Returns the dimensions in a BlobShape."""
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
