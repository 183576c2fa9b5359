"""The proposal batch: windows of an image in, their score maps folded into one canvas over the image.

All of it runs on the device, in programs of fixed shapes: `crop_windows` cuts a batch of boxes out of the image,
`network_scores` runs the network on them, `fold_scores` puts their score maps back to their places and keeps the
maximum (or the sum) at every pixel (paper, section 4.3, equations 1 and 2); `Scorer.fold` calls them in this order. An
image and its canvas are padded to one of a few sizes (`devices.padded_size`); the network's program does not depend on
them. Memory does not grow with the number of boxes, because the canvas is all that one batch leaves to the next, and it
is donated. With several devices (`mesh`) the arrays of all of them lie one after the other along the first axis
(`inference.devices`).

Pixel centres are at half-integers everywhere: in images, crops, score maps and boxes (x0, y0, x1, y1 in pixels, x1 and
y1 exclusive).
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple, cast

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh

from deconvnet_jax.inference.devices import AXIS, PARTS, WHOLE, device_count, sharding_of, spread
from deconvnet_jax.models import Variables, compiler_options
from deconvnet_jax.ops import MEAN_BGR

AGGREGATIONS = ("max", "mean")
_FILTER_TAPS = 6  # of a score map that shrinks to half its size, the most in `released` (112 pixels and more)
_ROWS = 64  # at a time: intermediate results of a large photograph would take as much memory again


class Canvas(NamedTuple):
    """The scores of the windows so far at every pixel.

    Attributes:
      scores: float32 [Hp, Wp, K], their greatest scores ("max") or the sum of them ("mean").
      shown: float32 [Hp, Wp], how many windows show the pixel.
    """

    scores: Array
    shown: Array


def empty_canvas(
    height: int, width: int, num_classes: int, aggregation: str, clip: bool = False, mesh: Mesh | None = None
) -> Canvas:
    """Returns a canvas without windows, on every device.

    Args:
      height: padded (`padded_size`).
      width: padded.
      num_classes: K.
      aggregation: "max" or "mean".
      clip: begin the maximum with 0, so that negative scores do not count (the released code).
      mesh: of several devices.
    """
    first = -jnp.inf if aggregation == "max" and not clip else 0.0
    height, where = height * device_count(mesh), sharding_of(mesh)
    scores = jnp.full((height, width, num_classes), first, jnp.float32, device=where)
    return Canvas(scores, jnp.zeros((height, width), jnp.float32, device=where))


@partial(jax.jit, static_argnames=("size", "outside", "antialias"))
def crop_windows(
    image: Array, extent: Array, boxes: Array, size: int, outside: str = "black", antialias: bool = False
) -> Array:
    """Cuts boxes out of an image, resizes them to squares (bilinear) and normalises them for the network.

    Args:
      image: uint8 RGB [Hp, Wp, 3]; what is beyond `extent` is never looked at.
      extent: int32 [2], height and width of the image itself.
      boxes: float32 [n, 4], any position and size; may reach beyond the image.
      size: side of the squares, S.
      outside: what is beyond the image: "black" before the mean is subtracted (DeconvNet), or the "mean" (FCN-8s).
      antialias: filter what shrinks, and mix the image's border with what is beyond, as MATLAB's imresize does with a
        padded crop (the released code, with boxes of whole pixels). Otherwise as in training: `data.crop_window`.

    Returns:
      float32 BGR [n, S, S, 3], 0..255 minus mean.
    """
    chex.assert_shape([image, extent, boxes], [(None, None, 3), (2,), (None, 4)])
    chex.assert_type([image, boxes], [jnp.uint8, jnp.float32])
    weigh = _filter_weights if antialias else _bilinear_weights
    rows, in_rows = weigh(boxes[:, 1], boxes[:, 3], size, extent[0], image.shape[0])
    columns, in_columns = weigh(boxes[:, 0], boxes[:, 2], size, extent[1], image.shape[1])
    precise = partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    crops = precise("nsh,hwc->nswc", rows, image[..., ::-1].astype(jnp.float32))
    crops = precise("ntw,nswc->nstc", columns, crops) - jnp.asarray(MEAN_BGR, jnp.float32)
    if outside == "mean":
        crops = jnp.where((in_rows[:, :, None] & in_columns[:, None, :])[..., None], crops, 0)
    return crops


def _bilinear_weights(start: Array, stop: Array, size: int, length: Array, padded: int) -> tuple[Array, Array]:
    """How much each of `padded` pixels counts for each of `size` samples, [n, size, padded]; which are in the image."""
    position = start[:, None] + (jnp.arange(size) + 0.5) * ((stop - start) / size)[:, None]
    inside = (position >= 0) & (position < length)
    centre = jnp.clip(position - 0.5, 0, length - 1)  # the image's own border is not mixed with black
    weights = jnp.maximum(1 - jnp.abs(jnp.arange(padded) - centre[..., None]), 0)
    return weights * inside[..., None], inside


def _filter_weights(start: Array, stop: Array, size: int, length: Array, padded: int) -> tuple[Array, Array]:
    """As `_bilinear_weights`, of a triangle as wide as a sample, mirrored at the borders of the box."""
    scale = ((stop - start) / size)[:, None]
    position = start[:, None] + (jnp.arange(size) + 0.5) * scale
    centre, reach = (position - 0.5)[..., None], jnp.maximum(scale, 1)[..., None]
    begin, end = start[:, None, None], stop[:, None, None]

    def triangle(pixel: Array) -> Array:
        return jnp.maximum(1 - jnp.abs(pixel - centre) / reach, 0)

    pixel = jnp.arange(padded, dtype=jnp.float32)
    weights = triangle(pixel) + triangle(2 * begin - 1 - pixel) + triangle(2 * end - 1 - pixel)
    weights *= (pixel >= begin) & (pixel < end) & (pixel < length)
    around = jnp.floor(centre) + jnp.arange(-padded // 2, padded // 2)  # all pixels, also those beyond the image
    weights /= jnp.sum(triangle(around), axis=-1, keepdims=True)
    return weights, (position >= 0) & (position < length)


@lru_cache(maxsize=8)
def network_scores(net: nn.Module, flip: bool = False, mesh: Mesh | None = None) -> Callable[[Variables, Array], Array]:
    """Returns the jitted network, shared by all who ask for an equal one: new variables compile nothing.

    Args:
      net: a module with `apply(variables, images, train=False) -> logits`.
      flip: average with the mirrored scores of the mirrored windows.
      mesh: of several devices; the variables are on all of them.

    Returns:
      A function of variables and normalised windows [n, S, S, 3] to scores float32 [n, S, S, K].
    """
    network, platform = partial(scores_of, net, flip), jax.default_backend()
    if mesh is not None:
        network, platform = spread(network, mesh, inputs=(WHOLE, PARTS)), mesh.devices.flat[0].platform
    return jax.jit(network, compiler_options=compiler_options(platform))


def scores_of(net: nn.Module, flip: bool, variables: Variables, windows: Array) -> Array:
    """As the function that `network_scores` returns, not jitted."""
    scores = logits_of(net, variables, windows)
    if flip:
        scores = (scores + logits_of(net, variables, windows[:, :, ::-1])[:, :, ::-1]) / 2
    return scores.astype(jnp.float32)


def logits_of(net: nn.Module, variables: Variables, windows: Array) -> Array:
    """Returns what a network predicts; Flax's type of `apply` knows neither our variables nor what it returns."""
    return cast(Array, net.apply(variables, windows, train=False))


