"""Reads the lists of a split that people write, and finds the files that belong to each image name.

Names and files may differ in case, suffix or Unicode form.
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
    """Yields every file below a folder: its path relative to the folder, such as "a/b.jpg", and its full path.

    Files come in the order of their names. Links to files and folders are followed; broken links are left out. A folder
    that links back to one around it is not entered again.

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
    except OSError:  # This happens for a link to itself.
        return False


class NamedFiles:
    """Files of one kind, such as photographs, that are looked up by image names.

    A file belongs to a name if its path is the name plus one of the suffixes. If there is no such file, a single file
    that differs only in case or Unicode form is taken. macOS, for example, stores accents as separate characters.
    """

    def __init__(self, suffixes: Iterable[str], list_files: Callable[[], Iterable[str]], exists: Callable[[str], bool]):
        """Stores how to list the files; nothing is read yet.

        Args:
          suffixes: suffixes of the files, such as ".jpg", those to try first at the beginning.
          list_files: function that returns the paths of all files, with "/" between folders. It is called at most once.
          exists: function that returns whether a file with exactly this path exists.
        """
        self._suffixes = tuple(dict.fromkeys(suffixes))
        self._list_files, self._exists = list_files, exists
        self._found: dict[str, str | None] = {}

    @classmethod
    def below(cls, folder: Path, suffixes: Iterable[str]) -> "NamedFiles":
        """Returns the files below a folder on disk.

        Args:
          folder: folder that the names are relative to.
          suffixes: suffixes of the files, those to try first at the beginning.

        Returns:
          The files; the folder is read on first use.
        """
        return cls(suffixes, lambda: (name for name, _ in walk(folder)), lambda name: (folder / name).is_file())

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The paths of all files, including those with other suffixes."""
        files = tuple(self._list_files())
        self._exists = frozenset(files).__contains__  # This is faster than asking the disk for every file.
        return files

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        keys: dict[str, list[str]] = {}
        for name in self.files:
            keys.setdefault(name_key(name), []).append(name)
        return keys

    def find(self, name: str) -> str | None:
        """Returns the path of the file that belongs to a name; None if there is none or several match."""
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
            similar = self._by_key.get(name_key(f"{name}{suffix}"), [])
            if similar:
                return similar[0] if len(similar) == 1 else None
        return None

    def name_of(self, text: str) -> str | None:
        """Returns the image name that `text` means, a name or a file name with a suffix; None if there is no such file.

        Raises:
          InputError: if `text` names one file, but another file is read for the same name, such as a.jpg instead of
            a.png.
        """
        stem = _SUFFIX.sub("", text)
        for name in dict.fromkeys((text, stem, _SUFFIX.sub("", stem))):
            found = self.find(name)
            if found and name != text and text != found and self._exists(text):
                raise InputError(
                    f"the line names '{text}', but {found} is read for the name '{name}'; remove one of the two files"
                )
            if found:
                return name
        return None

    def name_of_path(self, path: str) -> str | None:
        """Returns the image name that a path means, whatever folders it starts with. None if there is no such file.

        Raises:
          InputError: as in `name_of`.
        """
        parts = PurePosixPath(path.replace("\\", "/")).parts
        tails = ("/".join(parts[i:]) for i in range(len(parts)))
        return next((name for tail in tails if (name := self.name_of(tail))), None)

    def similar(self, name: str) -> str | None:
        """Returns a file that was probably meant, such as a_mask.png or other/a.png for "a"; None if there is none."""
        wanted = re.escape(name_key(PurePosixPath(name).name))
        matches = [
            path for path in self.files if re.search(rf"(?<![^\W_]){wanted}(?![^\W_])", name_key(path.split("/")[-1]))
        ]
        return min(matches, key=len, default=None)


def name_key(name: str) -> str:
    """Returns a key that is equal for names that differ only in case, Unicode form or encoding."""
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:  # The name has bytes that are not UTF-8, from an older disk or archive.
            name = single_bytes(name.encode(errors="surrogateescape"))
        name = unicodedata.normalize("NFC", name)
    return name.casefold()


def single_bytes(content: bytes) -> str:
    """Returns bytes decoded as Western Windows text (cp1252), or as Latin-1 if that fails."""
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")


class Listed(NamedTuple):
    """Images of one split, as its file lists them.

    Attributes:
      names: image names in the order of the file.
      masks: for lines with two files, the second one, by image name.
      encoding: "UTF-8" if the file is Unicode text, otherwise "not UTF-8".
    """

    names: list[str]
    masks: dict[str, str]
    encoding: str


def read_text(path: Path) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 or UTF-32 with or without a byte order mark.

    Raises:
      InputError: if the file cannot be read or has another encoding.
    """
    try:
        return _decoded(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); expected a text file: correct its path or permissions"
        ) from error
    except UnicodeError as error:
        reason = one_line(error, 120)
        raise InputError(f"{path} cannot be read as UTF-8 text ({reason}); save it as UTF-8") from error


