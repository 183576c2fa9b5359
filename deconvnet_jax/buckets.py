"""Reads and writes objects in Google Cloud Storage, gs://BUCKET/NAME, without TensorFlow.

A bucket differs from a disk in three ways. An object appears complete or not at all. It cannot be appended to. Folders
do not exist; a folder is only a common prefix of names.
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

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # matches gs://bucket and gs:/bucket, but not C:/folder
_IN_BUCKET = re.compile(r"gs:/+([^/]+)((?:/.*)?)", re.DOTALL)
# The libraries that read buckets take these characters for patterns, and these names for relative paths.
_MISREAD = re.compile(r"[\[\]*?\\#]|(^|/)\.\.?(/|$)")
_LIBRARIES = ("gcsfs", "google", "aiohttp", "requests")  # These raise errors that need not be OSErrors.
_PERIOD = 30  # least number of seconds between two uploads of a growing object


class Address(PosixGPath):
    """Path of an object or a folder in a bucket, with the methods of `pathlib.Path`."""

    def absolute(self) -> "Address":
        """Returns the address unchanged: it is always absolute."""
        return self

    def resolve(self, strict: bool = False) -> "Address":
        """Returns the address unchanged: buckets have no links."""
        return self

    def iterdir(self) -> Iterator["Address"]:
        """Yields the objects and folders in the folder; none if no object has this prefix."""
        with contextlib.suppress(FileNotFoundError):
            yield from super().iterdir()

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder exists as soon as an object in it does.

        Args:
          mode: ignored, like `parents` and `exist_ok`.
          parents: ignored.
          exist_ok: ignored.
        """

    def rename(self, target: "Address") -> "Address":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Moves the object, or every object below the address, one after the other.

        This is not atomic: a killed process leaves some objects moved and others not. Objects that exist at the
        target are replaced.

        Returns:
          The target.
        """
        with as_os_errors():
            for name in _below(self):
                _store().mv_file(str(self / name), str(target / name))
        return target


def is_address(text: str) -> bool:
    """Returns whether a text is the address of a remote store of any kind, such as gs:// or s3://."""
    return bool(_ADDRESS.match(text))


def address(text: str, name: str) -> Address:
    """Returns the path of an address, after a request that shows that its bucket can be reached.

    Each bucket is asked once per process. The object need not exist.

    Args:
      text: gs://BUCKET/NAME; gs:/BUCKET/NAME, as `pathlib.Path` writes it, means the same.
      name: the flag or setting that error messages name.

    Raises:
      InputError: for another kind of address, a bucket that cannot be reached, a name that the libraries cannot read,
        or if gcsfs is not installed.
    """
    match = _IN_BUCKET.fullmatch(text)
    if not match:
        raise InputError(
            f"{name}={text} is an address of an unsupported kind; expected gs://BUCKET/NAME or a path on a local or "
            "mounted disk"
        )
    if _MISREAD.search(match[2]):
        raise InputError(
            f"{name}={text}: a name in a bucket must not contain []*?#\\ or a part that is . or ..; rename the object"
        )
    missing = [package for package in ("fsspec", "gcsfs") if find_spec(package) is None]
    if missing:
        raise InputError(f"{name}={text}: gs:// needs the package {' and '.join(missing)}; pip install gcsfs")
    try:
        with as_os_errors():
            _reach(match[1])
    except FileNotFoundError as error:
        raise InputError(f"{name}={text}: there is no bucket {match[1]}; correct the name or create it") from error
    except OSError as error:
        raise InputError(
            f"{name}={text}: the bucket {match[1]} cannot be reached ({error.strerror}); log in with gcloud auth "
            "application-default login, or get read access"
        ) from error
    return Address(f"gs://{match[1]}{match[2]}")


@functools.cache
def _reach(bucket: str) -> None:
    """Lists one object of a bucket, and raises gcsfs's error if that is impossible."""
    _store().call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)


