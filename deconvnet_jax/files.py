"""Checks paths that users give, writes files and folders whole or not at all, and locks folders.

A path is a `pathlib.Path`. Where buckets are supported it may also be a `buckets.Address`, which names an object or a
folder in Google Cloud Storage.
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
_PATIENCE = 5  # seconds to wait for the holder of a lock, which may be about to end
# Characters of a file name that the name of its temporary file repeats. File systems limit names to 255 bytes.
_KEPT = 40


def user_path(value: str | os.PathLike[str], name: str, in_bucket: bool = False) -> Path:
    """Returns the path that a user gave as a flag, setting or argument.

    The file or folder need not exist. For an address, the bucket must be reachable.

    Args:
      value: the path; a leading ~ stands for the home folder.
      name: the flag or setting that error messages name, e.g. "--output".
      in_bucket: accept gs://BUCKET/NAME too.

    Returns:
      The path, or a `buckets.Address` for gs://BUCKET/NAME.

    Raises:
      InputError: if the value is no path, is empty, contains a NUL character, names an unknown home folder, is an
        address that is not supported here, or lies in a bucket that cannot be reached.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(text := os.fspath(value), str):
        raise InputError(f"{name}={value!r} is no path; expected a text or a pathlib.Path")
    if not text.strip():
        raise InputError(f"{name} is empty; name a file or folder")
    if "\0" in text:
        raise InputError(f"{name}={text!r} contains a NUL character; correct the name")
    if buckets.is_address(text):
        if in_bucket:
            return cast(Path, buckets.address(text, name))  # An Address has all methods of Path that are used here.
        how = "download it first" if text.startswith("http") else "copy from or to gs:// with gcloud storage cp -r"
        raise InputError(f"{name}={text} is an address; expected a path on a local or mounted disk: {how}")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{name}={text}: the home folder is unknown; set HOME or give the absolute path") from error


def as_path(value: str | os.PathLike[str]) -> Path:
    """Returns a path or address as an object; for paths that `user_path` has already checked.

    Raises:
      InputError: for an address whose bucket cannot be reached.
    """
    text = os.fspath(value)
    return cast(Path, buckets.address(text, "path")) if buckets.is_address(text) else Path(text)


def no_file(path: Path, what: str = "file", remedy: str = "correct the name") -> str:
    """Returns the error message for a file that does not exist.

    Args:
      path: the file. For a relative path, the message names the folder in which it was looked for.
      what: what does not exist, e.g. "file or folder".
      remedy: the end of the message, which says what was expected and what to do.
    """
    return f"no {what} {path}{looked_in(path)}; {remedy}"


def looked_in(path: Path) -> str:
    """Returns " in FOLDER", the working folder to which a relative path refers; "" for an absolute path or address."""
    return "" if in_bucket(path) or path.is_absolute() else f" in {Path.cwd()}"


def in_bucket(path: Path) -> bool:
    """Returns whether a path is an address in a bucket."""
    return isinstance(path, Address)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces `path` when the block ends without an exception.

    A killed process or a power failure leaves either the old file or the new one, because the temporary file is on the
    disk before it is renamed. It lies in a hidden folder: programs that look for new files by a pattern, such as
    *.png, find finished files only.

    Args:
      path: the file to write; its folder must exist. An object in a bucket is uploaded when the block ends.

    Yields:
      The path of the temporary file, with the suffix of `path`: in a folder beside `path`, or on the local disk for a
      bucket.

    Raises:
      InputError: if the file cannot be written.
    """
    if isinstance(path, Address):
        with not_written(path), buckets.whole_object(path) as local:
            yield local
        return
    folder = _unfinished(path.with_name("file"))  # A pattern that fits `path` must not fit the folder either.
    try:
        with not_written(path):
            folder.mkdir()
            temporary = folder / f"x{path.suffix}"
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all.

    Args:
      path: the file, which is replaced if it exists; its folder must exist.
      text: the content.

    Raises:
      InputError: if the file cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_growing(path: Path, buffering: int = -1) -> BinaryIO | GrowingObject:
    """Opens a file for appending; it is made if it does not exist.

    Args:
      path: the file. One in a bucket is uploaded at most every half minute, and when it is closed.
      buffering: as for `open`; ignored for buckets.

    Returns:
      An object with `write`, `flush` and `close`.
    """
    return GrowingObject(path) if isinstance(path, Address) else path.open("ab", buffering=buffering)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder, which is renamed to `path` when the block ends without an exception.

    Unfinished folders and files that killed processes left beside `path` are removed first.

    Args:
      path: the folder to write. It must not exist, or be empty.

    Yields:
      The path of the new folder, beside `path`.

    Raises:
      InputError: if the folder cannot be written.
    """
    with unfinished_folder(path) as temporary:
        yield temporary
        temporary.rename(path)
        _sync(path.parent)


