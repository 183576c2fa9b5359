"""Reads the classes of masks: CVAT's labelmap.txt, Roboflow's _classes.csv, tables of colours, and lists of names."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from deconvnet_jax.data.image_names import lines_of, read_text
from deconvnet_jax.data.mask_files import ROBOFLOW, Found
from deconvnet_jax.errors import InputError, counted, did_you_mean
from deconvnet_jax.files import no_file
from deconvnet_jax.labels import IGNORE

Color = tuple[int, int, int]
_Mark = TypeVar("_Mark", int, Color)

# Files of classes that are used without being named, if they lie in the folder of images or masks.
KNOWN_TABLES = ("labelmap.txt", ROBOFLOW, "class_dict.csv", "classes.txt", "class_names.txt")
_FORMS = (
    "name:r,g,b:parts:actions (CVAT's labelmap.txt), name,r,g,b (colours), id,name (such as Roboflow's _classes.csv), "
    "or one name per line in the order of the ids"
)
_LABELMAP = re.compile(r"(?P<name>[^:]+):(?P<color>\d+,\d+,\d+):[^:]*:[^:]*")
NUMBERS = 1 << 24  # Pixels hold numbers or packed colours below this one.
# Lines such as "0 background", "0: background" and "background=0", which are no names.
_NUMBERED = re.compile(r"\d+\s*[\s:=]\s*\S.*|.*\S\s*[:=]\s*\d+")
_TITLES = re.compile("(class|label|category)[ _-]?names?|names?|class(es)?|labels?|categor(y|ies)", re.IGNORECASE)
_BACKGROUND = re.compile("_*background_*", re.IGNORECASE)
_IGNORE = re.compile("_*ignore_*", re.IGNORECASE)


class Entry(NamedTuple):
    """One class as a table has it.

    Attributes:
      name: class name.
      value: number of the pixels of the class; None if the table does not say it.
      color: colour of the class, RGB; None if the table does not say it.
    """

    name: str
    value: int | None = None
    color: Color | None = None


class ClassTable(NamedTuple):
    """Classes of a data set.

    Attributes:
      where: file or flag that the classes come from, for messages.
      names: class names in the order of the ids that are written; "background" is first if there is one.
      class_ids: class id of every name in the table; 255 for ignored ones.
      values: class id of every number that a pixel may have; 255 for ignored ones.
      colors: class id of every colour; empty if the table has none.
    """

    where: str
    names: tuple[str, ...]
    class_ids: dict[str, int]
    values: dict[int, int]
    colors: dict[Color, int]

    @property
    def has_background(self) -> bool:
        """Whether class 0 is the background."""
        return self.names[0] == "background"

    @property
    def background(self) -> int:
        """Class id of pixels that show nothing: 0, or 255 if background is ignored or no class."""
        return self.class_ids.get("background", IGNORE)

    def sources(self) -> tuple[str, ...]:
        """Returns for each class the numbers, colours or names by which masks mark it, as a text."""
        shown: list[list[str]] = [[] for _ in self.names]
        known = self.colors or self.values or self.class_ids
        for mark, class_id in known.items():
            if class_id != IGNORE:
                shown[class_id].append(",".join(map(str, mark)) if isinstance(mark, tuple) else str(mark))
        return tuple(" or ".join(marks[:3]) + (" ..." if len(marks) > 3 else "") for marks in shown)


def class_table(where: str, entries: Sequence[Entry], ignored: Sequence[str] = ()) -> ClassTable:
    """Returns the classes of a table with their new ids: background first, then the order of the table, no gaps.

    Args:
      where: file or flag that the classes come from, for messages.
      entries: the classes. Entries of the same name are one class.
      ignored: names whose pixels become 255. Names such as `__ignore__` always do.

    Raises:
      InputError: if a name in `ignored` is unknown, two entries have the same number or colour, or the names or their
        number cannot be used.
    """
    entries = [entry._replace(name=standard_name(entry.name)) for entry in entries]
    known = list(dict.fromkeys(entry.name for entry in entries))
    for name in ignored:
        if name not in known:
            there = ", ".join(known)
            raise InputError(f"--ignore: {where} has no class '{name}'; there are {there}{did_you_mean(name, known)}")
    left_out = {name for name in known if name in ignored or _IGNORE.fullmatch(name)}
    names = [name for name in known if name not in left_out]
    names.sort(key=lambda name: name != "background")
    for name in names:
        if name.splitlines() != [name.strip()] or re.search("[\ud800-\udfff]", name):
            raise InputError(f"{where}: a class cannot be called {name!r:.80}; expected one line of UTF-8 text")
    if not 1 < len(names) <= IGNORE:
        raise InputError(
            f"{where} names {counted(len(names), 'class', 'classes')} ({', '.join(names[:9])}); expected 2 to "
            f"{IGNORE}, background included"
        )
    ids = {name: IGNORE if name in left_out else names.index(name) for name in known}
    values = _marked(where, [(entry.value, ids[entry.name]) for entry in entries if entry.value is not None])
    colors = _marked(where, [(entry.color, ids[entry.name]) for entry in entries if entry.color is not None])
    return ClassTable(where, tuple(names), ids, values, colors)


def _marked(where: str, marks: Sequence[tuple[_Mark, int]]) -> dict[_Mark, int]:
    """Returns the class id of every number or colour; raises InputError if one marks two classes."""
    found: dict[_Mark, int] = {}
    for mark, class_id in marks:
        if found.setdefault(mark, class_id) != class_id:
            raise InputError(f"{where} gives {mark} to two classes; correct it, or give both the same name")
    return found


def standard_name(name: str) -> str:
    """Returns the name of a class as it is written: "background" for names such as `_background_`."""
    return "background" if _BACKGROUND.fullmatch(name) else name


def named_entries(names: Sequence[str]) -> list[Entry]:
    """Returns the classes of --names: "NAME" has the number of its place, "ID=NAME" the number before the sign.

    Raises:
      InputError: if a name is empty, a number is too large, or the names hold numbers in another form.
    """
    entries: list[Entry] = []
    others: list[str] = []
    for place, text in enumerate(names):
        found = re.fullmatch(r"\s*0*(\d+)\s*=\s*(.*?)\s*", text)
        value, name = (int(found[1][:9]), found[2]) if found else (place, text.strip())
        if not name:
            raise InputError(f"--names: class {place} has no name; expected NAME,NAME,... or ID=NAME,...")
        if value >= NUMBERS:
            raise InputError(f"--names: no pixel holds the number in '{text.strip():.60}'; expected 0 to {NUMBERS - 1}")
        entries.append(Entry(name, value))
        others += [] if found else [name]
    if others and all(map(_NUMBERED.fullmatch, others)):
        raise InputError(f"--names: '{others[0]:.60}' is no name; expected NAME,NAME,... or ID=NAME,...")
    return entries


def read_table(path: Path) -> list[Entry]:
    """Reads a file of classes in one of four forms.

    - CVAT's labelmap.txt: name:r,g,b:parts:actions
    - a table of colours: name,r,g,b
    - a table of numbers: id,name or name,id, such as Roboflow's _classes.csv
    - a list: one name per line, in the order of the ids from 0

    Tables may have a first line with titles, and commas, semicolons or tabs between the columns. Empty lines and lines
    that start with # are skipped.

    Args:
      path: the file, in UTF-8 or UTF-16.

    Returns:
      The classes in the order of the file.

    Raises:
      InputError: if the file cannot be read, or a line has another form.
    """
    if not path.is_file():
        raise InputError(no_file(path, remedy=f"expected classes, a line each: {_FORMS}"))
    lines = [
        (number, line.strip())
        for number, line in enumerate(lines_of(read_text(path).removeprefix("\ufeff")), 1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines:
        raise InputError(f"{path} is empty; expected classes, a line each: {_FORMS}")
    if any(_LABELMAP.fullmatch(line) for _, line in lines):
        bad = next(((number, line) for number, line in lines if not _LABELMAP.fullmatch(line)), None)
        if bad:
            raise InputError(_no_class(path, *bad))
        parts = [line.split(":") for _, line in lines]
        rows = [(number, [part[0], *part[1].split(",")]) for (number, _), part in zip(lines, parts, strict=True)]
    else:
        delimiter = max(",;\t", key=lines[0][1].count)
        rows = [(number, _cells(line, delimiter)) for number, line in lines]
    entries = [_entry(row, place) for place, (_, row) in enumerate(rows)]
    if entries[0] is None and _are_titles([row for _, row in rows[:2]]):
        rows, entries = rows[1:], entries[1:]
    for (number, row), entry in zip(rows, entries, strict=True):
        if entry is None or len(row) != len(rows[0][1]):
            raise InputError(_no_class(path, number, ",".join(row)))
    found = [entry for entry in entries if entry is not None]
    if len(rows[0][1]) == 1:
        _check_list(path, [entry.name for entry in found])
    if len(rows[0][1]) == 1 and _IGNORE.fullmatch(found[0].name):  # labelme counts the names after __ignore__ from 0.
        return [found[0]._replace(value=None), *(Entry(entry.name, i) for i, entry in enumerate(found[1:]))]
    return found


def _no_class(path: Path, number: int, line: str) -> str:
    return f"{path}, line {number}: {line!r:.80} is no class; expected on each line {_FORMS}"


def _are_titles(rows: Sequence[Sequence[str]]) -> bool:
    """Returns whether the first of two rows has as many cells as the second, and only words in them."""
    words = all(re.search(r"[^\W\d_]", cell) for cell in rows[0])
    return words and len(rows) == 2 and 1 < len(rows[0]) == len(rows[1])


def _check_list(path: Path, names: Sequence[str]) -> None:
    """Raises InputError if the lines of a file with one column are no list of names from id 0."""
    if _TITLES.fullmatch(names[0]):
        raise InputError(
            f"{path}: its first line '{names[0]}' seems to be a title, but would be the class of id 0; delete the "
            "line, or give --names if there is such a class"
        )
    if all(map(_NUMBERED.fullmatch, names)):
        raise InputError(f"{path}: '{names[0]:.60}' is no name; expected on each line id,name, or a name alone")


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]
    except csv.Error:
        return [line]


def _entry(row: Sequence[str], place: int) -> Entry | None:
    """Returns the class in a line; None if the line has another form."""
    if len(row) == 1 and row[0]:
        return Entry(row[0], place)
    numbers = [int(cell) if re.fullmatch(r"\d{1,5}", cell) else None for cell in row]
    if len(row) == 2 and (numbers[0] is None) != (numbers[1] is None) and all(row):
        return Entry(row[1], numbers[0]) if numbers[0] is not None else Entry(row[0], numbers[1])
    red, green, blue = numbers[1:] if len(row) == 4 else (None, None, None)
    if row[0] and red is not None and green is not None and blue is not None and max(red, green, blue) <= 255:
        return Entry(row[0], None, (red, green, blue))
    return None


def known_table(files: Sequence[Found]) -> Path | None:
    """Returns the file of classes that an export holds under a usual name; None if there is none.

    Roboflow writes the same file into the folder of every split.

    Raises:
      InputError: if there are several with different content.
    """
    found = [file.path for file in files if file.below.name in KNOWN_TABLES]
    different = [path for path in found[1:] if read_table(path) != read_table(found[0])]
    if different:
        raise InputError(f"{found[0]} and {different[0]} name different classes; choose one with --classes=FILE")
    return found[0] if found else None
