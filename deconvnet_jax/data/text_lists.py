"""Text files that people write: names of classes, and of the images of a split."""

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deconvnet_jax.data.named_files import NamedFiles, single_bytes
from deconvnet_jax.errors import InputError

_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_BLANK = re.compile(r"[\s,;]+")
_FLAG = re.compile(r"[-+]?[01]")
_SUFFIX = re.compile(r"\.[A-Za-z]{3,4}$")
_QUOTES = "\"'"


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
        reason = " ".join(str(error).split())[:120]
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
