"""Describes the allowed values of settings, and refuses other values with one line that names the setting.

Each kind of value works like a set: `value in kind` accepts a value of any type. `str(kind)` is the phrase that error
messages put after "expected".
"""

import difflib
import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Protocol

from deconvnet_jax.errors import InputError, did_you_mean
from deconvnet_jax.files import user_path


class Kind(Protocol):
    """Set of allowed values of a setting."""

    def __contains__(self, value: object, /) -> bool: ...


@dataclass(frozen=True)
class Number:
    """Numbers from `low` to `high`; NaN, infinities, booleans and text are refused.

    Attributes:
      low: the smallest value.
      high: the largest value.
      whole: allow whole numbers only, of an integer type.
      above: exclude `low` itself.
      below: exclude `high` itself.
    """

    low: float
    high: float
    whole: bool = False
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low, high = (f"{bound:,}" if self.whole else f"{bound:g}" for bound in (self.low, self.high))
        if not (self.above or self.below):
            return f"{kind} from {low} to {high}"
        return f"{kind} {'above' if self.above else 'from'} {low} and {'below' if self.below else 'up to'} {high}"

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        number = int(value) if isinstance(value, Integral) else float(value)
        outside = (self.above and number == self.low) or (self.below and number == self.high)
        return self.low <= number <= self.high and not outside


@dataclass(frozen=True)
class Choice:
    """Several names, of which a setting takes one.

    Attributes:
      names: the allowed values.
    """

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and value in self.names


class Switch:
    """The two values True and False; 0 and 1 are refused."""

    def __str__(self) -> str:
        return "True or False"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, bool)


class Text:
    """Texts that are neither empty nor blank and contain no NUL character."""

    def __str__(self) -> str:
        return "a name that is not empty"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and bool(value.strip()) and "\0" not in value


@dataclass(frozen=True)
class LocalPath:
    """Paths of files or folders, as text or `os.PathLike`; `files.user_path` checks the path itself.

    Attributes:
      names: values that are not paths and have another meaning, such as "" for no file.
      in_bucket: allow gs://BUCKET/NAME too.
    """

    names: tuple[str, ...] = ()
    in_bucket: bool = False

    def __str__(self) -> str:
        named = ", ".join(name for name in self.names if name)
        return f"the path of a file or folder{named and f', or one of {named}'}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str | os.PathLike)


@dataclass(frozen=True)
class OrNone:
    """Values of another kind, and None.

    Attributes:
      kind: the other kind.
    """

    kind: Kind

    def __str__(self) -> str:
        return f"{self.kind}, or None"

    def __contains__(self, value: object) -> bool:
        return value is None or value in self.kind


_ORDER = ", in ascending order"


@dataclass(frozen=True)
class Several:
    """Tuples and lists of values of one kind.

    Attributes:
      kind: the kind of each value.
      least: the smallest number of values.
      distinct: refuse a value that occurs twice.
      ascending: refuse a value that is smaller than the one before it.
    """

    kind: Kind
    least: int = 0
    distinct: bool = False
    ascending: bool = False

    def __str__(self) -> str:
        parts = ["a tuple", f" of {self.least} or more values" if self.least else "", f", each {self.kind}"]
        return "".join([*parts, ", without duplicates" if self.distinct else "", _ORDER if self.ascending else ""])

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, list | tuple) or len(value) < self.least or not all(v in self.kind for v in value):
            return False
        if self.distinct and len(set(value)) < len(value):
            return False
        return not self.ascending or list(value) == sorted(value)


@dataclass(frozen=True)
class Pair:
    """Tuples and lists of two values.

    Attributes:
      kinds: the kinds of the first and the second value.
      ascending: refuse a second value that is smaller than the first.
    """

    kinds: tuple[Kind, Kind]
    ascending: bool = False

    def __str__(self) -> str:
        return f"a pair of {' and '.join(map(str, self.kinds))}{_ORDER if self.ascending else ''}"

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, list | tuple) or len(value) != 2:
            return False
        fit = all(part in kind for kind, part in zip(self.kinds, value, strict=True))
        return fit and (not self.ascending or list(value) == sorted(value))


def check_values(values: Mapping[str, object], kinds: Mapping[str, Kind], prefix: str = "") -> None:
    """Checks the values of settings; settings that are not given are not checked.

    Args:
      values: the value of each given setting, by its name, e.g. "data.crop_size".
      kinds: the kind of every setting that exists, by its name.
      prefix: the text before each name in error messages, e.g. "config.".

    Raises:
      InputError: for a setting that does not exist, a value of the wrong type or out of range, or a path that
        `files.user_path` refuses.
    """
    for key, value in values.items():
        if key not in kinds:
            found = " or ".join(prefix + name for name in similar_settings(key, kinds))
            raise InputError(f"{prefix}{key}: no such setting{found and f'; did you mean {found}?'}")
        if value not in (kind := kinds[key]):
            names = kind.names if isinstance(kind, Choice) and isinstance(value, str) else ()
            similar = did_you_mean(str(value), names)
            raise InputError(f"{prefix}{key}={_short.repr(value)}: expected {kind}{similar}")
        chosen_path(value, kinds[key], f"{prefix}{key}")


def similar_settings(key: str, known: Iterable[str]) -> list[str]:
    """Returns the settings that a misspelt or incomplete key may mean.

    Args:
      key: the key that does not exist, e.g. "data.crop_sise" or "crop_size".
      known: the keys that exist, with their sections.

    Returns:
      All keys with the same last part, in any section. If there are none, the key whose last part is the most similar,
      preferably of the same section; an empty list if no key is similar.

    Example:
      >>> similar_settings("crop_sise", ["data.crop_size", "model.width"])
      ['data.crop_size']
    """
    section, _, last = key.rpartition(".")
    parts = [(*name.rpartition(".")[::2], name) for name in known]
    if same := [name for _, other, name in parts if other == last]:
        return same
    for names in ({other: name for part, other, name in parts if part == section}, {p[1]: p[2] for p in parts}):
        if close := difflib.get_close_matches(last, names, n=1):
            return [names[close[0]]]
    return []


def chosen_path(value: object, kind: Kind, name: str) -> Path | None:
    """Returns the path that a setting names.

    Args:
      value: the value of the setting, already in `kind`.
      kind: the kind of the setting.
      name: how error messages name the setting.

    Returns:
      The path; None if the kind has no paths, or if the value is None or one of `LocalPath.names`.

    Raises:
      InputError: for a path that `files.user_path` refuses.
    """
    kind = kind.kind if isinstance(kind, OrNone) else kind
    if not isinstance(kind, LocalPath) or not isinstance(value, str | os.PathLike) or value in kind.names:
        return None
    return user_path(value, name, kind.in_bucket)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