@partial(jax.jit, static_argnames=("aggregation", "antialias"), donate_argnums=0)
def fold_scores(
    canvas: Canvas, scores: Array, boxes: Array, valid: Array, aggregation: str = "max", antialias: bool = False
) -> Canvas:
    """Resizes score maps to their boxes (bilinear) and folds them into the canvas; outside a box it stays as it is.

    Args:
      canvas: donated: not usable afterwards.
      scores: float32 [n, S, S, K], of the windows.
      boxes: float32 [n, 4].
      valid: bool [n]; False for boxes that only fill the batch.
      aggregation: "max" or "mean".
      antialias: filter what shrinks, as MATLAB's imresize does.

    Returns:
      The canvas with these windows.
    """
    chex.assert_rank([canvas.scores, scores, boxes, valid], [3, 4, 2, 1])
    height, width = canvas.shown.shape
    size = scores.shape[1]

    def fold(canvas: Canvas, window: tuple[Array, Array, Array]) -> tuple[Canvas, None]:
        found, (x0, y0, x1, y1), is_valid = window
        in_image = _sample(found, 0, _taps(y0, y1, size, height, antialias))
        in_image = _sample(in_image, 1, _taps(x0, x1, size, width, antialias))
        shown = (_covered(y0, y1, height)[:, None] & _covered(x0, x1, width)) & is_valid
        if aggregation == "max":
            folded = jnp.where(shown[..., None], jnp.maximum(canvas.scores, in_image), canvas.scores)
        else:
            folded = canvas.scores + jnp.where(shown[..., None], in_image, 0)
        return Canvas(folded, canvas.shown + shown), None

    return lax.scan(fold, canvas, (scores, boxes, valid))[0]


