"""Reads the members of an official archive, or of the folder that it was extracted to, without extracting anything.

The archives come from public servers, so sizes and checksums are compared with the published ones. Members that would
leave the archive's folder, links and devices are refused.
"""

import contextlib
import functools
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from tarfile import (
    ReadError,
    TarFile,
    TruncatedHeaderError,  # pyright: ignore[reportAttributeAccessIssue]
)
from typing import NamedTuple, Self

from deconvnet_jax.data.image_names import walk
from deconvnet_jax.errors import InputError, one_line


class Archive(NamedTuple):
    """Published archive of a data set.

    Attributes:
      file: file name, such as "benchmark.tgz".
      size: size of the whole file, in bytes.
      sha256: SHA-256 checksum of the whole file, 64 hexadecimal digits.
      root: folder inside the archive that holds the data, such as "VOCdevkit/VOC2012".
      url: address from which it can be downloaded.
      holds: folders below `root` by which the data is recognised when `root` was renamed. () disables this.
    """

    file: str
    size: int
    sha256: str
    root: str
    url: str
    holds: tuple[str, ...] = ()


class Member(io.BytesIO):
    """Content of one file as a binary stream. `str(member)` says where it came from, for error messages."""

    def __init__(self, content: bytes, where: str):
        super().__init__(content)
        self._where = where

    def __str__(self) -> str:
        return self._where

    __repr__ = __str__


def find_archive(manual_dir: Path, archive: Archive) -> Path | None:
    """Returns the path of an archive or of the folder that holds its data, or None if neither is found.

    Besides the archive itself, three places are tried: the folder that the archive was extracted to, every folder
    between that one and the data, and a folder that the last part of `archive.root` was moved to.

    Args:
      manual_dir: folder to look in.
      archive: archive to look for.

    Returns:
      The archive file if it is in `manual_dir`, otherwise the folder that corresponds to `archive.root`, otherwise
      None.
    """
    if (manual_dir / archive.file).is_file():
        return manual_dir / archive.file
    inside = PurePosixPath(archive.root).parts
    around = manual_dir.resolve().parts
    for depth in range(len(inside) + 1):
        path = manual_dir.joinpath(*inside[depth:])
        moved = archive.holds and path.resolve().name == inside[-1] and _holds(path, archive)
        if path.is_dir() and (not depth or around[-depth:] == inside[:depth] or moved):
            return path
    return None


def find_near(manual_dir: Path, archive: Archive) -> Path | None:
    """Returns a folder near `manual_dir` in which `find_archive` succeeds, as a hint for error messages.

    Args:
      manual_dir: folder around which to look: up to two levels above and two levels below.
      archive: archive to look for.

    Returns:
      The first such folder, or None.
    """
    below = [path for depth in ("*", "*/*") for path in sorted(manual_dir.glob(depth)) if path.is_dir()]
    around = [*manual_dir.resolve().parents[:2], *below]
    return next((path for path in around if find_archive(path, archive)), None)


def find_renamed(manual_dir: Path, archive: Archive) -> Path | None:
    """Returns `manual_dir` or a folder directly below it that has all folders of `archive.holds`, whatever its name.

    Args:
      manual_dir: folder to look in.
      archive: archive to look for.

    Returns:
      The first such folder by name, or None.
    """
    below = sorted(path for path in manual_dir.iterdir() if path.is_dir()) if manual_dir.is_dir() else []
    return next((path for path in (manual_dir, *below) if _holds(path, archive)), None)


def _holds(path: Path, archive: Archive) -> bool:
    return all((path / part).is_dir() for part in archive.holds)


