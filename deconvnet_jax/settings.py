"""What the value of a setting may be: types, ranges and choices, refused with one line that names the setting."""

import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Protocol

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path


class Kind(Protocol):
    """The type and the range of a setting."""

    @property
    def expected(self) -> str:
        """What a value must be, for messages."""

    def accepts(self, value: Any) -> bool:
        """Returns whether the setting may have this value, of any type."""


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

    @property
    def expected(self) -> str:
        """As `Kind`."""
        kind = "a whole number" if self.whole else "a number"
        low, high = (f"{bound:,}" if self.whole else f"{bound:g}" for bound in (self.low, self.high))
        if not (self.above or self.below):
            return f"{kind} from {low} to {high}"
        return f"{kind} {'above' if self.above else 'from'} {low} and {'below' if self.below else 'up to'} {high}"

    def accepts(self, value: Any) -> bool:
        """As `Kind`."""
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        return self.low <= value <= self.high and not (
            (self.above and value == self.low) or (self.below and value == self.high)
        )


@dataclass(frozen=True)
class Choice:
    """One of several names."""

    names: tuple[str, ...]

    @property
    def expected(self) -> str:
        """As `Kind`."""
        return f"one of {', '.join(self.names)}"

    def accepts(self, value: Any) -> bool:
        """As `Kind`."""
        return isinstance(value, str) and value in self.names


@dataclass(frozen=True)
class Switch:
    """True or False."""

    expected: str = "True or False"

    def accepts(self, value: Any) -> bool:
        """As `Kind`."""
        return isinstance(value, bool)


@dataclass(frozen=True)
class Text:
    """A name that is not empty."""

    expected: str = "a name, not empty"

    def accepts(self, value: Any) -> bool:
        """As `Kind`."""
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

    @property
    def expected(self) -> str:
        """As `Kind`."""
        named = ", ".join(name for name in self.names if name)
        return f"the path of a file or folder, or one of {named}" if named else "the path of a file or folder"

    def accepts(self, value: Any) -> bool:
        """As `Kind`."""
        return isinstance(value, str | os.PathLike)


@dataclass(frozen=True)
class OrNone:
    """A value of another kind, or None."""

    kind: Kind

    @property
    def expected(self) -> str:
        """As `Kind`."""
        return f"{self.kind.expected}, or None"

    def accepts(self, value: Any) -> bool:
        """As `Kind`."""
        return value is None or self.kind.accepts(value)


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

    @property
    def expected(self) -> str:
        """As `Kind`."""
        parts = ["a tuple", f" of {self.least} or more" if self.least else "", f", each {self.kind.expected}"]
        parts += [", none twice" if self.distinct else "", ", in ascending order" if self.ascending else ""]
        return "".join(parts)

    def accepts(self, value: Any) -> bool:
        """As `Kind`."""
        if not isinstance(value, list | tuple) or len(value) < self.least or not all(map(self.kind.accepts, value)):
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

    @property
    def expected(self) -> str:
        """As `Kind`."""
        values = " and ".join(kind.expected for kind in self.kinds)
        return f"a pair of {values}{', in ascending order' if self.ascending else ''}"

    def accepts(self, value: Any) -> bool:
        """As `Kind`."""
        if not isinstance(value, list | tuple) or len(value) != 2:
            return False
        fit = all(kind.accepts(part) for kind, part in zip(self.kinds, value, strict=True))
        return fit and (not self.ascending or list(value) == sorted(value))


def check_values(values: Mapping[str, Any], kinds: Mapping[str, Kind], prefix: str = "") -> None:
    """Checks settings that are there; those that are missing are not looked at.

    Args:
      values: of the settings.
      kinds: of all settings that exist.
      prefix: of the names in messages, e.g. "config.".

    Raises:
      InputError: for a setting that does not exist, or a value of another type or out of range.
    """
    for key, value in values.items():
        if key not in kinds:
            raise InputError(f"{prefix}{key}: no such setting{_similar(key, kinds)}")
        if not kinds[key].accepts(value):
            raise InputError(f"{prefix}{key}={_short.repr(value)}: expected {kinds[key].expected}")
        chosen_path(value, kinds[key], f"{prefix}{key}")


def chosen_path(value: Any, kind: Kind, name: str) -> Path | None:
    """Returns the path that a setting names; None if it names none, or settings of this kind have no paths.

    Args:
      value: of the setting, of the right type.
      kind: of the setting.
      name: of the setting, for messages.

    Raises:
      InputError: for a path that cannot be used (`files.user_path`).
    """
    kind = kind.kind if isinstance(kind, OrNone) else kind
    if not isinstance(kind, LocalPath) or value is None or value in kind.names:
        return None
    return user_path(value, name, kind.in_bucket)


def _similar(key: str, known: Iterable[str]) -> str:
    ending: Sequence[str] = [name for name in known if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    return f"; there is {ending[0]}" if ending else ""


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