@functools.cache
def _store() -> Any:
    """Returns gcsfs's file system, the same object that etils.epath uses."""
    os.environ.setdefault("EPATH_USE_TF", "false")  # Otherwise etils uses TensorFlow where it is installed.
    for name in ("gcsfs", "google.auth"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # Their errors are raised as exceptions anyway.
    import fsspec
    import fsspec.config

    # TensorStore and other hosts write objects, which a cached listing would miss.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return fsspec.filesystem("gcs", finalize_on_close=True)


def failure(error: BaseException) -> str | None:
    """Returns the message of an error of the libraries that read buckets, as one line; None for any other error."""
    if type(error).__module__.split(".")[0] not in _LIBRARIES:
        return None
    return one_line(error)


@contextlib.contextmanager
def as_os_errors() -> Iterator[None]:
    """Turns errors of the libraries that read buckets into OSErrors whose `strerror` is the reason."""
    try:
        yield
    except FileNotFoundError as error:
        if error.strerror is None:  # gcsfs's message is the URL of its request, which helps no user.
            raise FileNotFoundError(errno.ENOENT, "no such bucket or object") from error
        raise
    except Exception as error:
        reason = failure(error)
        if reason is None and isinstance(error, OSError) and error.strerror is None:
            reason = one_line(error)  # gcsfs raises OSError("Forbidden ..."), which has no strerror.
        if reason is None:
            raise
        raise OSError(errno.EIO, reason) from error


def check_writable(folder: Address) -> None:
    """Raises OSError unless objects below an address can be written and removed."""
    probe = folder / f".unfinished-{uuid.uuid4().hex}"
    with as_os_errors():
        _store().pipe_file(str(probe), b"")
        _store().rm_file(str(probe))


@contextlib.contextmanager
def whole_object(path: Address) -> Iterator[Path]:
    """Yields the path of a temporary local file, which is uploaded when the block ends without an exception.

    Args:
      path: the object to write, which is replaced if it exists.

    Raises:
      OSError: if the object cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        temporary = Path(folder, path.name)
        yield temporary
        with as_os_errors():
            _store().put_file(str(temporary), str(path))


class GrowingObject:
    """Writable file whose content is kept in memory and uploaded as a whole, at most every half minute.

    Buckets cannot append to an object, so every upload writes the whole content.
    """

    def __init__(self, path: Address):
        """Opens an object for appending.

        Args:
          path: the object; its content is read first if it exists.

        Raises:
          OSError: if the object exists and cannot be read.
        """
        self._path, self._new, self._written = path, False, time.monotonic()
        with as_os_errors():
            self._data = bytearray(path.read_bytes() if path.exists() else b"")

    def __len__(self) -> int:
        return len(self._data)

    def write(self, data: bytes) -> None:
        """Appends data, and uploads the object if the last upload was more than half a minute ago."""
        self._data += data
        self._new = True
        if time.monotonic() > self._written + _PERIOD:
            self.upload()

    def flush(self) -> None:
        """Does nothing, because an upload is expensive: `write` and `close` upload."""

    def upload(self) -> None:
        """Uploads the whole content if something was written since the last upload."""
        if self._new:
            with as_os_errors():
                _store().pipe_file(str(self._path), bytes(self._data))
            self._new, self._written = False, time.monotonic()

    def close(self) -> None:
        """Uploads what has not been uploaded yet."""
        self.upload()


def upload_folder(folder: Path, path: Address) -> None:
    """Uploads all files in a local folder and its subfolders.

    Args:
      folder: the local folder.
      path: the folder in a bucket in which the files get the same relative names.

    Raises:
      OSError: if a file cannot be uploaded.
    """
    with as_os_errors():
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            _store().put_file(str(file), str(path / file.relative_to(folder).as_posix()))


def download(path: Address, target: Path) -> None:
    """Downloads an object, or all objects below an address.

    Args:
      path: the object or the folder.
      target: the local file or folder to write; it must not exist. Its parent folders are made.

    Raises:
      OSError: if an object cannot be read or a file cannot be written.
    """
    with as_os_errors():
        for name in _below(path):
            file = target / name if name else target
            file.parent.mkdir(parents=True, exist_ok=True)
            _store().get_file(str(path / name), str(file))


def fingerprint(path: Address) -> str:
    """Returns a digest of the names, sizes and checksums of all objects at and below an address.

    The digest changes whenever one of the objects changes. It comes from a listing: no object is read.

    Raises:
      OSError: if there is no such object, or the objects cannot be listed.
    """
    with as_os_errors():
        found = sorted(_below(path).items())
    if not found:
        raise FileNotFoundError(errno.ENOENT, "there is no such object")
    described = [[name, each["size"], each.get("md5Hash") or each.get("crc32c")] for name, each in found]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _below(path: Address) -> dict[str, dict[str, Any]]:
    """Returns gcsfs's details of all objects at and below an address, by relative name; "" is the address itself."""
    start = str(path).removeprefix("gs://")
    found = _store().find(str(path), detail=True)
    return {name.removeprefix(start).lstrip("/"): each for name, each in found.items() if not name.endswith("/")}