def lines_of(text: str) -> list[str]:
    """Returns the lines of a text, split at line ends only.

    `str.splitlines` would also split at other characters, such as form feeds.
    """
    return re.split(r"\r\n|\r|\n", text)


def read_list(path: Path, photographs: NamedFiles) -> Listed:
    """Reads the file that lists the images of a split.

    Each line names one image: by its name, by its file name with the suffix, or by a path to it. A second file on the
    line is its mask. Empty lines and lines that start with # are skipped. A name without a photograph is kept, so that
    the caller can report it.

    Args:
      path: list in UTF-8, UTF-16 or UTF-32. Other single-byte encodings are accepted if the names then match the files.
      photographs: files that a line can name.

    Returns:
      The names, in the order of the file, and the masks that the lines name.

    Raises:
      InputError: if the file cannot be read or is empty, a line has another form, a name leads out of the folder, or an
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
    """Parses the content of a list; see `read_list`.

    Args:
      content: bytes of the list.
      path: where the bytes come from, for error messages.
      photographs: files that a line can name.

    Returns:
      The names, in the order of the list, and the masks that the lines name.

    Raises:
      InputError: as in `read_list`.
    """
    encoding = "UTF-8"
    try:
        text = _decoded(content)
    except UnicodeError:
        text, encoding = single_bytes(content), "not UTF-8"
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
    """Returns the image name and the mask of a line, or None if the line is empty or a comment.

    The mask is "" if the line names none.
    """
    text = line.strip()
    if not text:
        return None
    for whole in dict.fromkeys((line, text, text.strip(_QUOTES))):  # A name may start or end with blanks.
        if name := photographs.name_of(whole):
            return name, ""
    if text.startswith("#"):
        return None
    ends = [
        (text[: blank.start()].strip(_QUOTES), text[blank.end() :].strip(_QUOTES)) for blank in _BLANK.finditer(text)
    ]
    files = [(head, rest) for head, rest in ends if _SUFFIX.search(head)]
    others = [(head, rest) for head, rest in reversed(ends) if _FLAG.fullmatch(rest) or rest[:1] == "#" or "/" in rest]
    # A name may contain blanks, so every blank is tried as its end.
    for head, rest in (*files, *others):
        if name := photographs.name_of_path(head):
            return name, _second_file(text, name, rest)
    if name := photographs.name_of_path(text.strip(_QUOTES)):
        return name, ""
    _, folder, file = (files[0][0] if files else text).rpartition("JPEGImages/")
    return (_SUFFIX.sub("", file) if folder else text), ""  # No such photograph; the caller reports it.


def _second_file(text: str, name: str, rest: str) -> str:
    """Returns the mask that a line names after its image, "" without one.

    Raises:
      InputError: if something other than a mask follows.
    """
    if not rest or rest.startswith("#"):
        return ""
    if _FLAG.fullmatch(rest):
        raise InputError(
            f"'{text}' has a class flag (-1, 0 or 1) after the name, like the lists in ImageSets/Main; expected one "
            "image name per line: keep only the names that belong to the split"
        )
    if not _SUFFIX.search(rest) and "/" not in rest:
        raise InputError(f"'{text[:80]}': expected one image name per line; remove what follows '{name}'")
    return rest


def _check_names(names: list[str], path: object, photographs: NamedFiles) -> None:
    """Raises InputError if there is no name, a name leads out of the folder, or two names mean the same image."""
    garbled = [name for name in names if re.search(r"[\0-\x08\x0e-\x1f]", name)]
    if garbled:
        raise InputError(
            f"split file {path} is no text, its line {ascii(garbled[0])[:40]} has control characters; expected one "
            "image name per line in UTF-8: write the list again"
        )
    for name in names:  # Results are written under these names, so they must stay inside the output folder.
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(
                f"split file {path} names '{name}', which leads out of the folder; write one image name per line, "
                "relative to the folder of the images and without the suffix"
            )
    if not names:
        raise InputError(f"split file {path} is empty; expected one image name per line: write those of the split")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not twice:
        first: dict[str, str] = {}
        twice = [name for name in names if first.setdefault(photographs.find(name) or f"/{name}", name) != name]
    if twice:
        raise InputError(
            f"split file {path} names '{twice[0]}' more than once; expected every image once: delete the repeated lines"
        )


def _decoded(content: bytes) -> str:
    """Returns the text that bytes stand for in UTF-8, UTF-16 or UTF-32.

    UTF-16 and UTF-32 are recognised by their byte order mark, UTF-16 also by its zero bytes.

    Raises:
      UnicodeError: if the bytes are in none of these encodings.
    """
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    if b"\0" not in content:
        return content.decode("utf-8")
    # UTF-16 without a mark: one of the two bytes of every ASCII character is zero, and each line end is one.
    even, odd = content[::2].count(0), content[1::2].count(0)
    text = content.decode("utf-16-le" if odd > even else "utf-16-be")
    if "\0" in text:
        raise UnicodeError("it contains zero bytes")
    return text
