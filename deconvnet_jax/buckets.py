"""Paths in Google Cloud Storage, gs://BUCKET/NAME, read and written without TensorFlow.

A bucket holds whole objects: an object appears complete or not at all, none can be added to, and there are no folders
but the common beginnings of names.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from etils.epath.gpath import PosixGPath

from deconvnet_jax.errors import InputError, one_line

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # gs://bucket, also as gs:/bucket; not C:/folder
_IN_BUCKET = re.compile(r"gs:/+([^/]+)((?:/.*)?)", re.DOTALL)
_MISREAD = re.compile(r"[\[\]*?\\#]|(^|/)\.\.?(/|$)")  # patterns and relative names for the libraries that read buckets
_LIBRARIES = ("gcsfs", "google", "aiohttp", "requests")  # whose errors need not be OSErrors
_PERIOD = 30  # seconds between two uploads of an object that grows


class Address(PosixGPath):
    """The path of an object in a bucket, or of a folder of them; has the methods of `pathlib.Path`."""

    def absolute(self) -> "Address":
        """Returns the address."""
        return self

    def resolve(self, strict: bool = False) -> "Address":
        """Returns the address."""
        return self

    def iterdir(self) -> Iterator["Address"]:
        """Yields what lies in the folder; nothing if there is none, for a folder exists when an object in it does."""
        with contextlib.suppress(FileNotFoundError):
            yield from super().iterdir()

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing; see `iterdir`."""

    def rename(self, target: "Address") -> "Address":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves the object, or all below the address, one after the other; what is at the target is replaced."""
        with as_os_errors():
            for name in _below(self):
                _store().mv_file(str(self / name), str(target / name))
        return target


def is_address(text: str) -> bool:
    """Returns whether a text is the address of a remote store, of whatever kind."""
    return bool(_ADDRESS.match(text))


def address(text: str, name: str) -> Address:
    """Returns the path at an address; asks once for each bucket whether it can be reached.

    Args:
      text: gs://BUCKET/NAME; gs:/BUCKET/NAME, as `pathlib.Path` writes it, means the same.
      name: of the flag or setting, for messages.

    Raises:
      InputError: for another kind of address, a bucket that cannot be reached, or if gcsfs is not installed.
    """
    match = _IN_BUCKET.fullmatch(text)
    if not match:
        raise InputError(
            f"{name}={text} is an address; of these only gs://BUCKET/... is supported: give such a one, or a path on a "
            "local or mounted disk"
        )
    if _MISREAD.search(match[2]):
        raise InputError(f"{name}={text}: the names in a bucket may have none of []*?#\\ and no . or .. alone; rename")
    missing = [package for package in ("fsspec", "gcsfs") if find_spec(package) is None]
    if missing:
        raise InputError(f"{name}={text}: gs:// needs the package {' and '.join(missing)}; pip install gcsfs")
    try:
        with as_os_errors():
            _reach(match[1])
    except FileNotFoundError as error:
        raise InputError(f"{name}={text}: there is no bucket {match[1]}; correct the name, or make it") from error
    except OSError as error:
        raise InputError(
            f"{name}={text}: the bucket {match[1]} cannot be reached ({error.strerror}); log in with gcloud auth "
            "application-default login, and get the right to read it"
        ) from error
    return Address(f"gs://{match[1]}{match[2]}")


@functools.cache
def _reach(bucket: str) -> None:
    """Lists one object of a bucket. Raises whatever gcsfs does if that is impossible."""
    _store().call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)


@functools.cache
def _store() -> Any:
    """Returns the file system of gcsfs that etils.epath uses, too."""
    os.environ.setdefault("EPATH_USE_TF", "false")  # etils takes TensorFlow where that is installed
    for name in ("gcsfs", "google.auth"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # their errors reach us as exceptions
    import fsspec
    import fsspec.config

    # TensorStore and other hosts write objects, which a kept listing would not have.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return fsspec.filesystem("gcs", finalize_on_close=True)


def failure(error: BaseException) -> str | None:
    """Returns what an error of the libraries that read buckets says, in one line; None for other errors."""
    if type(error).__module__.split(".")[0] not in _LIBRARIES:
        return None
    return one_line(error)


@contextlib.contextmanager
def as_os_errors() -> Iterator[None]:
    """Turns errors of the libraries that read buckets into OSErrors that say why."""
    try:
        yield
    except FileNotFoundError as error:
        if error.strerror is None:  # gcsfs says its request's address
            raise FileNotFoundError(errno.ENOENT, "no such bucket or object") from error
        raise
    except Exception as error:
        reason = failure(error)
        if reason is None and isinstance(error, OSError) and error.strerror is None:  # gcsfs: OSError("Forbidden ...")
            reason = one_line(error)
        if reason is None:
            raise
        raise OSError(errno.EIO, reason) from error


def check_writable(folder: Address) -> None:
    """Raises OSError unless objects can be written below an address, and be removed."""
    probe = folder / f".unfinished-{uuid.uuid4().hex}"
    with as_os_errors():
        _store().pipe_file(str(probe), b"")
        _store().rm_file(str(probe))


@contextlib.contextmanager
def whole_object(path: Address) -> Iterator[Path]:
    """Yields the path of a local file, which becomes the object when the block ends without an exception."""
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        temporary = Path(folder, path.name)
        yield temporary
        with as_os_errors():
            _store().put_file(str(temporary), str(path))


class GrowingObject:
    """A file that is added to in memory, and written to a bucket as a whole, at most every half minute."""

    def __init__(self, path: Address):
        """`path`: of an object, read if there is one."""
        self._path, self._new, self._written = path, False, time.monotonic()
        with as_os_errors():
            self._data = bytearray(path.read_bytes() if path.exists() else b"")

    def __len__(self) -> int:
        return len(self._data)

    def write(self, data: bytes) -> None:
        """Adds data; uploads the object if the last upload is half a minute ago."""
        self._data += data
        self._new = True
        if time.monotonic() > self._written + _PERIOD:
            self.upload()

    def flush(self) -> None:
        """Does nothing, for an upload is no cheap matter: `write` and `close` do it when it is due."""

    def upload(self) -> None:
        """Writes the object unless nothing is new."""
        if self._new:
            with as_os_errors():
                _store().pipe_file(str(self._path), bytes(self._data))
            self._new, self._written = False, time.monotonic()

    def close(self) -> None:
        """As `upload`."""
        self.upload()


def upload_folder(folder: Path, path: Address) -> None:
    """Writes the files in a local folder and those below it."""
    with as_os_errors():
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            _store().put_file(str(file), str(path / file.relative_to(folder).as_posix()))


def download(path: Address, target: Path) -> None:
    """Writes an object to a local file, or all objects below an address into a local folder that does not exist."""
    with as_os_errors():
        for name in _below(path):
            file = target / name if name else target
            file.parent.mkdir(parents=True, exist_ok=True)
            _store().get_file(str(path / name), str(file))


def fingerprint(path: Address) -> str:
    """Returns a digest that changes with the objects at and below an address; reads none of them.

    Raises:
      OSError: if there is none, or they cannot be listed.
    """
    with as_os_errors():
        found = sorted(_below(path).items())
    if not found:
        raise FileNotFoundError(errno.ENOENT, "there is no such object")
    described = [[name, each["size"], each.get("md5Hash") or each.get("crc32c")] for name, each in found]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _below(path: Address) -> dict[str, dict[str, Any]]:
    """Returns what is known of the objects at ("") and below an address by their names relative to it."""
    start = str(path).removeprefix("gs://")
    found = _store().find(str(path), detail=True)
    return {name.removeprefix(start).lstrip("/"): each for name, each in found.items() if not name.endswith("/")}
