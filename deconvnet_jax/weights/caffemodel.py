"""Reads caffemodels without Caffe: the layers of a NetParameter message, or of Caffe's HDF5, with their arrays.

The file is Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding); the few field numbers needed are
those of Caffe's caffe.proto, in its older ("layers", types as numbers) and newer form ("layer", types as words), and
of NVIDIA's fork, which writes numbers as raw bytes.
Of a damaged or hostile file nothing is believed: lengths are checked before they are followed, shapes before memory is
taken, and the number of fields is limited.
"""

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax import file_kinds
from deconvnet_jax.errors import InputError
from deconvnet_jax.weights.hdf5_file import caffe_hdf5_layers

# Wire types.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# A network of a thousand layers has some 30,000; without a limit, a file of tiny fields would take memory and time.
MAX_FIELDS = 300_000
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


class _Fields(NamedTuple):
    """Field numbers of a layer in one of the two forms."""

    name: int
    type: int
    blobs: int


LAYER_FORMS = {2: _Fields(name=4, type=5, blobs=6), 100: _Fields(name=1, type=2, blobs=7)}  # by field of NetParameter
V0_LAYER = 1  # in a layer of the older form: one of the form before that
LEGACY_DIMS, DATA, DIFF, SHAPE, DOUBLE_DATA, DOUBLE_DIFF = (1, 2, 3, 4), 5, 6, 7, 8, 9  # of BlobProto
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
    file, found = _open(path), False
    for number, wire_type, start, end in _Message(file, 0, len(file.data)):
        if number in LAYER_FORMS:
            found = True
            _expect(file, start, wire_type, BYTES)
            yield _layer(file, start, end, LAYER_FORMS[number], with_blobs)
    if not found:
        raise CaffemodelError(f"{path} holds no layers; it is no caffemodel, or an empty one")


@dataclass
class _File:
    path: Path
    data: memoryview
    fields_left: int = MAX_FIELDS

    def damaged(self, position: int, what: str) -> CaffemodelError:
        return CaffemodelError(f"{self.path} is no caffemodel, or damaged: {what} at byte {position:,}; fetch it again")


def _open(path: Path) -> _File:
    try:
        with path.open("rb") as stream:
            return _File(path, memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError) as error:
        raise CaffemodelError(f"{path} cannot be read ({error})") from error


