"""Short texts for objects that hold arrays: shapes and dtypes in place of values."""

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

_MANY = 4  # Longer sequences of arrays are summarised.
_TEXT = reprlib.Repr()
_TEXT.maxstring = _TEXT.maxother = 80


def short_repr(self: Any) -> str:
    """Returns the `repr` of a named tuple or dataclass, on one line, with `described` fields.

    Assign it in the body of the class: `__repr__ = short_repr`.

    Args:
      self: the object.
    """
    names = getattr(self, "_fields", None) or [field.name for field in fields(self) if field.repr]
    parts = ", ".join(f"{name}={described(getattr(self, name))}" for name in names)
    return f"{type(self).__name__}({parts})"


def described(value: Any) -> str:
    """Returns a short text about a value.

    Args:
      value: an array, a container of arrays, or anything else.

    Returns:
      Dtype and shape of an array, the number and size of the arrays in a container, otherwise its shortened `repr`.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.short_repr import described
      >>> described(np.zeros((3, 4), np.uint8))
      'uint8 [3, 4]'
      >>> described({"params": {"conv1_1": {"kernel": np.zeros((3, 3, 3, 64), np.float32), "bias": np.zeros(64)}}})
      '{params}: 2 arrays, 7.4 kB'
    """
    if _is_array(value):
        return f"{value.dtype} {list(value.shape)}"
    arrays = list(_arrays(value))
    if not arrays:
        return " ".join(_TEXT.repr(value).split())
    if isinstance(value, list | tuple) and len(value) <= _MANY and all(map(_is_array, value)):
        return f"[{', '.join(map(described, value))}]"
    keys = f"{{{', '.join(map(str, list(value)[:_MANY]))}}}" if isinstance(value, Mapping) else type(value).__name__
    return f"{keys}: {len(arrays):,} array{'s' * (len(arrays) != 1)}, {_bytes(arrays)}"


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)


def _arrays(value: Any) -> Iterator[Any]:
    if _is_array(value):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _arrays(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _arrays(part)


def _bytes(arrays: list[Any]) -> str:
    size = float(sum(array.size * array.dtype.itemsize for array in arrays))
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