def _covered(start: Array, stop: Array, length: int) -> Array:
    centres = jnp.arange(length) + 0.5
    return (centres >= start) & (centres < stop)


def _taps(start: Array, stop: Array, size: int, length: int, antialias: bool) -> list[tuple[Array, Array]]:
    """For each of `length` pixels, the samples of a box's `size` that it is made of: pairs of index and weight."""
    shrink = size / (stop - start)
    position = (jnp.arange(length) + 0.5 - start) * shrink - 0.5
    if not antialias:
        position = jnp.clip(position, 0, size - 1)
        before = jnp.floor(position)
        share = position - before
        before = before.astype(jnp.int32)
        return [(before, 1 - share), (jnp.minimum(before + 1, size - 1), share)]
    first = jnp.floor(position) - (_FILTER_TAPS // 2 - 1)
    indices = [first + i for i in range(_FILTER_TAPS)]
    weights = [jnp.maximum(1 - jnp.abs(index - position) / jnp.maximum(shrink, 1), 0) for index in indices]
    mirrored = [jnp.where(i < 0, -1 - i, jnp.where(i >= size, 2 * size - 1 - i, i)) for i in indices]
    total = sum(weights)
    return [
        (jnp.clip(index, 0, size - 1).astype(jnp.int32), weight / total)
        for index, weight in zip(mirrored, weights, strict=True)
    ]


def _sample(array: Array, axis: int, taps: list[tuple[Array, Array]]) -> Array:
    shape = [1] * array.ndim
    shape[axis] = -1
    parts = (jnp.take(array, index, axis, mode="clip") * weight.reshape(shape) for index, weight in taps)
    return cast(Array, sum(parts))  # never of none


@partial(jax.jit, static_argnames="aggregation")
def canvas_scores(canvas: Canvas, aggregation: str) -> Array:
    """Returns the scores of every pixel, float32 [Hp, Wp, K]; 0 for all classes where no window was."""
    scores = canvas.scores
    if aggregation == "mean":
        scores = scores / jnp.maximum(canvas.shown, 1)[..., None]
    return jnp.where((canvas.shown > 0)[..., None], scores, 0)


def greatest(canvas: Canvas) -> Canvas:
    """Returns the maximum and the number of all devices' windows; of "max" alone. Runs within `on_each`."""
    return Canvas(lax.pmax(canvas.scores, AXIS), lax.psum(canvas.shown, AXIS))


def sample_scores(scores: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the scores of a window at every pixel of the image, interpolated bilinearly, on the host.

    Pixel centres are at half-integers in both. Beyond the centres of the map's outermost pixels their values continue.

    Args:
      scores: float32 [h, w, K], the map of what the box shows.
      box: [4], x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive; any position and size.
      height: of the image.
      width: of the image.

    Returns:
      float32 [height, width, K].
    """
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    ys = ((np.arange(height) + 0.5) - y0) * scores.shape[0] / (y1 - y0) - 0.5
    xs = ((np.arange(width) + 0.5) - x0) * scores.shape[1] / (x1 - x0) - 0.5
    result = np.empty((height, width, scores.shape[2]), scores.dtype)
    for start in range(0, height, _ROWS):
        block = slice(start, start + _ROWS)
        result[block] = _interpolate(_interpolate(scores, 0, ys[block]), 1, xs)
    return result


def _interpolate(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """Values at fractional positions along one axis."""
    last = array.shape[axis] - 1
    positions = np.clip(positions, 0, last)
    before = np.floor(positions).astype(np.int64)
    shape = [1] * array.ndim
    shape[axis] = len(positions)
    share = (positions - before).astype(array.dtype).reshape(shape)
    low = np.take(array, before, axis)
    result = np.take(array, np.minimum(before + 1, last), axis)
    result -= low
    result *= share
    result += low
    return result
