"""Reads variables of MATLAB files.

Supported are numbers, cells and structs in files of the versions 5 to 7.2, and matrices of numbers in files of the
versions 4 and 7.3 (HDF5). The module parses versions 5 to 7.2 itself, because SciPy's reader crashes the whole process
on some damaged and hostile files.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.npz import ALWAYS_ALLOWED, MAX_RATIO, check_size

_HEADER = 128  # bytes before the first element
_MAX_DEPTH = 16  # levels of nested cells and structs; SBD and BSDS500 need 3
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATRIX, _COMPRESSED = 14, 15  # kinds of elements
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CELL, _STRUCT = 1, 2  # kinds of matrices
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = 0x800


def read_mat(file: str | Path | BinaryIO, name: str, remedy: str) -> np.ndarray:
    """Reads a variable of a MATLAB file.

    Args:
      file: file name, or an open binary file.
      name: the name of the variable.
      remedy: advice for the end of the error message.

    Returns:
      A matrix with MATLAB's shape and dtype. A cell array becomes an array of dtype object, a struct a structured array
      whose fields have dtype object. Texts, sparse and complex matrices become empty arrays.

    Raises:
      InputError: if the file cannot be read, is damaged or of another kind, claims more data than it holds, or has no
        variable of this name.
    """
    try:
        content = _whole(file)
        if content[512:520] == _HDF5 or content.startswith(_HDF5):
            return _from_hdf5(content, name)
        if 0 in content[:4]:
            import scipy.io  # This import is slow, and files of version 4 are rare.

            found = scipy.io.loadmat(io.BytesIO(content))  # SciPy reads version 4 in Python, which cannot crash.
            _check_there((key for key in found if not key.startswith("__")), name)
            return found[name]
        order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
        if order is None:
            raise ValueError("it has no MATLAB header")
        elements = {_Matrix(element, order).name: element for element in _variables(content, order)}
        _check_there(elements, name)
        return _Matrix(elements[name], order).value()
    except Exception as error:  # struct, NumPy, SciPy and h5py raise many types of exceptions for damaged files.
        raise InputError(f"{file} is not a MATLAB file with {name} ({one_line(error)}); {remedy}") from error


def _whole(file: str | Path | BinaryIO) -> bytes:
    """Returns the content of a file."""
    if isinstance(file, str | os.PathLike):
        return Path(file).read_bytes()
    file.seek(0)
    return file.read()


def _check_there(names: Iterable[str], name: str) -> None:
    """Raises LookupError that lists the variables of a file unless `name` is among them."""
    names = [found for found in names if found]
    if name not in names:
        raise LookupError(f"it has {', '.join(names) or 'no variable'}")


def _variables(content: bytes, order: str) -> Iterator[bytes]:
    """Yields the content of each variable of a file, decompressed.

    Args:
      content: the whole file.
      order: byte order as `struct` writes it, "<" or ">".
    """
    expanded = 0
    for kind, element in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            decompressor = zlib.decompressobj()
            content_of = decompressor.decompress(element, max(MAX_RATIO * len(content), ALWAYS_ALLOWED) + 1)
            expanded += len(content_of)
            check_size("its variables", expanded, len(content))
            if not decompressor.eof:
                raise EOFError("it ends too early")
            kind, element = next(_elements(content_of, order))
        if kind == _MATRIX:
            yield element


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yields the kind and the content of each element in a sequence of elements."""
    place = 0
    while place < len(content):
        kind, count = struct.unpack_from(f"{order}II", content, place)
        if kind >> 16:  # A small element has its length in the upper 16 bits and up to 4 bytes inside its tag.
            kind, count, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        else:
            start = place + 8
            end = start + count + (0 if kind == _COMPRESSED else -count % 8)
        if start + count > len(content):
            raise EOFError("it ends too early")
        yield kind, content[start : start + count]
        place = end


class _Matrix:
    """Parser of a matrix of numbers, cells or structs.

    Attributes:
      name: the name of the variable; "" inside cells and structs.
    """

    def __init__(self, element: bytes, order: str, depth: int = 0):
        if depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_DEPTH} levels of cells")
        self._order, self._depth, self._size = order, depth, len(element)
        self._parts = _elements(element, order)
        flags = self._numbers() if element else np.zeros(1, "u4")  # An empty cell has no content.
        self._kind, self._complex = int(flags[0]) & 0xFF, bool(int(flags[0]) & _COMPLEX)
        self._shape = tuple(self._numbers().tolist()) if element and self._kind != 17 else (0, 0)
        self.name = next(self._parts)[1].decode("ascii", "replace") if element else ""

    def value(self) -> np.ndarray:
        """Returns the matrix as `read_mat` does; can be called once."""
        if self._kind in _NUMBERS and not self._complex:
            return self._numbers().astype(f"={_NUMBERS[self._kind]}").reshape(self._shape, order="F")
        count = int(np.prod(self._shape, dtype=object))
        if self._kind not in (_CELL, _STRUCT):
            return np.empty(0, object)
        names = [""] if self._kind == _CELL else self._field_names()
        if not 0 <= count * len(names) * 8 <= self._size:
            raise EOFError("it ends too early")
        found = np.empty((count, len(names)), object)
        for i in range(count):
            for j in range(len(names)):
                kind, element = next(self._parts)
                if kind != _MATRIX:
                    raise ValueError("a cell holds no matrix")
                found[i, j] = _Matrix(element, self._order, self._depth + 1).value()
        if self._kind == _CELL:
            return found[:, 0].reshape(self._shape, order="F")
        records = np.empty(count, [(name, object) for name in names])
        for j, name in enumerate(names):
            records[name] = found[:, j]
        return records.reshape(self._shape, order="F")

    def _field_names(self) -> list[str]:
        length = int(self._numbers()[0])
        names = next(self._parts)[1]
        if length < 1:
            raise ValueError("its fields have no names")
        cut = [names[i : i + length].split(b"\0")[0] for i in range(0, len(names), length)]
        return [name.decode("ascii", "replace") for name in cut]

    def _numbers(self) -> np.ndarray:
        kind, content = next(self._parts)
        return np.frombuffer(content, f"{self._order}{_STORED[kind]}")


def _from_hdf5(content: bytes, name: str) -> np.ndarray:
    """Returns a matrix of numbers from a file of version 7.3; MATLAB stores it transposed."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("version 7.3 needs h5py: pip install h5py, or save it with -v7") from error
    with h5py.File(io.BytesIO(content), "r") as file:
        _check_there((str(key) for key in file if not str(key).startswith("#")), name)
        link, found = file.get(name, getlink=True), file.get(name)
        if not isinstance(link, h5py.HardLink) or not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
            raise TypeError(f"in version 7.3 its {name} is no matrix of numbers; save it with -v7")
        if found.is_virtual or found.external:
            raise ValueError(f"its {name} lies in another file")
        check_size(name, found.nbytes, len(content))
        if found.attrs.get("MATLAB_empty", 0):
            return np.zeros(tuple(found[...].astype(int).tolist()))
        return found[...].T
