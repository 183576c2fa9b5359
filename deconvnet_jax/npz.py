"""Reads and writes .npz files of arrays. A damaged or hostile header cannot make the reader exhaust the memory."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import no_file, whole_file

# The arrays of a file may take MAX_RATIO bytes of memory per byte of the file, or ALWAYS_ALLOWED bytes if that is more.
# Deflate expands 1 byte to at most 1,032. Trained weights hardly compress; arrays of one value compress the most.
MAX_RATIO, ALWAYS_ALLOWED = 200, 2**26


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed .npz file, whole or not at all.

    Args:
      path: the file, which is replaced if it exists.
      arrays: {name: array}, arrays of any shape and numeric dtype.

    Raises:
      InputError: if the file cannot be written.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]  takes `arrays` for other arguments


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz file.

    Checksums are verified, pickled objects are refused, and the sizes in the headers are checked before memory is
    allocated.

    Args:
      path: a file that `numpy.savez` or `numpy.savez_compressed` wrote.

    Returns:
      {name: array}, in the order of the file.

    Raises:
      InputError: if the file is missing, damaged or no .npz file, holds Python objects, or claims arrays that are too
        large for its size.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            size, claimed, arrays = path.stat().st_size, 0, {}
            for info in archive.infolist():
                claimed += info.file_size
                check_size(info.filename, claimed, size)
                with archive.open(info) as member:
                    arrays[info.filename.removesuffix(".npy")] = np.lib.format.read_array(member)
                    if member.read(1):  # zipfile compares the checksum only when the end is read.
                        raise ValueError(f"{info.filename} has more bytes than its shape needs")
            return arrays
    except FileNotFoundError as error:
        raise InputError(no_file(path)) from error
    except Exception as error:  # zipfile, tokenize and NumPy raise a different type for each kind of damage.
        raise InputError(
            f"{path} is not a complete .npz file ({one_line(error)}); download it or write it again"
        ) from error


def check_size(name: str, claimed: int, file_size: int) -> None:
    """Raises ValueError if a file claims far more data than it can hold.

    Args:
      name: the array that is read next.
      claimed: bytes that this array and all arrays before it take in memory.
      file_size: bytes of the file.
    """
    if claimed > max(MAX_RATIO * file_size, ALWAYS_ALLOWED):
        raise ValueError(f"{name} claims {claimed:,} bytes, but the file has {file_size:,}")
