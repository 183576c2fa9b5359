"""Files of a data folder, found by names that may differ from theirs in Unicode form, case or suffix."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from deconvnet_jax.errors import InputError

_SUFFIX = re.compile(r"\.[A-Za-z]{3,4}$")


def walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields every file below a folder: its path below it, such as "a/b.jpg", and its path.

    Links to files and folders are followed. Links that lead nowhere are left out, and a folder is not entered again
    from within itself.

    Raises:
      InputError: if a folder cannot be read.
    """
    yield from _walk(folder, "", ())


def _walk(folder: Path, below: str, around: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, Path]]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"folder {folder} cannot be read ({error.strerror}); correct its permissions") from error
    identity = (status.st_dev, status.st_ino)
    if identity in around:
        return
    for entry in entries:
        name = f"{below}{entry.name}"
        if _leads_to(entry.is_dir):
            yield from _walk(Path(entry.path), f"{name}/", (*around, identity))
        elif _leads_to(entry.is_file):
            yield name, Path(entry.path)


def _leads_to(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


class NamedFiles:
    """The files of one kind, such as photographs, by the names of the images.

    A file belongs to a name if its path is the name and one of the suffixes. If there is none, a file is taken that
    differs only in case or in the Unicode form of its letters (macOS takes accents apart), if there is just one.
    """

    def __init__(self, suffixes: Iterable[str], list_files: Callable[[], Iterable[str]], exists: Callable[[str], bool]):
        """
        Args:
          suffixes: of the files, those tried first at the beginning.
          list_files: returns the paths of all files, parts separated by "/"; called when it is needed.
          exists: whether there is a file of exactly that path.
        """
        self._suffixes = tuple(dict.fromkeys(suffixes))
        self._list_files, self._exists = list_files, exists
        self._found: dict[str, str | None] = {}

    @classmethod
    def below(cls, folder: Path, suffixes: Iterable[str]) -> "NamedFiles":
        """Returns the files below a folder."""
        return cls(suffixes, lambda: (name for name, _ in walk(folder)), lambda name: (folder / name).is_file())

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The paths of all files, of this kind or not."""
        files = tuple(self._list_files())
        self._exists = frozenset(files).__contains__  # faster than to ask the disk for each
        return files

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        keys: dict[str, list[str]] = {}
        for name in self.files:
            keys.setdefault(_key(name), []).append(name)
        return keys

    def find(self, name: str) -> str | None:
        """Returns the path of the file that belongs to a name; None if there is none, or if it could be several."""
        if name not in self._found:
            self._found[name] = self._looked_up(name)
        return self._found[name]

    def _looked_up(self, name: str) -> str | None:
        path = PurePosixPath(name)
        if not name or "\0" in name or path.is_absolute() or ".." in path.parts or str(path) != name:
            return None
        for suffix in self._suffixes:
            if self._exists(f"{name}{suffix}"):
                return f"{name}{suffix}"
        for suffix in self._suffixes:
            similar = self._by_key.get(_key(f"{name}{suffix}"), [])
            if similar:
                return similar[0] if len(similar) == 1 else None
        return None

    def name_of(self, text: str) -> str | None:
        """Returns the name that a text means: the name itself, or a file with its suffix; None if it means no file.

        Raises:
          InputError: if it means a file that another one hides: a.png where a.jpg is read.
        """
        stem = _SUFFIX.sub("", text)
        for name in dict.fromkeys((text, stem, _SUFFIX.sub("", stem))):
            found = self.find(name)
            if found and name != text and text != found and self._exists(text):
                raise InputError(f"'{text}' is named, but {found} is read for '{name}'; take one of the two away")
            if found:
                return name
        return None

    def name_of_path(self, path: str) -> str | None:
        """Returns the name that a path means, whatever folders it begins with; None if it means no file."""
        parts = PurePosixPath(path.replace("\\", "/")).parts
        tails = ("/".join(parts[i:]) for i in range(len(parts)))
        return next((name for tail in tails if (name := self.name_of(tail))), None)

    def similar(self, name: str) -> str | None:
        """Returns the path of a file that was probably meant: a_mask.png for "a", or one in another folder."""
        wanted = re.escape(_key(PurePosixPath(name).name))
        matches = [
            path for path in self.files if re.search(rf"(?<![^\W_]){wanted}(?![^\W_])", _key(path.split("/")[-1]))
        ]
        return min(matches, key=len, default=None)


def _key(name: str) -> str:
    """Returns a form in which names are equal that differ in case, Unicode form or encoding alone."""
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:  # bytes that are not UTF-8, from a disk or an archive of an older system
            name = single_bytes(name.encode(errors="surrogateescape"))
        name = unicodedata.normalize("NFC", name)
    return name.casefold()


def single_bytes(content: bytes) -> str:
    """Returns bytes as text of Western Windows or, where that has no such character, of Latin-1."""
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")