@contextlib.contextmanager
def unfinished_folder(path: Path, within: Path | None = None) -> Iterator[Path]:
    """Yields a new temporary folder, which is removed when the block ends.

    Unfinished folders and files that killed processes left in the same place are removed first.

    Args:
      path: the final place of the files; it gives the temporary folder its name and is named in errors.
      within: the folder in which the temporary one is made; None for the folder that holds `path`.

    Yields:
      The path of the temporary folder.

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
    """Yields a local folder for libraries that cannot write to buckets.

    Args:
      path: the folder to write to.

    Yields:
      `path` itself if it is local. For a bucket: a temporary folder, which is uploaded when the block ends.

    Raises:
      InputError: if the files cannot be uploaded.
    """
    if not isinstance(path, Address):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        yield Path(folder)
        with not_written(path):
            buckets.upload_folder(Path(folder), path)


def local_copy(path: Path) -> Path:
    """Returns a local path unchanged, and copies a file or folder from a bucket to the local disk.

    Copies are kept in $XDG_CACHE_HOME/deconvnet_jax (default: ~/.cache/deconvnet_jax), so that the next program finds
    them. Objects that have changed are copied again. Prints a line on stderr for each copy.

    Raises:
      InputError: if there is nothing at the address, it cannot be read, or the copy cannot be written.
    """
    if not isinstance(path, Address):
        return path
    try:
        mark = buckets.fingerprint(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); correct the address or get read access") from error
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deconvnet_jax"
    copy = cache / f"{path.name}-{mark}"
    if not copy.exists():
        print(f"copying {path} to {copy}", file=sys.stderr)
        try:
            with whole_folder(copy) as folder:
                buckets.download(path, folder / path.name)
        except InputError:
            if not copy.exists():  # If it exists, another process has made the same copy meanwhile.
                raise
    return copy / path.name


def remove_unfinished(folder: Path) -> None:
    """Removes unfinished files and folders from a folder, if the process of this host that wrote them has ended."""
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
    """Locks a folder for the duration of the block, so that only one process at a time writes to it.

    The folder is made if it does not exist, and removed again if it is still empty at the end. The system releases the
    lock when the process ends, however it ends. In buckets and on file systems without locks, the function prints a
    warning and does not lock.

    Args:
      folder: the folder to lock.
      name: how error messages name the folder, e.g. "--workdir=runs/voc".

    Yields:
      None; the folder is locked until the block ends.

    Raises:
      InputError: if another process still holds the lock after a few seconds, or the folder cannot be made.
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
        with contextlib.suppress(OSError):  # The folder may have been deleted.
            path.unlink()
        os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):  # rmdir refuses a folder with content, which must stay.
                folder.rmdir()


def _take_lock(path: Path, name: str) -> int:
    """Returns an open file descriptor that holds the lock; closing it releases the lock."""
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
            pass  # The holder has ended and removed the lock file between `open` and `stat`: try again.
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
    """Returns whether the process with this id runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextlib.contextmanager
def not_written(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into an InputError that names `path` and what to do.

    An OSError about a file in another folder, for example the source of a copy, is raised unchanged.

    Args:
      path: the file or folder that the block writes.

    Raises:
      InputError: if the block raises an OSError about `path`, its folder, or no named file.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str) and not _related(Path(error.filename), path.parent):
            raise
        remedy = "get write access" if isinstance(path, Address) else "free disk space or get write access"
        raise InputError(
            f"{path} could not be written ({one_line(error)}); {remedy}, or name another folder"
        ) from error


def _related(path: Path, folder: Path) -> bool:
    """Returns whether a path is the folder, lies in it, or contains it."""
    return path in (folder, *folder.parents) or folder in path.parents


def _unfinished(path: Path) -> Path:
    name = f".unfinished-{_host()}-{os.getpid()}-{next(_NUMBERS)}-{path.name[-_KEPT:]}"
    return path.with_name(name)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64]


def _sync(path: Path) -> None:
    """Waits until the content of a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
