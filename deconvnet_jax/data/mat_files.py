"""Variables of MATLAB files: of versions 4 to 7.2 by SciPy, of 7.3, which is HDF5, by h5py.

SciPy trusts what a file says of its sizes, and crashes on cells in cells in cells; so the structure is looked at first.
"""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import scipy.io

from deconvnet_jax.errors import InputError
from deconvnet_jax.npz import check_size

_HEADER = 128  # bytes before the first element
_MATRIX, _COMPRESSED = 14, 15  # kinds of elements
_MAX_EXPANDED = 2**30  # bytes of one variable
_MAX_DEPTH = 16  # of matrices in cells and structs; SBD and BSDS500 need 3
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_mat(file: str | Path | BinaryIO, name: str, remedy: str) -> np.ndarray:
    """Returns a variable of a MATLAB file.

    Args:
      file: its name, or an open binary file.
      name: of the variable.
      remedy: what to do where there is none, for the message.

    Returns:
      Numbers as saved; cells and structs, which are not read from version 7.3, as SciPy returns them.

    Raises:
      InputError: if the file cannot be read, is damaged, of another kind, claims more than it holds, or has no such
        variable.
    """
    try:
        content = Path(file).read_bytes() if isinstance(file, str | os.PathLike) else _whole(file)
        if content[512:520] == _HDF5 or content.startswith(_HDF5):
            return _from_hdf5(content, name)
        _check_structure(content)
        stream = io.BytesIO(content)
        there = [variable for variable, _, _ in scipy.io.whosmat(stream)]
        if name not in there:
            raise LookupError(_has(there))
        stream.seek(0)
        return scipy.io.loadmat(stream, variable_names=[name])[name]
    except Exception as error:  # SciPy and h5py raise whatever a damaged file leads them to
        reason = " ".join(str(error.args[0] if error.args else "").split())[:200] or type(error).__name__
        raise InputError(f"{file} is no MATLAB file with {name} ({reason}); {remedy}") from error


def _whole(stream: BinaryIO) -> bytes:
    stream.seek(0)
    return stream.read()


def _has(names: list[str]) -> str:
    return f"it has {', '.join(names)}" if names else "it has no variable"


def _check_structure(content: bytes) -> None:
    """Raises ValueError for a file that expands beyond measure or nests deeply; one of version 4 can do neither."""
    if 0 in content[:4]:
        return
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
    if order is None:
        raise ValueError("its header is not MATLAB's")
    place, expanded = _HEADER, 0
    while place + 8 <= len(content):
        kind, count = struct.unpack_from(f"{order}II", content, place)
        element = content[place : place + 8 + count]
        if kind == _COMPRESSED:
            element = zlib.decompressobj().decompress(element[8:], _MAX_EXPANDED)
        expanded += len(element)
        check_size("its variables", expanded, len(content))
        _check_depth(element, order)
        place += 8 + count


def _check_depth(element: bytes, order: str) -> None:
    place, ends = 0, [len(element)]
    while place + 8 <= ends[0]:
        kind, count = struct.unpack_from(f"{order}II", element, place)
        place += 8
        if kind == _MATRIX:
            ends.append(place + count)
            if len(ends) > _MAX_DEPTH:
                raise ValueError(f"more than {_MAX_DEPTH} levels of cells")
        elif kind < 1 << 16:  # otherwise the data is in the second half of the tag
            place += count + -count % 8
        while len(ends) > 1 and place >= ends[-1]:
            ends.pop()


def _from_hdf5(content: bytes, name: str) -> np.ndarray:
    """A matrix of numbers, which MATLAB stores transposed."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("it is of version 7.3, which h5py reads: pip install h5py, or save it with -v7") from error
    with h5py.File(io.BytesIO(content), "r") as file:
        there = [key for key in file if not key.startswith("#")]
        if name not in there:
            raise LookupError(_has(there))
        link, found = file.get(name, getlink=True), file.get(name)
        if not isinstance(link, h5py.HardLink) or not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
            raise TypeError(f"of version 7.3, and its {name} is no matrix of numbers; save it with -v7")
        if found.is_virtual or found.external:
            raise ValueError(f"its {name} lies in another file")
        check_size(name, found.nbytes, len(content))
        if found.attrs.get("MATLAB_empty", 0):
            return np.zeros(tuple(found[...].astype(int).tolist()))
        return found[...].T
