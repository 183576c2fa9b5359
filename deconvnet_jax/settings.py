"""What the value of a setting may be: types, ranges and choices, refused with one line that names the setting.

Each kind of value is a set: `value in kind`, for a value of any type. str(kind) says what is expected, for messages.
"""

import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Protocol

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path


class Kind(Protocol):
    """The type and the range of a setting."""

    def __contains__(self, value: object, /) -> bool: ...


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`; NaN, infinities, booleans and text are none.

    Attributes:
      low: smallest value.
      high: largest value.
      whole: only whole numbers.
      above: `low` itself is too small.
      below: `high` itself is too large.
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
    """One of several names."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and value in self.names


class Switch:
    """True or False."""

    def __str__(self) -> str:
        return "True or False"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, bool)


class Text:
    """A name that is not empty."""

    def __str__(self) -> str:
        return "a name, not empty"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and bool(value.strip()) and "\0" not in value


@dataclass(frozen=True)
class LocalPath:
    """The path of a file or folder; `files.user_path` says what is wrong with one.

    Attributes:
      names: values that are no paths, such as "" for none.
      in_bucket: whether it may be gs://BUCKET/NAME, too.
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
    """A value of another kind, or None."""

    kind: Kind

    def __str__(self) -> str:
        return f"{self.kind}, or None"

    def __contains__(self, value: object) -> bool:
        return value is None or value in self.kind


_ORDER = ", in ascending order"


@dataclass(frozen=True)
class Several:
    """A tuple or list of values of one kind.

    Attributes:
      kind: of each value.
      least: smallest number of values.
      distinct: no value twice.
      ascending: no value smaller than the one before it.
    """

    kind: Kind
    least: int = 0
    distinct: bool = False
    ascending: bool = False

    def __str__(self) -> str:
        parts = ["a tuple", f" of {self.least} or more" if self.least else "", f", each {self.kind}"]
        return "".join([*parts, ", none twice" if self.distinct else "", _ORDER if self.ascending else ""])

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, list | tuple) or len(value) < self.least or not all(v in self.kind for v in value):
            return False
        if self.distinct and len(set(value)) < len(value):
            return False
        return not self.ascending or list(value) == sorted(value)


@dataclass(frozen=True)
class Pair:
    """A tuple or list of two values.

    Attributes:
      kinds: of the two values.
      ascending: no value smaller than the one before it.
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
    """Checks the settings that are given; those that are missing are not looked at.

    Args:
      values: of the settings.
      kinds: of all settings that exist.
      prefix: of the names in messages, e.g. "config.".

    Raises:
      InputError: for a setting that does not exist, or a value of another type or out of range.
    """
    for key, value in values.items():
        if key not in kinds:
            similar = next((f"; there is {name}" for name in kinds if name.split(".")[-1] == key.split(".")[-1]), "")
            raise InputError(f"{prefix}{key}: no such setting{similar}")
        if value not in kinds[key]:
            raise InputError(f"{prefix}{key}={_short.repr(value)}: expected {kinds[key]}")
        chosen_path(value, kinds[key], f"{prefix}{key}")


def chosen_path(value: object, kind: Kind, name: str) -> Path | None:
    """Returns the path that a setting names; None if it names none, or settings of this kind have no paths.

    Args:
      value: of the setting, of the right type.
      kind: of the setting.
      name: of the setting, for messages.

    Raises:
      InputError: for a path that cannot be used (`files.user_path`).
    """
    kind = kind.kind if isinstance(kind, OrNone) else kind
    if not isinstance(kind, LocalPath) or not isinstance(value, str | os.PathLike) or value in kind.names:
        return None
    return user_path(value, name, kind.in_bucket)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
