"""Names of images: the lists of a split that people write, and the files that belong to each name.

Names and files may differ in Unicode form, case or suffix.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deconvnet_jax.errors import InputError, one_line

_SUFFIX = re.compile(r"\.[A-Za-z]{3,4}$")
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_BLANK = re.compile(r"[\s,;]+")
_FLAG = re.compile(r"[-+]?[01]")
_QUOTES = "\"'"


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


class Listed(NamedTuple):
    """The images of a split.

    Attributes:
      names: in the order of the file.
      masks: for lists with two files per line, the second one of each image.
      encoding: of the file, "UTF-8" unless it is another one.
    """

    names: list[str]
    masks: dict[str, str]
    encoding: str


def read_text(path: Path) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 or UTF-32 with or without its mark.

    Raises:
      InputError: if the file cannot be read or is in another encoding.
    """
    try:
        return _decoded(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected a text file") from error
    except UnicodeError as error:
        reason = one_line(error, 120)
        raise InputError(f"{path} cannot be read as UTF-8 text ({reason}); save it as such") from error


def lines_of(text: str) -> list[str]:
    """Returns the lines of a text; unlike `str.splitlines`, only ends of lines separate them."""
    return re.split(r"\r\n|\r|\n", text)


def read_list(path: Path, photographs: NamedFiles) -> Listed:
    """Reads the file that lists the images of a split.

    Each line names one image: the name, the file with its suffix, or a path to it. A second file on the line is its
    mask. Empty lines and lines that begin with # are skipped.

    Args:
      path: of the file, in UTF-8 or UTF-16; in another encoding if the names then fit the files.
      photographs: that can be named.

    Raises:
      InputError: if the file cannot be read or is empty, a line has another form or leads out of the folder, or an
        image is named twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"split file {path} cannot be read ({error.strerror}); correct its link or permissions"
        ) from error
    return parse_list(content, path, photographs)


def parse_list(content: bytes, path: object, photographs: NamedFiles) -> Listed:
    """Like `read_list`, from the file's bytes; `path` is for messages."""
    encoding = "UTF-8"
    try:
        text = _decoded(content)
    except UnicodeError:
        text, encoding = single_bytes(content), "no UTF-8"
    names: list[str] = []
    masks: dict[str, str] = {}
    for number, line in enumerate(lines_of(text), 1):
        try:
            found = _entry(line.strip("\ufeff"), photographs)
        except InputError as error:
            raise InputError(f"split file {path}, line {number}: {error}") from error
        if found:
            names.append(found[0])
            masks.update([found] if found[1] else [])
    _check_names(names, path, photographs)
    return Listed(names, masks, encoding)


def _entry(line: str, photographs: NamedFiles) -> tuple[str, str] | None:
    """Returns the name of a line and the path of the mask, "" without one; None if the line is empty."""
    text = line.strip()
    if not text:
        return None
    for whole in dict.fromkeys((line, text, text.strip(_QUOTES))):  # names may have blanks at their ends
        if name := photographs.name_of(whole):
            return name, ""
    if text.startswith("#"):
        return None
    ends = [
        (text[: blank.start()].strip(_QUOTES), text[blank.end() :].strip(_QUOTES)) for blank in _BLANK.finditer(text)
    ]
    files = [(head, rest) for head, rest in ends if _SUFFIX.search(head)]
    others = [(head, rest) for head, rest in reversed(ends) if _FLAG.fullmatch(rest) or rest[:1] == "#" or "/" in rest]
    for head, rest in (*files, *others):  # names may have blanks, and what follows is seldom a name
        if name := photographs.name_of_path(head):
            return name, _second_file(text, name, rest)
    if name := photographs.name_of_path(text.strip(_QUOTES)):
        return name, ""
    _, folder, file = (files[0][0] if files else text).rpartition("JPEGImages/")
    return (_SUFFIX.sub("", file) if folder else text), ""  # a photograph that is not there


def _second_file(text: str, name: str, rest: str) -> str:
    """Returns the mask that a line names behind its image, "" if there is none.

    Raises:
      InputError: if something else follows.
    """
    if not rest or rest.startswith("#"):
        return ""
    if _FLAG.fullmatch(rest):
        raise InputError(
            f"'{text}' has the mark of a class behind the name (-1, 0 or 1), as the lists in ImageSets/Main; expected "
            "one image name per line: keep the names of the images that shall be in the split"
        )
    if not _SUFFIX.search(rest) and "/" not in rest:
        raise InputError(f"'{text[:80]}': expected one image name per line; take away what follows '{name}'")
    return rest


def _check_names(names: list[str], path: object, photographs: NamedFiles) -> None:
    """Raises InputError if there is none, one leads out of the folder, or two mean the same image."""
    for name in names:  # results are written under these names
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(
                f"split file {path} names '{name}', which leads out of the folder; write one image name per line, "
                "without folder and suffix"
            )
    if not names:
        raise InputError(f"split file {path} is empty; expected one image name per line, each once")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not twice:
        first: dict[str, str] = {}
        twice = [name for name in names if first.setdefault(photographs.find(name) or f"/{name}", name) != name]
    if twice:
        raise InputError(
            f"split file {path} names '{twice[0]}' more than once; expected one image name per line, each once"
        )


def _decoded(content: bytes) -> str:
    """Returns bytes as text.

    Raises:
      UnicodeError: if they are neither UTF-8 nor, with their mark or recognised by zeros, UTF-16 or UTF-32.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    if b"\0" not in content:
        return content.decode("utf-8")
    # Without a mark: of an ASCII character, the end of a line at least, every second byte is zero.
    even, odd = content[::2].count(0), content[1::2].count(0)
    text = content.decode("utf-16-le" if odd > even else "utf-16-be")
    if "\0" in text:
        raise UnicodeError("it has zeros, which are no text")
    return text