class _Message:
    """The fields of the message in data[start:end], once through.

    Yields (number, wire type, start, end): the bytes of the value, or for a varint the value itself as `start`. What
    lies between `position` and `end` is still to come.
    """

    def __init__(self, file: _File, start: int, end: int):
        self.file, self.position, self.end = file, start, end

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        file = self.file
        while self.position < self.end:
            begin = self.position
            file.fields_left -= 1
            if file.fields_left < 0:
                raise file.damaged(begin, f"more than {MAX_FIELDS:,} fields, which no network has,")
            tag = self.varint()
            number, wire_type = tag >> 3, tag & 7
            if not 0 < number < 2**29 or wire_type not in (VARINT, FIXED64, BYTES, FIXED32):
                raise file.damaged(begin, f"field {number} of wire type {wire_type}, which Caffe never writes,")
            if wire_type == VARINT:
                value = self.varint()
                yield number, wire_type, value, self.position
                continue
            length = {FIXED64: 8, FIXED32: 4}.get(wire_type)
            length = self.varint() if length is None else length
            start, left = self.position, self.end - self.position
            if length > left:
                raise file.damaged(begin, f"{length:,} bytes announced where {left:,} are left (truncated?)")
            self.position = start + length
            yield number, wire_type, start, self.position

    def skip_repeats(self, tag: int, size: int) -> int:
        """Passes the fields of one tag (below 128) and size in bytes that come next, and counts them.

        So does a list of numbers look that is not packed.
        """
        repeats, chunk = 0, 16
        while count := min(chunk, (self.end - self.position) // (size + 1)):
            fields = self.file.data[self.position : self.position + count * (size + 1)]
            tags = np.frombuffer(fields, np.uint8)[:: size + 1]
            same = int(np.argmin(np.append(tags == tag, False)))
            repeats += same
            self.position += same * (size + 1)
            if same < count:
                break
            chunk = min(2 * chunk, 2**20)  # grows, so that a short run costs little and a long one few rounds
        return repeats

    def varint(self) -> int:
        data, value = self.file.data, 0
        for i in range(10):
            if self.position >= self.end:
                raise self.file.damaged(self.position, "an unfinished number (truncated?)")
            byte = data[self.position]
            self.position += 1
            value |= (byte & 127) << 7 * i
            if byte < 128:
                return value & 2**64 - 1
        raise self.file.damaged(self.position, "a number of more than 10 bytes")


def _expect(file: _File, position: int, found: int, *wire_types: int) -> None:
    if found not in wire_types:
        raise file.damaged(position, f"wire type {found} where Caffe writes {wire_types[0]}")


def _layer(file: _File, start: int, end: int, form: _Fields, with_blobs: bool) -> CaffeLayer:
    name, kind, spans = "", 0, []
    for number, wire_type, at, to in _Message(file, start, end):
        if number == form.name:
            _expect(file, start, wire_type, BYTES)
            name = _text(file, at, to)
        elif number == form.type:
            _expect(file, start, wire_type, VARINT, BYTES)
            kind = _text(file, at, to) if wire_type == BYTES else at
        elif number == form.blobs:
            _expect(file, start, wire_type, BYTES)
            spans.append((at, to))
        elif number == V0_LAYER and form is LAYER_FORMS[2]:
            raise CaffemodelError(
                f"{file.path} has the form that Caffe used before 2014; run Caffe's upgrade_net_proto_binary on it"
            )
    blobs = [_blob(file, *span, f"blob {i} of layer {name!r}") for i, span in enumerate(spans)] if with_blobs else []
    return CaffeLayer(name, kind, blobs)


def _text(file: _File, start: int, end: int) -> str:
    if end - start > MAX_NAME:
        raise file.damaged(start, f"a name of {end - start:,} bytes")
    try:
        return str(file.data[start:end], "utf-8")
    except UnicodeDecodeError as error:
        raise file.damaged(start, "a name that is no text") from error


class _Run(NamedTuple):
    """Numbers in the file, `stride` bytes apart."""

    start: int
    count: int
    stride: int


def _blob(file: _File, start: int, end: int, what: str) -> np.ndarray:
    legacy, shape = {}, None
    runs: dict[int, list[_Run]] = {DATA: [], DOUBLE_DATA: []}
    raw = None
    message = _Message(file, start, end)
    for number, wire_type, at, to in message:
        if number in LEGACY_DIMS:
            _expect(file, start, wire_type, VARINT)
            legacy[number] = _signed(at)
        elif number == SHAPE:
            _expect(file, start, wire_type, BYTES)
            shape = [*(shape or []), *_dims(file, at, to, what)]
        elif number == RAW_DATA:
            _expect(file, start, wire_type, BYTES)
            raw = at, to
        elif number in (DATA, DIFF, DOUBLE_DATA, DOUBLE_DIFF):
            single, size = (FIXED32, 4) if number in (DATA, DIFF) else (FIXED64, 8)
            _expect(file, start, wire_type, BYTES, single)
            packed = wire_type == BYTES
            if packed and (to - at) % size:
                raise file.damaged(at, f"{what} holds {to - at:,} bytes, no multiple of {size},")
            count = (to - at) // size if packed else 1 + message.skip_repeats(number << 3 | wire_type, size)
            if number in runs and count:
                runs[number].append(_Run(at, count, size if packed else size + 1))
    dims = tuple(legacy.get(axis, 0) for axis in LEGACY_DIMS) if shape is None else tuple(shape)
    if raw and not any(runs.values()):
        return _raw_values(file, *raw, dims, what)
    number = DOUBLE_DATA if runs[DOUBLE_DATA] else DATA
    return _values(file, runs[number], "<f8" if number == DOUBLE_DATA else "<f4", dims, what)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _dims(file: _File, start: int, end: int, what: str) -> list[int]:
    """A BlobShape's dimensions, packed or not."""
    dims: list[int] = []
    for number, wire_type, at, to in _Message(file, start, end):
        if number != 1:
            continue
        _expect(file, start, wire_type, VARINT, BYTES)
        if wire_type == VARINT:
            dims.append(_signed(at))
        else:
            packed = _Message(file, at, to)
            while packed.position < to:
                dims.append(_signed(packed.varint()))
                _check_axes(file, dims, what)
        _check_axes(file, dims, what)
    return dims


def _check_axes(file: _File, dims: list[int], what: str) -> None:
    if len(dims) > MAX_AXES:
        raise CaffemodelError(f"{file.path}: {what} has more than {MAX_AXES} dimensions; the file is damaged")


def _values(file: _File, runs: list[_Run], dtype: str, dims: tuple[int, ...], what: str) -> np.ndarray:
    """The numbers of all runs, shaped; memory is taken only for numbers that the file has."""
    count = sum(run.count for run in runs)
    if any(dim <= 0 for dim in dims) or math.prod(dims) != count:
        raise CaffemodelError(
            f"{file.path}: {what} has the shape {list(dims)} but {count:,} values; the file is damaged: fetch it again"
        )
    values = np.empty(count, dtype)
    done = 0
    for run in runs:
        values[done : done + run.count] = np.ndarray((run.count,), dtype, file.data, run.start, (run.stride,))
        done += run.count
    return values.reshape(dims)


def _raw_values(file: _File, start: int, end: int, dims: tuple[int, ...], what: str) -> np.ndarray:
    """NVCaffe's numbers, float16, float32 or float64 as their size says."""
    size = end - start
    count = math.prod(dims) if all(dim > 0 for dim in dims) else 0
    item = next((item for item in RAW_TYPES if count * item == size), None)
    if item is None or not count:
        raise CaffemodelError(
            f"{file.path}: {what} has the shape {list(dims)} but {size:,} bytes of raw data; the file is damaged: "
            "fetch it again"
        )
    return _values(file, [_Run(start, count, item)], RAW_TYPES[item], dims, what)
