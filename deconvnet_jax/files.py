"""Paths that users give, and files and folders that appear whole or not at all, one writer at a time.

A path is a `pathlib.Path`, or the `buckets.Address` of an object or a folder in a bucket where that is supported.
"""

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from deconvnet_jax import buckets
from deconvnet_jax.buckets import Address, GrowingObject
from deconvnet_jax.errors import InputError, one_line

_NUMBERS = itertools.count()
_PATIENCE = 5  # seconds that a program waits for one that is about to end
_KEPT = 40  # characters of a name that its unfinished file keeps, so that long names stay short enough


def user_path(value: str | os.PathLike[str], name: str, in_bucket: bool = False) -> Path:
    """Returns the path that a flag, setting or argument gives.

    Args:
      value: the path; a leading ~ stands for the home folder.
      name: of the flag or setting, for messages, e.g. "--output".
      in_bucket: whether it may be gs://BUCKET/NAME; the result is a `buckets.Address` then.

    Raises:
      InputError: if it is empty, an address that is not supported or whose bucket cannot be reached, or names an
        unknown home folder.
    """
    text = os.fspath(value)
    if not text.strip():
        raise InputError(f"{name} is empty; name a file or folder")
    if "\0" in text:
        raise InputError(f"{name}={text!r} contains a NUL character; correct the name")
    if buckets.is_address(text):
        if in_bucket:
            return cast(Path, buckets.address(text, name))  # etils' paths have all that Path has
        raise InputError(
            f"{name}={text} is an address; a path on a local or mounted disk is needed here; gcloud storage cp -r "
            "copies from and to gs://"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{name}={text}: the home folder is unknown (is HOME set?); write the whole path") from error


def as_path(value: str | os.PathLike[str]) -> Path:
    """Returns a path that a function of this package was given, which may be an address as `user_path` returns it."""
    text = os.fspath(value)
    return cast(Path, buckets.address(text, "path")) if buckets.is_address(text) else Path(text)


def in_bucket(path: Path) -> bool:
    """Returns whether a path leads to a bucket."""
    return isinstance(path, Address)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file beside `path`; it replaces `path` when the block ends without an exception.

    The temporary file has the suffix of `path` and is on the disk before it is renamed, so that a killed process or a
    power failure leaves the old file or the new one. For an object in a bucket it is a file on the local disk, which
    is uploaded instead.

    Raises:
      InputError: if the file cannot be written.
    """
    if isinstance(path, Address):
        with not_written(path), buckets.whole_object(path) as local:
            yield local
        return
    temporary = _unfinished(path)
    try:
        with not_written(path):
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all.

    Raises:
      InputError: if the file cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_growing(path: Path, buffering: int = -1) -> BinaryIO | GrowingObject:
    """Opens a file to add to; what is written to one in a bucket appears there from time to time, and at the end."""
    return GrowingObject(path) if isinstance(path, Address) else path.open("ab", buffering=buffering)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder beside `path`; it becomes `path` when the block ends without an exception.

    Unfinished folders and files that killed processes left beside `path` are removed first.

    Args:
      path: must not exist, or be an empty folder.

    Raises:
      InputError: if the folder cannot be written.
    """
    with unfinished_folder(path) as temporary:
        yield temporary
        temporary.rename(path)
        _sync(path.parent)


@contextlib.contextmanager
def unfinished_folder(path: Path, within: Path | None = None) -> Iterator[Path]:
    """Yields a new folder for files on their way to `path`; it is removed when the block ends.

    Unfinished folders and files that killed processes left at its place are removed first.

    Args:
      path: where the files are to go.
      within: the folder that holds the new one; by default the one that holds `path`.

    Raises:
      InputError: if the folder cannot be written.
    """
    parent = within or path.parent
    with not_written(path):
        parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(parent)
        temporary = parent / _unfinished(path).name
        temporary.mkdir()
    try:
        with not_written(path):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def written_locally(path: Path) -> Iterator[Path]:
    """Yields a folder for libraries that write local files only: `path`, or one that is copied to a bucket at the end.

    Raises:
      InputError: if the files cannot be copied.
    """
    if not isinstance(path, Address):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        yield Path(folder)
        with not_written(path):
            buckets.upload_folder(Path(folder), path)


def local_copy(path: Path) -> Path:
    """Returns a local path itself, and of a file or folder in a bucket a copy on the local disk.

    Copies are kept in ~/.cache/deconvnet_jax (or XDG_CACHE_HOME), so that the next program finds them; one is made
    again when the objects have changed.

    Raises:
      InputError: if there is nothing at the address, it cannot be read, or the copy cannot be written.
    """
    if not isinstance(path, Address):
        return path
    try:
        mark = buckets.fingerprint(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); correct the address") from error
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deconvnet_jax"
    copy = cache / f"{path.name}-{mark}"
    if not copy.exists():
        print(f"copying {path} to {copy}", file=sys.stderr)
        try:
            with whole_folder(copy) as folder:
                buckets.download(path, folder / path.name)
        except InputError:
            if not copy.exists():  # otherwise another process has made it meanwhile
                raise
    return copy / path.name


def remove_unfinished(folder: Path) -> None:
    """Removes what processes of this host that are gone were writing into a folder."""
    pattern = re.compile(rf"\.unfinished-{re.escape(_host())}-(\d+)-\d+-")
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        match = pattern.match(path.name)
        if match and not process_lives(int(match[1])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Holds the lock of a folder that a program writes to, made if there is none; it ends with the process.

    On file systems without locks and in buckets a warning is printed instead.

    Args:
      folder: to be written to by one process at a time.
      name: of the folder for messages, e.g. "--workdir=runs/voc".

    Raises:
      InputError: if another process holds the lock and does not end within a few seconds.
    """
    if isinstance(folder, Address):
        _warn_unlocked(folder, "it lies in a bucket")
        yield
        return
    path, made = folder / ".lock", not folder.exists()
    with not_written(path):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _take_lock(path, name)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone
            path.unlink()
        os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):  # something was written to it
                folder.rmdir()


def _take_lock(path: Path, name: str) -> int:
    """Returns the descriptor that holds the lock."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise InputError(
                    f"{name} is in use by another process; wait until it has ended, or name another folder"
                ) from error
            time.sleep(0.1)
        except FileNotFoundError:
            pass  # its holder has ended and removed it
        except OSError as error:
            _warn_unlocked(path.parent, one_line(error))
            return descriptor
        os.close(descriptor)


def _warn_unlocked(folder: Path, reason: str) -> None:
    print(
        f"warning: {folder} cannot be locked ({reason}); do not start a second program that writes to it",
        file=sys.stderr,
    )


def process_lives(pid: int) -> bool:
    """Returns whether a process of this host runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextlib.contextmanager
def not_written(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into an InputError that names `path` and the remedy.

    Errors about files elsewhere, such as one that was to be copied to `path`, are left as they are.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and not _related(Path(error.filename), path.parent):
            raise
        remedy = "get the right to write there" if isinstance(path, Address) else "make room there"
        raise InputError(f"{path} could not be written ({one_line(error)}); {remedy} or name another folder") from error


def _related(path: Path, folder: Path) -> bool:
    """Returns whether a path is the folder, lies in it, or leads to it."""
    return path in (folder, *folder.parents) or folder in path.parents


def _unfinished(path: Path) -> Path:
    name = f".unfinished-{_host()}-{os.getpid()}-{next(_NUMBERS)}-{path.name[-_KEPT:]}"
    return path.with_name(name)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64]


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
