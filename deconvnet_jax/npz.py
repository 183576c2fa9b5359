"""Arrays of .npz files, whose headers may claim any size."""

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from deconvnet_jax.errors import InputError

# What all arrays of a file may take in memory: bytes per byte of the file, and bytes that are always allowed.
# Deflate makes at most 1,032 out of 1; trained weights hardly shrink, arrays of one value shrink the most.
MAX_RATIO, ALWAYS_ALLOWED = 200, 2**26


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
                    arrays[info.filename.removesuffix(".npy")] = _read_npy(member, info)
            return arrays
    except FileNotFoundError as error:
        raise InputError(f"no file {path}; correct the name") from error
    except (
        OSError,
        ValueError,
        EOFError,
        LookupError,
        RuntimeError,  # zipfile's for passwords
        TypeError,  # NumPy's for damaged headers
        SyntaxError,
        MemoryError,
        OverflowError,
        zipfile.BadZipFile,
        zlib.error,
        tokenize.TokenError,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} is not a complete .npz file ({reason}); fetch or write it again") from error


def check_size(name: str, claimed: int, file_size: int) -> None:
    """Raises ValueError if a file announces far more than it can hold.

    Args:
      name: of the array that is read next.
      claimed: bytes that it and all arrays before it take in memory.
      file_size: bytes of the file.
    """
    if claimed > max(MAX_RATIO * file_size, ALWAYS_ALLOWED):
        raise ValueError(f"{name} announces {claimed:,} bytes, but the file has {file_size:,}")


def _read_npy(member: IO[bytes], info: zipfile.ZipInfo) -> np.ndarray:
    """Reads one array after its header was compared with the member's size."""
    version = np.lib.format.read_magic(member)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"{info.filename} is of version {version[0]}.{version[1]}")
    shape, fortran, dtype = read_header(member)
    if dtype.hasobject:
        raise ValueError(f"{info.filename} holds Python objects, which are not loaded")
    count = int(np.prod(shape, dtype=object))
    if any(side < 0 for side in shape) or count * dtype.itemsize != info.file_size - member.tell():
        raise ValueError(f"{info.filename} has the shape {shape}, which does not fit its {info.file_size:,} bytes")
    content, done = memoryview(bytearray(count * dtype.itemsize)), 0
    while chunk := member.read(2**20):  # to the end, where zipfile compares the checksum
        content[done : done + len(chunk)] = chunk
        done += len(chunk)
    if done < len(content):
        raise ValueError(f"{info.filename} is truncated")
    flat = np.frombuffer(content, dtype) if count else np.empty(0, dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
