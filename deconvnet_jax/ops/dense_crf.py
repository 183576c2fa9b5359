"""The fully connected CRF: labels that agree with the image's colours and edges.

Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011, as their
densecrf computes it, which the released code of DeconvNet runs on its scores. Every pixel is connected with every
other one, more the nearer it is ("gaussian") and the nearer and the more alike in colour ("bilateral"). Potts model,
mean field: Q = softmax(-U) at first, then Q = softmax(-U + sum over kernels of weight * K Q) again and again, where
a pixel counts among its own neighbours.

`dense_crf` pads the pixels and the lattices to one of a few sizes and compiles a program for each, not for each image.
How many vertices a lattice has is known only after a first program has counted them. Whoever has several unaries for
one image calls `crf_kernels` once and `mean_field` for each.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.custom_derivatives import linear_call
from jax.typing import ArrayLike

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops import permutohedral_host
from deconvnet_jax.ops.permutohedral import (
    Entries,
    Lattice,
    build_lattice,
    find_entries,
    find_vertices,
    fits_lattice,
    lattice_filter,
    most_vertices,
)

# Keywords of `dense_crf`. "released": run_demo.m of the original with the defaults of its wrapper around densecrf.
# "usual": the example in the README of densecrf's Python wrapper (lucasb-eyer/pydensecrf) with the wrapper's default
# normalisation; the numbers that post-processing after DeepLab commonly takes over.
CRF_PRESETS: dict[str, dict[str, Any]] = {
    "released": {"gaussian": (3.0, 3.0), "bilateral": (20.0, 3.0, 5.0), "normalization": "none"},
    "usual": {"gaussian": (3.0, 3.0), "bilateral": (80.0, 13.0, 10.0), "normalization": "symmetric"},
}
NORMALIZATIONS = ("none", "symmetric")
METHODS = ("lattice", "exact")

_MOST_ITERATIONS = 2**31 - 1
_LARGEST_WEIGHT = 1e30  # times as many pixels as there may be, still a float32
_LEAST_BUCKET = 64
_TILE_ELEMENTS = 2**26  # pairs of pixels in a tile of the exact form


class ExactKernel(NamedTuple):
    """A Gaussian kernel between all pairs: places float32 [P, d] in standard deviations, bool [P]: no padding."""

    features: Array
    valid: Array


Kernels = tuple[Lattice | ExactKernel | None, Lattice | ExactKernel | None]  # Gaussian, bilateral
AnyArray = Array | np.ndarray
Deviation = float | Sequence[float]  # of both axes, or of x and y; of all colour channels, or of each


def dense_crf(
    unary: ArrayLike,
    image: ArrayLike,
    iterations: int = 10,
    gaussian: tuple[Deviation, float] = (3.0, 3.0),
    bilateral: tuple[Deviation, Deviation, float] = (20.0, 3.0, 5.0),
    normalization: str = "none",
    *,
    method: str = "lattice",
    capacity: int | None = None,
) -> Array:
    """Probabilities of all classes at all pixels by mean field in a fully connected CRF; by default as released.

    Differentiable in `unary`. Jitted inside. Within a jitted function the image is not known, nor the size of its
    lattice: then there is room for the largest possible one, which costs about twice the time, or for `capacity`.

    Args:
      unary: [H, W, K], or [N, H, W, K] for a batch, floating point (float32 inside): -log p, or anything that differs
        from it by a constant in each pixel; +inf for what cannot be. A pixel with nothing but +inf has no preference.
      image: uint8 RGB [H, W, 3] or [N, H, W, 3], 0..255. A batch is done one image after the other.
      iterations: of mean field, from 0.
      gaussian: standard deviation in pixels, one number or (x, y) as in pydensecrf; weight of the Potts model, one
        number from 0. A kernel with weight 0 is left out.
      bilateral: standard deviation in pixels, as in `gaussian`; in values of a colour channel, one number or
        (red, green, blue); weight.
      normalization: "none", sums of the kernel's values, as released; or "symmetric", the values divided by the
        roots of both pixels' sums (densecrf's NORMALIZE_SYMMETRIC).
      method: "lattice", densecrf's permutohedral lattices; their kernels have 0.4 to 0.9 of the mass of Gaussians. Or
        "exact": all pairs of pixels in tiles, in time quadratic in the pixels: for accelerators, or small images.
      capacity: number of vertices of the bilateral lattice, plus one, that there is room for; by default as many as
        there are. Where an image turns out to need more: InputError, or within a jitted function all results NaN.

    Returns:
      float32, the shape of `unary`; sums over classes are 1.

    Raises:
      InputError: for other shapes, dtypes or numbers, NaN or -inf in the unaries, standard deviations so small that
        the lattice has too many places.
    """
    unary, image = _as_array("unary", unary), _as_array("image", image)
    _check_arrays(unary, image)
    settings = {"gaussian": gaussian, "bilateral": bilateral, "method": method, "capacity": capacity}
    _check_settings(iterations, normalization, **settings)

    def of_one(unary: AnyArray, image: AnyArray) -> Array:
        kernels = crf_kernels(image, **settings)
        return mean_field(unary, kernels, (gaussian[1], bilateral[2]), iterations, normalization)

    if unary.ndim == 3:
        return of_one(unary, image)
    if isinstance(image, Tracer):
        return lax.map(lambda pair: of_one(*pair), (unary, image))
    return jnp.stack([of_one(*pair) for pair in zip(unary, image, strict=True)])


def crf_kernels(
    image: AnyArray,
    gaussian: tuple[Deviation, float],
    bilateral: tuple[Deviation, Deviation, float],
    method: str = "lattice",
    capacity: int | None = None,
) -> Kernels:
    """The Gaussian and the bilateral kernel of an image, uint8 [H, W, 3]; None for one with weight 0.

    The arguments are those of `dense_crf`, which checks the others; the kernels are for `mean_field`.

    Raises:
      InputError: for standard deviations so small, or an image so large, that the lattice has too many places.
    """
    height, width = image.shape[:2]
    size, padded = np.array([height, width], np.float32), _bucket(height * width)
    colors = _padded(image, padded)
    kernels = []
    for name, values, room, points in (
        ("gaussian", gaussian, None, np.zeros((padded, 0), np.uint8)),
        ("bilateral", bilateral, capacity, colors),
    ):
        deviations = _deviations(values)
        if not values[-1]:
            kernels.append(None)
            continue
        if not _fits(height, width, deviations, method):
            raise InputError(f"{name}={_shown(values)}: too small for {height}x{width} pixels; take larger deviations")
        make = _exact_kernel if method == "exact" else partial(_lattice, capacity=room)
        kernels.append(make(points, size, deviations.astype(np.float32)))
    return tuple(kernels)


def mean_field(
    unary: AnyArray,
    kernels: Sequence[Lattice | ExactKernel | None],
    weights: Sequence[float],
    iterations: int = 10,
    normalization: str = "none",
) -> Array:
    """Mean field for unaries [H, W, K] and the kernels of an image of that size; see `dense_crf`."""
    height, width, _ = unary.shape
    q = mean_field_rows(
        _padded(unary, padded_pixels(height, width)),
        kernels,
        weights,
        iterations=iterations,
        normalization=normalization,
    )
    xp = jnp if isinstance(q, Tracer) else np  # NumPy compiles nothing for an image of another size
    return jnp.asarray(xp.asarray(q)[: height * width].reshape(unary.shape))


def padded_pixels(height: int, width: int) -> int:
    """How many rows `mean_field_rows` wants of an image: one for each pixel, and some to fill up a size."""
    return _bucket(height * width)


def mean_field_rows(
    unary: AnyArray,
    kernels: Sequence[Lattice | ExactKernel | None],
    weights: Sequence[float],
    *,
    iterations: int = 10,
    normalization: str = "none",
) -> Array:
    """`mean_field` for unaries [P, K], a row of the image after the other, P = `padded_pixels`; and so the result.

    Compiles nothing for an image of another size and the same P. Rows beyond the image are left to themselves.
    """
    used = [(kernel, weight) for kernel, weight in zip(kernels, weights, strict=True) if kernel is not None]
    return _mean_field(
        unary,
        [kernel for kernel, _ in used],
        np.array([weight for _, weight in used], np.float32),
        iterations=iterations,
        symmetric=normalization == "symmetric",
    )


def _bucket(number: int) -> int:
    """The least size that is not smaller; there are four from each power of two to the next."""
    step = 2 ** max((max(number, _LEAST_BUCKET) - 1).bit_length() - 3, 4)
    return max(_LEAST_BUCKET, -(-number // step) * step)


def _lanes_on_cpu(classes: int) -> int:
    """Returns the width of a row of values: XLA for CPUs computes short rows number by number, from 32 in vectors."""
    return classes if classes <= 16 else max(32, -(-classes // 16) * 16)


def _padded(array: AnyArray, length: int) -> AnyArray:
    """[H, W, C] -> [length, C], zeros at the end."""
    xp = jnp if isinstance(array, Tracer) else np
    flat = xp.asarray(array).reshape(-1, array.shape[-1])
    return xp.pad(flat, [(0, length - len(flat)), (0, 0)])


def _places(colors: Array, size: Array, deviations: Array) -> tuple[Array, Array]:
    """float32 [P, 2 + channels] in standard deviations, and bool [P], True for pixels of the image.

    Args:
      colors: [P, 3], or [P, 0] for places in the image alone.
      size: float32 (height, width).
      deviations: float32 [2 + channels].
    """
    index, width = jnp.arange(len(colors), dtype=jnp.int32), size[1].astype(jnp.int32)
    places = jnp.stack([index % width, index // width], axis=1).astype(jnp.float32)
    valid = index < width * size[0].astype(jnp.int32)
    return jnp.concatenate([places, colors.astype(jnp.float32)], axis=1) / deviations, valid


@jax.jit
def _exact_kernel(colors: Array, size: Array, deviations: Array) -> ExactKernel:
    return ExactKernel(*_places(colors, size, deviations))


@jax.jit
def _entries(colors: Array, size: Array, deviations: Array) -> Entries:
    return find_entries(*_places(colors, size, deviations))


_find = jax.jit(find_vertices)
_build = jax.jit(build_lattice, static_argnames=("capacity", "rows"))


def _lattice(colors: Array | np.ndarray, size: np.ndarray, deviations: np.ndarray, capacity: int | None) -> Lattice:
    """A lattice with room for what there is; of an image that is not known, for whatever there might be."""
    most, most_rows = most_vertices(len(colors), 2 + colors.shape[1])
    if isinstance(colors, Tracer):
        found = _find(_entries(colors, size, deviations))
        lattice = _build(found, capacity=min(capacity or most, most), rows=most_rows)
        fits = found.counted[0] < lattice.neighbours.shape[2]
        return lattice._replace(weights=jnp.where(fits, lattice.weights, jnp.nan))
    entries = _evaluated(_entries, colors, size, deviations)
    on_host = _platform(entries) == "cpu"
    find, build = (permutohedral_host.find_vertices, permutohedral_host.build_lattice) if on_host else (_find, _build)
    found = _evaluated(find, entries)
    count, rows = (int(number) for number in np.asarray(found.counted))
    if capacity is not None and capacity <= count:
        raise InputError(f"capacity={capacity}: this image's lattice has {count} vertices; give more than that")
    capacity = min(capacity or _bucket(count + 1), most)
    lattice = _evaluated(build, found, capacity=capacity, rows=min(_bucket(rows), most_rows))
    return _evaluated(jax.device_put, lattice)


def _platform(entries: Entries) -> str:
    """Returns the platform of the device that computed these."""
    return next(iter(jax.tree.leaves(entries)[0].devices())).platform


def _evaluated(function: Callable[..., Any], *arguments: Any, **static: Any) -> Any:
    """What a jitted function makes of known values; also where JAX is tracing the caller."""
    result = function(*arguments, **static)
    if not isinstance(jax.tree.leaves(result)[0], Tracer):
        return result
    with jax.ensure_compile_time_eval():
        return function(*arguments, **static)


@partial(jax.jit, static_argnames=("iterations", "symmetric"))
def _mean_field(
    unary: Array, kernels: list[Lattice | ExactKernel], weights: Array, *, iterations: int, symmetric: bool
) -> Array:
    """[P, K] -> [P, K]; programs for CPUs add classes that cannot be, for longer rows."""
    classes, unary = unary.shape[1], unary.astype(jnp.float32)
    lowest = lax.stop_gradient(unary.min(axis=1, keepdims=True))
    unary = jnp.where(jnp.isinf(lowest), 0, unary - jnp.where(jnp.isinf(lowest), 0, lowest))
    updates = partial(_updates, iterations=iterations, symmetric=symmetric)
    lanes = _lanes_on_cpu(classes)
    if lanes == classes:
        return updates(unary, kernels, weights)

    def in_lanes(unary: Array, kernels: list[Lattice | ExactKernel], weights: Array) -> Array:
        impossible = [(0, 0), (0, lanes - classes)]
        return updates(jnp.pad(unary, impossible, constant_values=jnp.inf), kernels, weights)[:, :classes]

    return lax.platform_dependent(unary, kernels, weights, cpu=in_lanes, default=updates)


def _updates(
    unary: Array, kernels: list[Lattice | ExactKernel], weights: Array, *, iterations: int, symmetric: bool
) -> Array:
    """The iterations of mean field, [P, K] -> [P, K]."""
    filters = [partial(lattice_filter if isinstance(kernel, Lattice) else _exact_filter, kernel) for kernel in kernels]
    if symmetric:
        filters = [_symmetric(kernel, len(unary)) for kernel in filters]

    zeros = jnp.isnan(unary[:1, 0]).astype(jnp.int32).repeat(2)

    def update(_: Array, q: Array) -> Array:
        q = _computed_once(q, zeros)
        messages = [weights[i] * kernel(q) for i, kernel in enumerate(filters)]
        return jax.nn.softmax(_computed_once(sum(messages) - unary, zeros))

    return lax.fori_loop(0, iterations, update, jax.nn.softmax(-unary))


def _computed_once(array: Array, zeros: Array) -> Array:
    """The array, and in a gradient its gradient (other than `convolution.materialised`), each in a loop of its own.

    XLA for CPUs would rather add up slices of lattices together with the softmax that follows, in a fusion that takes
    no gathers: each of them was then written out before. int32 [2] `zeros` must not be known while compiling.
    """

    def keep(zeros: Array, array: Array) -> Array:
        return array.at[zeros].add(0, mode="promise_in_bounds")

    return linear_call(keep, keep, zeros, array)


def _symmetric(kernel: Callable[[Array], Array], pixels: int) -> Callable[[Array], Array]:
    norm = lax.rsqrt(kernel(jnp.ones((pixels, 1), jnp.float32)) + 1e-20)
    return lambda values: norm * kernel(norm * values)


def _exact_filter(kernel: ExactKernel, values: Array) -> Array:
    """Sums of values [P, K] weighted by exp(-|distance|^2 / 2). The kernel is symmetric: it is its own transpose."""
    return linear_call(_tiles, _tiles, kernel, values)


def _tiles(kernel: ExactKernel, values: Array) -> Array:
    pixels, d = kernel.features.shape
    tile = _LEAST_BUCKET // 4
    while tile * 2 * pixels <= _TILE_ELEMENTS and pixels % (tile * 2) == 0:
        tile *= 2
    masked = jnp.where(kernel.valid[:, None], values, 0)

    def rows(own: Array) -> Array:
        # Differences first: with |a|^2 + |b|^2 - 2ab float32 loses three digits of the kernel.
        squares = sum((own[:, i, None] - kernel.features[:, i]) ** 2 for i in range(d))
        return jnp.matmul(jnp.exp(-0.5 * squares), masked, precision=lax.Precision.HIGHEST)

    return lax.map(rows, kernel.features.reshape(-1, tile, d)).reshape(values.shape)


def _as_array(name: str, value: ArrayLike) -> AnyArray:
    try:
        return value if isinstance(value, Array) else np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name}: expected an array, got rows of different lengths") from error


def _check_arrays(unary: AnyArray, image: AnyArray) -> None:
    if unary.ndim not in (3, 4) or not jnp.issubdtype(unary.dtype, jnp.floating) or 0 in unary.shape:
        raise InputError(
            f"unary: expected floats [H, W, K] or [N, H, W, K], got {unary.dtype} {list(unary.shape)}; "
            "[K, H * W] of pydensecrf becomes that by reshape(K, H, W).transpose(1, 2, 0)"
        )
    if image.shape != (*unary.shape[:-1], 3) or image.dtype != np.uint8:
        expected = [*unary.shape[:-1], 3]
        first = image.shape[:-1] == (*unary.shape[:-3], *unary.shape[-2:])
        advice = "; the unaries have their classes first: move them to the end" if first else ""
        raise InputError(
            f"image: expected uint8 RGB {expected}, as the unaries, got {image.dtype} {list(image.shape)}{advice}"
        )
    if not isinstance(unary, Tracer):
        with np.errstate(over="ignore"):  # float64 beyond float32 is infinite
            lowest = np.asarray(unary, np.float32).min()
        if np.isnan(lowest) or lowest == -np.inf:
            raise InputError(f"unary: {lowest} is among the values; expected -log p, which may be inf but never that")


def _check_settings(
    iterations: int,
    normalization: str,
    *,
    gaussian: tuple[Deviation, float],
    bilateral: tuple[Deviation, Deviation, float],
    method: str,
    capacity: int | None,
) -> None:
    for name, value, names in (("normalization", normalization, NORMALIZATIONS), ("method", method, METHODS)):
        if not isinstance(value, str) or value not in names:
            raise InputError(f"{name}={_shown(value)}: expected one of {', '.join(names)}")
    for name, value, least in (("iterations", iterations, 0), ("capacity", 1 if capacity is None else capacity, 1)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not least <= value <= _MOST_ITERATIONS:
            raise InputError(f"{name}={_shown(value)}: expected a whole number from {least} to {_MOST_ITERATIONS}")
    for name, values, lengths in (("gaussian", gaussian, (2,)), ("bilateral", bilateral, (2, 3))):
        if not _is_kernel(values, lengths):
            parts = "".join(f"standard deviation in {part}, " for part in ("pixels", "color values")[: len(lengths)])
            raise InputError(
                f"{name}={_shown(values)}: expected ({parts}weight), deviations positive and the weight one number "
                "from 0; a weight of 0 leaves the kernel out"
            )


def _shown(value: Any) -> str:
    """What a caller gave, on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_kernel(values: Any, lengths: Sequence[int]) -> bool:
    """Whether these are positive standard deviations, each one number or as many as `lengths` says, and a weight."""
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


def _deviations(values: Sequence[Any]) -> np.ndarray:
    """float64 [2], of x and y; and of the colour channels, [5] in all, where there is a deviation for them."""
    parts = zip(values[:-1], (2, 3), strict=False)
    return np.concatenate([np.broadcast_to(np.float64(value), length) for value, length in parts])


def _fits(height: int, width: int, deviations: np.ndarray, method: str) -> bool:
    """Whether places in standard deviations can be told apart by the lattice, or are numbers at all."""
    extents = np.array([width, height, 255, 255, 255], np.float64)[: len(deviations)] / deviations
    return (
        bool((extents < 1e15).all()) if method == "exact" else fits_lattice(extents.tolist(), _bucket(height * width))
    )
