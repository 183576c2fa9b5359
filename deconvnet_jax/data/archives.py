"""Members of an official archive, or of the folder that it was extracted to. Nothing is ever extracted to disk."""

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
    """An archive as its makers published it.

    Attributes:
      file: its name.
      size: bytes.
      sha256: of the whole file.
      root: the folder inside it that holds the data.
      url: where it was published.
      holds: folders that the data has, by which it is known in a folder of another name than `root`.
    """

    file: str
    size: int
    sha256: str
    root: str
    url: str
    holds: tuple[str, ...] = ()


class Member(io.BytesIO):
    """The bytes of a member; as text, where they came from."""

    def __init__(self, content: bytes, where: str):
        super().__init__(content)
        self._where = where

    def __str__(self) -> str:
        return self._where

    __repr__ = __str__


def find_archive(manual_dir: Path, archive: Archive) -> Path | None:
    """The archive in a folder, or else the folder that holds its data; None if there is neither.

    The folder may be the one that the archive was extracted to, any between that and the data, or one that the last
    folder of `root` was moved to.
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
    """Returns the folder up to two above or below in which `find_archive` succeeds, for messages; None without one."""
    below = [path for depth in ("*", "*/*") for path in sorted(manual_dir.glob(depth)) if path.is_dir()]
    around = [*manual_dir.resolve().parents[:2], *below]
    return next((path for path in around if find_archive(path, archive)), None)


def find_renamed(manual_dir: Path, archive: Archive) -> Path | None:
    """Returns the folder, this one or one in it, that has the data's folders under any name; None without one."""
    below = sorted(path for path in manual_dir.iterdir() if path.is_dir()) if manual_dir.is_dir() else []
    return next((path for path in (manual_dir, *below) if _holds(path, archive)), None)


def _holds(path: Path, archive: Archive) -> bool:
    return all((path / part).is_dir() for part in archive.holds)


def verify_archive(path: Path, archive: Archive) -> None:
    """Compares size and checksum with the published ones.

    Raises:
      InputError: if they differ.
    """
    size = path.stat().st_size
    if size != archive.size:
        raise InputError(
            f"{path} has {size:,} bytes, expected {archive.size:,}: the download is "
            f"{'incomplete' if size < archive.size else 'another file'}; get it again from {archive.url}"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != archive.sha256:
        raise InputError(
            f"{path} has the sha256 {digest}, expected {archive.sha256}: it is damaged or another file; get it again "
            f"from {archive.url}"
        )


class Members:
    """Random access to the files of an uncompressed archive or a folder, by their path below the data's root."""

    def __init__(self, path: Path, root: str):
        """
        Args:
          path: the archive, or the folder that is `root`.
          root: folder inside the archive.

        Raises:
          InputError: if the archive is damaged, or has a member that is not safe.
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
        """Returns the paths of all files below a folder, as counted from it."""
        return [name.removeprefix(f"{folder}/") for name in self._readers if name.startswith(f"{folder}/")]

    def read(self, name: str) -> Member:
        """Returns the file of that name.

        Raises:
          InputError: if there is none, or the archive ends within it.
        """
        if name not in self._readers:
            raise InputError(f"{self._path} has no {name}; is it the whole data set?")
        return self._readers[name]()


def stream_members(path: Path, root: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Member]]:
    """Passes once over the files of a (compressed) archive or a folder.

    Args:
      path: the archive, or the folder that is `root`.
      root: folder inside the archive.
      wanted: whether a file is needed, by its path below the root.

    Yields:
      (path below the root, content).

    Raises:
      InputError: if the archive is damaged, or has a member that is not safe.
    """
    if path.is_dir():
        yield from ((name, _read(found)) for name, found in walk(path) if wanted(name))
        return
    with _intact(path), tarfile.open(path, "r|*", tarinfo=_WholeHeader) as tar:
        for name, member in _safe_members(tar, path, root):
            if wanted(name):
                yield name, _extract(tar, member, path, name)


class _WholeHeader(tarfile.TarInfo):
    """Without it, an archive that is cut within the header of a member just ends with the member before."""

    @classmethod
    def fromtarfile(cls, tarfile: TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except TruncatedHeaderError as error:
            raise ReadError("it ends within a header") from error


def _safe_members(tar: TarFile, path: Path, root: str) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yields the files below the root; refuses paths that leave the archive, and links and devices below the root."""
    for member in tar:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{path} has a member {member.name!r} that leaves its folder; do not trust this file")
        if not name.is_relative_to(root) or member.isdir():
            continue
        if not member.isfile():
            raise InputError(f"{path} has a member {member.name!r} that is no file; do not trust this file")
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
            f"{path} cannot be read ({error.strerror}); correct its permissions, or get it again"
        ) from error


@contextlib.contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Turns what tarfile raises for a damaged archive into an InputError; TypeError: a cut gzip header."""
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error, TypeError) as error:
        reason = one_line(error, 100)
        raise InputError(f"{path} is damaged or no tar archive ({reason}); get it again") from error
