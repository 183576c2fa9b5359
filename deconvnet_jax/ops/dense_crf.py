"""The fully connected CRF: refines class probabilities so that labels follow the image's colours and edges.

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011,
computed as in their densecrf. The released code of DeconvNet runs densecrf on its scores.

Every pixel is connected with every other one. The "gaussian" kernel weighs a pair by its distance in the image; the
"bilateral" kernel also by its difference in colour. The model is a Potts model, solved by mean field: Q starts as
softmax(-U), and each iteration computes Q = softmax(-U + sum over kernels of weight * K Q). A pixel counts among its
own neighbours.

`dense_crf` pads pixels and lattices to one of a few sizes, so that one compiled program serves many images. The number
of vertices of a lattice is known only after a first program has counted them. For several unaries on one image, call
`crf_kernels` once and `mean_field` for each.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops import permutohedral_host
from deconvnet_jax.ops.crf_checks import AnyArray, Deviation, as_array, check_maps, check_settings, shown
from deconvnet_jax.ops.linear import linear_call
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

# Keyword arguments for `dense_crf`. "released": the original's run_demo.m, with the defaults of its densecrf wrapper.
# "usual": the README example of densecrf's Python wrapper (lucasb-eyer/pydensecrf), with that wrapper's default
# normalisation. DeepLab-style post-processing commonly uses these numbers.
CRF_PRESETS: dict[str, dict[str, Any]] = {
    "released": {"gaussian": (3.0, 3.0), "bilateral": (20.0, 3.0, 5.0), "normalization": "none"},
    "usual": {"gaussian": (3.0, 3.0), "bilateral": (80.0, 13.0, 10.0), "normalization": "symmetric"},
}

_LEAST_BUCKET = 64
_TILE_ELEMENTS = 2**26  # Pairs of pixels that the exact method processes at a time.


class ExactKernel(NamedTuple):
    """Gaussian kernel between all pairs of P pixels, P including padding.

    Attributes:
      features: float32 [P, d], place and colour of each pixel in standard deviations.
      valid: bool [P], True for pixels of the image, False for padding.
    """

    features: Array
    valid: Array


Kernels = tuple[Lattice | ExactKernel | None, Lattice | ExactKernel | None]  # The Gaussian and the bilateral kernel.


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
    """Returns the class probabilities of all pixels after mean-field inference in a fully connected CRF.

    The defaults are those of the released DeconvNet code; `CRF_PRESETS` holds two common settings. Differentiable in
    `unary`. The function is already jitted. Inside another jitted function, and under vmap, the image and the size of
    its lattice are not known. There is then room for the largest possible lattice, which takes about twice the time, or
    for `capacity`. vmap holds the lattices of all images in memory at once.

    Args:
      unary: -log p of every class, [H, W, K] or a batch [N, H, W, K], floating point, computed as float32. A constant
        added to all classes of a pixel changes nothing. +inf marks an impossible class. A pixel whose classes are all
        +inf gets a uniform unary.
      image: uint8 RGB [H, W, 3] or [N, H, W, 3], 0..255. The images of a batch are processed one at a time.
      iterations: number of mean-field iterations; 0 returns softmax(-unary).
      gaussian: (standard deviation, weight). The deviation is in pixels, one number or (x, y) as in pydensecrf. The
        weight of the Potts model is one number, 0 or higher; 0 leaves the kernel out.
      bilateral: (standard deviation in pixels, standard deviation in colour values, weight). The first is as in
        `gaussian`, the second is one number or (red, green, blue), the weight is as in `gaussian`.
      normalization: "none" sums the kernel's values, as released. "symmetric" divides each value by the square roots of
        the sums of both its pixels (densecrf's NORMALIZE_SYMMETRIC).
      method: "lattice" filters on densecrf's permutohedral lattices, whose kernels have 0.4 to 0.9 of the mass of
        Gaussians. "exact" visits all pairs of pixels in tiles, in time quadratic in the number of pixels; use it on
        accelerators or for small images.
      capacity: room for vertices of the bilateral lattice; it must be at least the number of vertices plus one. None
        means as much as the image needs. If an image needs more, the function raises InputError, or returns NaN
        everywhere inside a jitted function and under vmap.

    Returns:
      float32 in the shape of `unary`; the probabilities of a pixel sum to 1.

    Raises:
      InputError: if shapes, dtypes or settings are wrong, the unaries contain NaN or -inf, the standard deviations are
        too small for the lattice, or `capacity` is too small.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.ops import dense_crf
      >>> labels = np.zeros((32, 32), int)
      >>> labels[:, 16:] = 1
      >>> image = np.uint8(255) * labels[..., None].astype(np.uint8).repeat(3, axis=2)
      >>> labels[8, 8] = 1  # one wrong pixel
      >>> unary = -np.log(np.where(labels[..., None] == np.arange(2), 0.7, 0.3))
      >>> refined = dense_crf(unary, image)
      >>> refined.shape
      (32, 32, 2)
      >>> int(refined[8, 8].argmax())
      0
    """
    unary, image = as_array("unary", unary), as_array("image", image)
    check_maps(unary, image)
    settings = {"gaussian": gaussian, "bilateral": bilateral, "method": method, "capacity": capacity}
    check_settings(iterations, normalization, **settings)

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
    """Returns the Gaussian and the bilateral kernel of an image, for `mean_field`.

    Only the standard deviations are checked here; `dense_crf` checks the other arguments.

    Args:
      image: uint8 RGB [H, W, 3], 0..255.
      gaussian: (standard deviation, weight), as in `dense_crf`. A weight of 0 gives None for this kernel.
      bilateral: (standard deviation in pixels, in colour values, weight), as in `dense_crf`.
      method: "lattice" or "exact", as in `dense_crf`.
      capacity: room for vertices of the bilateral lattice, as in `dense_crf`.

    Returns:
      The Gaussian and the bilateral kernel; None in place of a kernel whose weight is 0.

    Raises:
      InputError: if the standard deviations are too small or the image too large for the lattice, or `capacity` is too
        small.
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
            raise InputError(f"{name}={shown(values)}: too small for {height}x{width} pixels; use larger deviations")
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
    """Returns the class probabilities of one image after mean-field inference, for kernels that are already built.

    Args:
      unary: -log p, [H, W, K], as in `dense_crf`; not checked.
      kernels: result of `crf_kernels` for an image of H x W pixels.
      weights: one weight per kernel, in the same order.
      iterations: number of mean-field iterations.
      normalization: "none" or "symmetric", as in `dense_crf`.

    Returns:
      float32 [H, W, K]; the probabilities of a pixel sum to 1.
    """
    height, width, _ = unary.shape
    q = mean_field_rows(
        _padded(unary, padded_pixels(height, width)),
        kernels,
        weights,
        iterations=iterations,
        normalization=normalization,
    )
    xp = jnp if isinstance(q, Tracer) else np  # NumPy slices without compiling for every image size.
    return jnp.asarray(xp.asarray(q)[: height * width].reshape(unary.shape))


def padded_pixels(height: int, width: int) -> int:
    """Returns the number of rows P that `mean_field_rows` expects for an image, at least one per pixel.

    Args:
      height: height of the image in pixels.
      width: width of the image in pixels.

    Returns:
      The smallest supported size that is not below height * width.
    """
    return _bucket(height * width)


def mean_field_rows(
    unary: AnyArray,
    kernels: Sequence[Lattice | ExactKernel | None],
    weights: Sequence[float],
    *,
    iterations: int = 10,
    normalization: str = "none",
) -> Array:
    """Returns the same as `mean_field`, for unaries and results with one row per pixel.

    Images of different sizes with the same P share one compiled program. Rows beyond the image do not affect the image.

    Args:
      unary: -log p, [P, K]: the image's pixels row by row, then padding up to P = `padded_pixels`.
      kernels: result of `crf_kernels` for the image.
      weights: one weight per kernel, in the same order.
      iterations: number of mean-field iterations.
      normalization: "none" or "symmetric", as in `dense_crf`.

    Returns:
      float32 [P, K]; rows beyond the image have no meaning.
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
    """Returns the smallest size that is not below `number`; there are four sizes from each power of two to the next."""
    step = 2 ** max((max(number, _LEAST_BUCKET) - 1).bit_length() - 3, 4)
    return max(_LEAST_BUCKET, -(-number // step) * step)


def _lanes_on_cpu(classes: int) -> int:
    """Returns the number of columns to compute with on CPUs, where XLA vectorises only rows of 32 numbers or more."""
    return classes if classes <= 16 else max(32, -(-classes // 16) * 16)


def _padded(array: AnyArray, length: int) -> AnyArray:
    """Returns [H, W, C] as [length, C], with zeros at the end."""
    xp = jnp if isinstance(array, Tracer) else np
    flat = xp.asarray(array).reshape(-1, array.shape[-1])
    return xp.pad(flat, [(0, length - len(flat)), (0, 0)])


def _places(colors: Array, size: Array, deviations: Array) -> tuple[Array, Array]:
    """Returns the features of pixels, float32 [P, 2 + channels], and whether they lie in the image, bool [P].

    Features are in standard deviations.

    Args:
      colors: [P, 3], or [P, 0] for a kernel of the place alone.
      size: float32 (height, width) of the image in pixels.
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
    """Returns the lattice of an image, with room for its vertices.

    If the image is not known (a tracer), there is room for the largest possible lattice, or for `capacity`.
    """
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
        raise InputError(
            f"capacity={capacity}: this image's lattice has {count} vertices; expected at least {count + 1}"
        )
    capacity = min(capacity or _bucket(count + 1), most)
    lattice = _evaluated(build, found, capacity=capacity, rows=min(_bucket(rows), most_rows))
    return _evaluated(jax.device_put, lattice)


def _platform(entries: Entries) -> str:
    """Returns the platform of the device that computed the entries."""
    return next(iter(jax.tree.leaves(entries)[0].devices())).platform


def _evaluated(function: Callable[..., Any], *arguments: Any, **static: Any) -> Any:
    """Returns the values that a jitted function computes from known arguments, even while JAX traces the caller."""
    result = function(*arguments, **static)
    if not isinstance(jax.tree.leaves(result)[0], Tracer):
        return result
    with jax.ensure_compile_time_eval():
        return function(*arguments, **static)


@partial(jax.jit, static_argnames=("iterations", "symmetric"))
def _mean_field(
    unary: Array, kernels: list[Lattice | ExactKernel], weights: Array, *, iterations: int, symmetric: bool
) -> Array:
    """Runs mean field on rows, [P, K] -> [P, K]; CPU programs append impossible classes for longer rows."""
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
    """Runs the mean-field iterations, [P, K] -> [P, K]."""
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
    """Returns the array, and makes CPU programs compute it and its gradient separately from what reads them.

    XLA for CPUs would otherwise fuse the sum over lattice slices with the softmax that follows. That fusion takes no
    gathers, so each of them would be written to memory first. `zeros`, int32 [2], must not be known at compile time.
    Unlike `convolution.materialised`, this also covers the gradient.
    """

    def keep(zeros: Array, array: Array) -> Array:
        return array.at[zeros].add(0, mode="promise_in_bounds")

    return linear_call(keep, keep, zeros, array)


def _symmetric(kernel: Callable[[Array], Array], pixels: int) -> Callable[[Array], Array]:
    norm = lax.rsqrt(kernel(jnp.ones((pixels, 1), jnp.float32)) + 1e-20)
    return lambda values: norm * kernel(norm * values)


def _exact_filter(kernel: ExactKernel, values: Array) -> Array:
    """Returns sums of values [P, K] weighted by exp(-|distance|^2 / 2); the kernel is its own transpose."""
    return linear_call(_tiles, _tiles, kernel, values)


def _tiles(kernel: ExactKernel, values: Array) -> Array:
    pixels, d = kernel.features.shape
    tile = _LEAST_BUCKET // 4
    while tile * 2 * pixels <= _TILE_ELEMENTS and pixels % (tile * 2) == 0:
        tile *= 2
    masked = jnp.where(kernel.valid[:, None], values, 0)

    def rows(own: Array) -> Array:
        # Subtract before squaring: |a|^2 + |b|^2 - 2ab would lose three digits of the kernel in float32.
        squares = sum((own[:, i, None] - kernel.features[:, i]) ** 2 for i in range(d))
        return jnp.matmul(jnp.exp(-0.5 * squares), masked, precision=lax.Precision.HIGHEST)

    return lax.map(rows, kernel.features.reshape(-1, tile, d)).reshape(values.shape)


def _deviations(values: Sequence[Any]) -> np.ndarray:
    """Returns the standard deviations of x and y, float64 [2]; [5] if `values` also has those of the colours."""
    parts = zip(values[:-1], (2, 3), strict=False)
    return np.concatenate([np.broadcast_to(np.float64(value), length) for value, length in parts])


def _fits(height: int, width: int, deviations: np.ndarray, method: str) -> bool:
    """Returns whether the features fit the lattice or, for the exact method, stay finite in float32."""
    extents = np.array([width, height, 255, 255, 255], np.float64)[: len(deviations)] / deviations
    return (
        bool((extents < 1e15).all()) if method == "exact" else fits_lattice(extents.tolist(), _bucket(height * width))
    )
