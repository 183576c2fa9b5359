"""Checks of the arguments of `dense_crf`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from deconvnet_jax.array_checks import check_arrays, host_array
from deconvnet_jax.errors import InputError, did_you_mean

NORMALIZATIONS = ("none", "symmetric")
METHODS = ("lattice", "exact")

_MOST_ITERATIONS = 2**31 - 1
_LARGEST_WEIGHT = 1e30  # Multiplied by the largest number of pixels, this still fits float32.

AnyArray = Array | np.ndarray
Deviation = float | Sequence[float]  # One number for all axes or channels, or one for each.


def as_array(name: str, value: ArrayLike) -> AnyArray:
    """Returns a value as an array; JAX arrays stay on their device.

    Args:
      name: name of the argument, for the error message.
      value: array, or nested lists of numbers.

    Returns:
      The JAX array itself, or a NumPy array.

    Raises:
      InputError: if the value has rows of different lengths.
    """
    return value if isinstance(value, Array) else host_array(f"dense_crf: {name}", value)


def check_maps(unary: AnyArray, image: AnyArray) -> None:
    """Raises InputError unless the unaries and the image fit `dense_crf` and each other.

    Args:
      unary: floating point [H, W, K] or [N, H, W, K], not empty, without NaN and -inf. The values of a tracer
        are not checked.
      image: uint8 [H, W, 3] or [N, H, W, 3].
    """
    batch = "N " if image.ndim == 4 else ""
    check_arrays(
        "dense_crf",
        image=(image, f"{batch}H W 3", "uint8"),
        unary=(unary, f"{batch}H W K", "float"),
    )
    if 0 in unary.shape:
        missing = "image" if unary.shape[-1] else "class"  # `check_arrays` has refused images without pixels.
        raise InputError(f"dense_crf: unary has shape {list(unary.shape)}; expected at least one {missing}")
    if not isinstance(unary, Tracer):
        with np.errstate(over="ignore"):  # Large float64 values become infinite in float32.
            lowest = np.asarray(unary, np.float32).min()
        if np.isnan(lowest) or lowest == -np.inf:
            raise InputError(
                f"dense_crf: unary has the value {lowest}; expected -log p, which may be +inf but not NaN or -inf"
            )


def check_settings(
    iterations: int,
    normalization: str,
    *,
    gaussian: tuple[Deviation, float],
    bilateral: tuple[Deviation, Deviation, float],
    method: str,
    capacity: int | None,
) -> None:
    """Raises InputError unless the settings are valid for `dense_crf`; the arguments are described there.

    Args:
      iterations: a whole number, 0 or higher.
      normalization: one of NORMALIZATIONS.
      gaussian: (positive standard deviation, weight of 0 or more).
      bilateral: (positive standard deviation in pixels, in colour values, weight of 0 or more).
      method: one of METHODS.
      capacity: a positive whole number, or None.
    """
    for name, value, names in (("normalization", normalization, NORMALIZATIONS), ("method", method, METHODS)):
        if not isinstance(value, str) or value not in names:
            similar = did_you_mean(str(value), names)
            raise InputError(f"{name}={shown(value)}: expected one of {', '.join(names)}{similar}")
    for name, value, least in (("iterations", iterations, 0), ("capacity", 1 if capacity is None else capacity, 1)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not least <= value <= _MOST_ITERATIONS:
            raise InputError(f"{name}={shown(value)}: expected a whole number from {least} to {_MOST_ITERATIONS}")
    for name, values, lengths in (("gaussian", gaussian, (2,)), ("bilateral", bilateral, (2, 3))):
        if not _is_kernel(values, lengths):
            parts = "".join(f"standard deviation in {part}, " for part in ("pixels", "colour values")[: len(lengths)])
            raise InputError(
                f"{name}={shown(values)}: expected ({parts}weight), with positive deviations and one number of 0 or "
                "more as the weight; a weight of 0 leaves the kernel out"
            )


def shown(value: Any) -> str:
    """Returns the repr of a caller's value on one line of at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_kernel(values: Any, lengths: Sequence[int]) -> bool:
    """Returns whether `values` holds valid standard deviations and a weight.

    Each deviation must be positive: one number, or as many numbers as `lengths` says.
    """
    if not isinstance(values, tuple | list | np.ndarray | Array):
        return False
    try:
        *deviations, weight = values
        arrays = [np.asarray(value, np.float64) for value in deviations]
        weight = np.asarray(weight, np.float64)
    except (TypeError, ValueError):
        return False
    if len(arrays) != len(lengths) or weight.ndim or not 0 <= weight <= _LARGEST_WEIGHT:
        return False
    shaped = all(array.shape in ((), (length,)) for array, length in zip(arrays, lengths, strict=True))
    return shaped and all((np.isfinite(array) & (array > 0)).all() for array in arrays)
