"""Checks of the arrays that a caller passes: their shapes and dtypes, with messages that say how to convert them.

JAX knows shapes and dtypes while it traces, so the checks also work inside jit, vmap, grad and pmap. This module
imports neither JAX nor Flax.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from deconvnet_jax.errors import InputError


class _Kind(NamedTuple):
    """A group of dtypes.

    Attributes:
      prefixes: beginnings of the names of these dtypes.
      words: what messages call them.
      conversions: by the beginning of the name of another dtype, what to do with such an array; "" for all others.
    """

    prefixes: tuple[str, ...]
    words: str
    conversions: dict[str, str]


_FLOATS, _INTEGERS = ("float", "bfloat"), ("int", "uint")
_KINDS = {
    "float": _Kind(_FLOATS, "floating-point numbers", {"": "Convert it: {0}.astype(jnp.float32)"}),
    "normalised": _Kind(
        _FLOATS,
        "floating-point numbers, BGR minus the mean",
        {
            "uint8": "Normalise uint8 RGB images: normalize_images({0})",
            "": "Normalise RGB images 0..255: normalize_images({0}.astype(jnp.uint8))",
        },
    ),
    "integer": _Kind(_INTEGERS, "integers", {"": "Convert it: {0}.astype(jnp.int32)"}),
    "uint8": _Kind(
        ("uint8",),
        "uint8, 0..255",
        {
            "int": "Convert values 0..255 by {0}.astype(jnp.uint8)",
            "uint": "Convert values 0..255 by {0}.astype(jnp.uint8)",
            "": "Convert values 0..1 by (255 * {0}).round().astype(jnp.uint8), values 0..255 by {0}.astype(jnp.uint8)",
        },
    ),
    "bool": _Kind(("bool",), "booleans", {"": "Convert it: {0}.astype(bool)"}),
    "number": _Kind((*_FLOATS, *_INTEGERS), "real numbers", {"": "Convert it: {0}.astype(jnp.float32)"}),
}


def check_arrays(function: str, **arguments: tuple[Any, str, str]) -> None:
    """Raises InputError unless arrays have the expected shapes and dtypes.

    Args:
      function: name of the caller's function; messages start with it.
      **arguments: for each argument (array, shape, kind). The shape names the axes, separated by spaces: a number is
        the size of the axis, a letter stands for any size, but for the same size in all arguments, and "..." for any
        axes in front. The kind is "float", "normalised" (floats, as networks take them), "integer", "uint8", "bool" or
        "number". Messages blame a later argument for a different size, so the most reliable one comes first.

    Raises:
      InputError: for the first array that does not fit; the message guesses how to convert it.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.array_checks import check_arrays
      >>> check_arrays("add", x=(np.zeros((2, 8, 8, 3)), "N H W C", "float"))
    """
    sizes: dict[str, int] = {}
    origin = ""
    for name, (array, shape, kind) in arguments.items():
        check_is_array(f"{function}: {name}", array)
        axes = shape.split()
        if not _fits(array.shape, axes, sizes):
            bound = [axis for axis in axes if axis in sizes]
            like = f", to match {origin}" if bound else ""
            expected = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
            advice = _advice(name, array.shape, axes, sizes, kind)
            raise InputError(
                f"{function}: {name} has shape {list(array.shape)}; expected [{expected}]{like}"
                + (f". {advice}" if advice else "")
            )
        if any(size == 0 for axis, size in zip(axes[::-1], array.shape[::-1], strict=False) if axis in ("H", "W")):
            raise InputError(f"{function}: {name} has shape {list(array.shape)}; expected at least one pixel")
        if not array.dtype.name.startswith(_KINDS[kind].prefixes):
            conversions = _KINDS[kind].conversions
            remedy = next(text for start, text in conversions.items() if array.dtype.name.startswith(start))
            raise InputError(
                f"{function}: {name} has dtype {array.dtype.name}; expected {_KINDS[kind].words}. {remedy.format(name)}"
            )
        sizes.update((axis, size) for axis, size in zip(axes[::-1], array.shape[::-1], strict=False) if axis.isalpha())
        origin = origin or name


def host_array(where: str, value: Any) -> np.ndarray:
    """Returns a value as a NumPy array, for a function that computes outside of JAX.

    Args:
      where: the function and the argument, for the message.
      value: array, or nested lists of numbers.

    Raises:
      InputError: inside jit, vmap, grad or pmap, where JAX does not know the values; or if rows differ in length.
    """
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(f"{where}: rows of different lengths; expected an array") from error
    except Exception as error:
        if type(error).__name__ != "TracerArrayConversionError":  # JAX's class, which need not be imported.
            raise
        raise InputError(
            f"{where}: NumPy computes this, so it works neither in jit nor under vmap and grad. Call it outside, in a "
            "loop over the images"
        ) from None


def check_is_array(where: str, value: Any) -> None:
    """Raises InputError unless a value is a NumPy or JAX array (a tracer is one).

    Args:
      where: the function and the argument, for the message.
      value: what the caller passed.
    """
    if isinstance(getattr(value, "shape", None), tuple) and hasattr(getattr(value, "dtype", None), "name"):
        return
    kind = type(value)
    convert = ".numpy()" if kind.__module__.startswith("torch") else "np.asarray(...)"
    raise InputError(f"{where} is of type {kind.__name__}; expected an array: convert it by {convert}")


def _fits(shape: tuple[int, ...], axes: list[str], sizes: Mapping[str, int]) -> bool:
    named = [axis for axis in axes if axis != "..."]
    if len(shape) < len(named) or (len(named) == len(axes) and len(shape) > len(named)):
        return False
    own = shape[len(shape) - len(named) :]
    return all(
        size == (int(axis) if axis.isdecimal() else sizes.get(axis, size))
        for axis, size in zip(named, own, strict=True)
    )


def _advice(name: str, shape: tuple[int, ...], axes: list[str], sizes: Mapping[str, int], kind: str) -> str:
    """Returns a sentence with the first conversion that gives an array of the expected shape, or ""."""
    for text, converted in _conversions(name, shape, sizes, kind):
        if _fits(converted, axes, sizes) and ("grey" not in text or axes[-1] == "3"):  # Only images can be grey.
            return text
    return ""


def _conversions(
    name: str, shape: tuple[int, ...], sizes: Mapping[str, int], kind: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields conversions of an array, each as a sentence and the shape that results."""
    rank = len(shape)
    channels_last: dict[int, list[tuple[str, tuple[int, ...]]]] = {
        3: [
            (f"It looks like CHW: {name}.transpose(1, 2, 0)", (*shape[1:], *shape[:1])),
            (f"It looks like CHW: {name}.transpose(1, 2, 0)[None]", (1, *shape[1:], *shape[:1])),
        ],
        4: [(f"It looks like NCHW: {name}.transpose(0, 2, 3, 1)", (*shape[:1], *shape[2:], *shape[1:2]))],
    }
    colours_first = rank >= 3 and shape[-3] == 3 and shape[-1] > 4
    if colours_first:
        yield from channels_last.get(rank, [])
    if kind == "integer" and rank == 4 and shape[-1] > 1:
        yield f"Take class ids from scores: {name}.argmax(-1)", shape[:-1]
    yield f"Add a batch dimension: {name}[None]", (1, *shape)
    if not colours_first:
        yield from channels_last.get(rank, [])
    if shape and shape[-1] == 1:
        yield f"Drop the last axis: {name}[..., 0]", shape[:-1]
        yield f"Repeat the grey channel: {name}.repeat(3, axis=-1)", (*shape[:-1], 3)
    if shape and shape[-1] == 4:
        yield f"Drop the alpha channel: {name}[..., :3]", (*shape[:-1], 3)
    if shape and shape[0] == 1:
        yield f"Take the only image: {name}[0]", shape[1:]
    yield f"Add a batch and a channel dimension: {name}[None, ..., None]", (1, *shape, 1)
    yield f"Give a grey image three channels: {name}[..., None].repeat(3, axis=-1)", (*shape, 3)
    yield f"Give a grey image three channels: {name}[None, ..., None].repeat(3, axis=-1)", (1, *shape, 3)
    if rank >= 3:
        yield f"Swap height and width: {name}.swapaxes(-3, -2)", (*shape[:-3], shape[-2], shape[-3], shape[-1])
        yield f"Swap height and width: {name}.swapaxes(-2, -1)", (*shape[:-2], shape[-1], shape[-2])
    height, width = sizes.get("H"), sizes.get("W")
    if height and width and shape and shape[-1] == height * width:
        text = f"Unfold the pixels: {name}.reshape(-1, {height}, {width}).transpose(1, 2, 0)"
        yield text, (height, width, math.prod(shape[:-1]))