def verify_archive(path: Path, archive: Archive) -> None:
    """Compares the size and the checksum of an archive with the published ones.

    Args:
      path: downloaded archive.
      archive: description of the published archive.

    Raises:
      InputError: if they differ.
    """
    size = path.stat().st_size
    if size != archive.size:
        raise InputError(
            f"{path} has {size:,} bytes, expected {archive.size:,}: the download is "
            f"{'incomplete' if size < archive.size else 'another file'}; download it again from {archive.url}"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        raise InputError(
            f"{path} has the SHA-256 checksum {digest}, expected {archive.sha256}: it is damaged or another file; "
            f"download it again from {archive.url}"
        )


class Members:
    """Random access to the files of an uncompressed tar archive or of a folder, by their paths below the data's root.

    Use it as a context manager, which closes the archive.
    """

    def __init__(self, path: Path, root: str):
        """Opens an archive or a folder and lists its files.

        Args:
          path: uncompressed tar archive, or the folder that corresponds to `root`.
          root: folder inside the archive that holds the data. Files outside it are left out. Ignored for a folder.

        Raises:
          InputError: if the archive is damaged or has an unsafe member.
        """
        self._path, self._open = path, contextlib.ExitStack()
        self._readers: dict[str, Callable[[], Member]]
        if path.is_dir():
            self._readers = {name: functools.partial(_read, found) for name, found in walk(path)}
            return
        with contextlib.ExitStack() as stack, _intact(path):
            tar = stack.enter_context(tarfile.open(path, "r:", tarinfo=_WholeHeader))
            self._readers = {
                name: functools.partial(_extract, tar, member, path, name)
                for name, member in _safe_members(tar, path, root)
            }
            self._open = stack.pop_all()

    def __enter__(self) -> "Members":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    def below(self, folder: str) -> list[str]:
        """Returns the paths of all files below `folder`, relative to it; an empty list if there is none."""
        return [name.removeprefix(f"{folder}/") for name in self._readers if name.startswith(f"{folder}/")]

    def read(self, name: str) -> Member:
        """Returns the content of the file at the path `name` below the root.

        Raises:
          InputError: if there is no such file, or if the archive ends within it.
        """
        if name not in self._readers:
            raise InputError(f"{self._path} has no {name}, expected the whole data set; get the data again")
        return self._readers[name]()


def stream_members(path: Path, root: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Member]]:
    """Reads the files of a compressed or uncompressed archive, or of a folder, in a single pass.

    Args:
      path: archive, or the folder that corresponds to `root`.
      root: folder inside the archive that holds the data. Ignored for a folder.
      wanted: function that takes a path below the root and returns whether that file is needed.

    Yields:
      The path below the root and the content of each wanted file, in the order of the archive.

    Raises:
      InputError: if the archive is damaged or has an unsafe member.
    """
    if path.is_dir():
        yield from ((name, _read(found)) for name, found in walk(path) if wanted(name))
        return
    with _intact(path), tarfile.open(path, "r|*", tarinfo=_WholeHeader) as tar:
        for name, member in _safe_members(tar, path, root):
            if wanted(name):
                yield name, _extract(tar, member, path, name)


class _WholeHeader(tarfile.TarInfo):
    """Header of a member that raises an error if it is cut.

    Without this class, tarfile treats a cut header as the regular end of the archive.
    """

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except TruncatedHeaderError as error:
            raise ReadError("it ends within the header of a member") from error


def _safe_members(tar: TarFile, path: Path, root: str) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yields the files below the root, and refuses members that could write outside their folder.

    Raises:
      InputError: if a path leaves the archive, or if something below the root is neither a file nor a folder.
    """
    for member in tar:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise InputError(
                f"{path} has the member {member.name!r}, which leads out of the archive's folder; do not trust this "
                "file, download the official one"
            )
        if not name.is_relative_to(root) or member.isdir():
            continue
        if not member.isfile():
            raise InputError(
                f"{path} has the member {member.name!r}, which is neither a file nor a folder; do not trust this "
                "file, download the official one"
            )
        yield name.relative_to(root).as_posix(), member


def _extract(tar: TarFile, member: tarfile.TarInfo, path: Path, name: str) -> Member:
    with _intact(path):
        content = tar.extractfile(member)
        return Member(content.read() if content else b"", f"{path}:{name}")


def _read(path: Path) -> Member:
    try:
        return Member(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); correct its permissions or get it again"
        ) from error


@contextlib.contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Turns every error that tarfile raises for a damaged archive into an InputError.

    tarfile raises TypeError for a cut gzip header.
    """
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error, TypeError) as error:
        reason = one_line(error, 100)
        raise InputError(f"{path} is damaged or is not a tar archive ({reason}); download it again") from error
