"""Files of arrays, .npz: read although their headers may claim any size, and written whole."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import whole_file

# What all arrays of a file may take in memory: bytes per byte of the file, and bytes that are always allowed.
# Deflate makes at most 1,032 out of 1; trained weights hardly shrink, arrays of one value shrink the most.
MAX_RATIO, ALWAYS_ALLOWED = 200, 2**26


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed .npz file, whole or not at all.

    Raises:
      InputError: if the file cannot be written.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]  an array may have any name


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of an .npz file; memory is taken only for what the file holds.

    Args:
      path: written by `numpy.savez` or `numpy.savez_compressed`.

    Returns:
      {name: array}.

    Raises:
      InputError: if the file is missing, no .npz file, damaged, or has objects or arrays that are too large for it.
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
                    if member.read(1):  # to the end, where zipfile compares the checksum
                        raise ValueError(f"{info.filename} has more bytes than its shape needs")
            return arrays
    except FileNotFoundError as error:
        raise InputError(f"no file {path}; correct the name") from error
    except Exception as error:  # of zipfile, tokenize and NumPy, which have one for each kind of damage
        raise InputError(f"{path} is not a complete .npz file ({one_line(error)}); fetch or write it again") from error


def check_size(name: str, claimed: int, file_size: int) -> None:
    """Raises ValueError if a file announces far more than it can hold.

    Args:
      name: of the array that is read next.
      claimed: bytes that it and all arrays before it take in memory.
      file_size: bytes of the file.
    """
    if claimed > max(MAX_RATIO * file_size, ALWAYS_ALLOWED):
        raise ValueError(f"{name} announces {claimed:,} bytes, but the file has {file_size:,}")
