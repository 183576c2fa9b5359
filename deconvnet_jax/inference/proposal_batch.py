"""Computes a batch of windows of an image, and folds their score maps into one canvas over the image.

Everything runs on the device, in three programs that `Scorer.fold` calls in this order:

1. `crop_windows` cuts a batch of boxes out of the image: [n, S, S, 3];
2. `network_scores` runs the network on the crops: [n, S, S, K];
3. `fold_scores` resizes the score maps to their boxes and keeps the maximum (or the sum) at every pixel of the canvas,
   [Hp, Wp, K] (paper, section 5.1, equations 1 and 2).

An image and its canvas are padded to one of a few sizes (`devices.padded_size`), so that few programs are compiled. The
network's program does not depend on that size. Memory does not grow with the number of boxes: only the canvas passes
from one batch to the next, and it is donated. With several devices (`mesh`), the arrays are spread
(`inference.devices`).

Pixel centres are at half-integers in images, crops, score maps and boxes. Boxes are x0, y0, x1, y1 in pixels, x1 and y1
exclusive.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh

from deconvnet_jax.array_checks import check_arrays, host_array
from deconvnet_jax.inference.devices import AXIS, PARTS, WHOLE, device_count, sharding_of, spread
from deconvnet_jax.models import Variables, compiler_options
from deconvnet_jax.ops import MEAN_BGR
from deconvnet_jax.short_repr import short_repr

AGGREGATIONS = ("max", "mean")
_FILTER_TAPS = 6  # enough for score maps that shrink to half: windows of `released` have 112 pixels or more
_ROWS = 64  # rows that the host resizes at once, which limits the memory for intermediate results


class Canvas(NamedTuple):
    """Scores at every pixel of a padded image, folded over the windows so far.

    Attributes:
      scores: float32 [Hp, Wp, K], the maximum ("max") or the sum ("mean") over the windows that show the pixel.
      shown: float32 [Hp, Wp], the number of windows that show the pixel.
    """

    scores: Array
    shown: Array

    __repr__ = short_repr


def empty_canvas(
    height: int, width: int, num_classes: int, aggregation: str, clip: bool = False, mesh: Mesh | None = None
) -> Canvas:
    """Returns a canvas without windows, on every device.

    Args:
      height: the padded height of the image (`padded_size`).
      width: the padded width.
      num_classes: K.
      aggregation: "max" or "mean".
      clip: True starts the maximum with 0 instead of -inf, so that negative scores do not count (released code).
      mesh: the devices; None for one device.

    Returns:
      The canvas; with several devices, spread arrays.
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
      image: uint8 RGB [Hp, Wp, 3], padded; pixels beyond `extent` have no effect.
      extent: int32 [2], the height and width of the image without padding.
      boxes: float32 [n, 4], with any position and size; may extend beyond the image.
      size: the side S of the squares, in pixels.
      outside: what a crop shows beyond the image: "black", before the mean is subtracted (DeconvNet), or the "mean"
        (FCN-8s).
      antialias: True filters crops that shrink, and mixes the image's border with what is beyond, as MATLAB's imresize
        does with a padded crop (released code, with boxes of whole pixels). False resizes as training does
        (`data.crop_window`).

    Returns:
      float32 BGR [n, S, S, 3], 0..255 minus the mean.

    Example:
      >>> image = jnp.full((256, 256, 3), 200, jnp.uint8)
      >>> boxes = jnp.array([[0, 0, 50, 50], [-10, 20, 30, 60]], jnp.float32)
      >>> crop_windows(image, jnp.array([80, 100]), boxes, size=32).shape
      (2, 32, 32, 3)
    """
    check_arrays(
        "crop_windows",
        image=(image, "H W 3", "uint8"),
        extent=(extent, "2", "integer"),
        boxes=(boxes, "n 4", "float"),
    )
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
    """Returns the weight of each pixel in each sample, [n, size, padded], and which samples are in the image."""
    position = start[:, None] + (jnp.arange(size) + 0.5) * ((stop - start) / size)[:, None]
    inside = (position >= 0) & (position < length)
    centre = jnp.clip(position - 0.5, 0, length - 1)  # so that the image's border is not mixed with black
    weights = jnp.maximum(1 - jnp.abs(jnp.arange(padded) - centre[..., None]), 0)
    return weights * inside[..., None], inside


def _filter_weights(start: Array, stop: Array, size: int, length: Array, padded: int) -> tuple[Array, Array]:
    """Like `_bilinear_weights`, with a triangle filter as wide as a sample, mirrored at the borders of the box."""
    scale = ((stop - start) / size)[:, None]
    position = start[:, None] + (jnp.arange(size) + 0.5) * scale
    centre, reach = (position - 0.5)[..., None], jnp.maximum(scale, 1)[..., None]
    begin, end = start[:, None, None], stop[:, None, None]

    def triangle(pixel: Array) -> Array:
        return jnp.maximum(1 - jnp.abs(pixel - centre) / reach, 0)

    pixel = jnp.arange(padded, dtype=jnp.float32)
    weights = triangle(pixel) + triangle(2 * begin - 1 - pixel) + triangle(2 * end - 1 - pixel)
    weights *= (pixel >= begin) & (pixel < end) & (pixel < length)
    around = jnp.floor(centre) + jnp.arange(-padded // 2, padded // 2)  # includes pixels beyond the image
    weights /= jnp.sum(triangle(around), axis=-1, keepdims=True)
    return weights, (position >= 0) & (position < length)


@lru_cache(maxsize=8)
def network_scores(net: nn.Module, flip: bool = False, mesh: Mesh | None = None) -> Callable[[Variables, Array], Array]:
    """Returns the jitted function that runs a network on windows; equal arguments return the same function.

    Other variables with the same shapes do not compile again.

    Args:
      net: a hashable module with `apply(variables, images, train=False) -> logits`.
      flip: True averages with the mirrored scores of the mirrored windows.
      mesh: the devices; None for one device.

    Returns:
      A function (variables, windows) -> scores: windows float32 BGR [n, S, S, 3], 0..255 minus the mean; scores float32
      [n, S, S, K]. With several devices the variables are on all of them, and windows and scores are spread.
    """
    network, platform = partial(scores_of, net, flip), jax.default_backend()
    if mesh is not None:
        network, platform = spread(network, mesh, inputs=(WHOLE, PARTS)), mesh.devices.flat[0].platform
    return jax.jit(network, compiler_options=compiler_options(platform))


def scores_of(net: nn.Module, flip: bool, variables: Variables, windows: Array) -> Array:
    """Returns what the function from `network_scores` returns; not jitted.

    Args:
      net: a module with `apply(variables, images, train=False) -> logits`.
      flip: True averages with the mirrored scores of the mirrored windows.
      variables: the variables of `net`.
      windows: float32 BGR [n, S, S, 3], 0..255 minus the mean.

    Returns:
      float32 [n, S, S, K].
    """
    scores = logits_of(net, variables, windows)
    if flip:
        scores = (scores + logits_of(net, variables, windows[:, :, ::-1])[:, :, ::-1]) / 2
    return scores.astype(jnp.float32)


def logits_of(net: nn.Module, variables: Variables, windows: Array) -> Array:
    """Returns the logits of a network in test mode.

    Args:
      net: a module with `apply(variables, images, train=False) -> logits`.
      variables: the variables of `net`.
      windows: float32 BGR [n, S, S, 3], 0..255 minus the mean.

    Returns:
      [n, S, S, K], in the network's dtype of scores.
    """
    # Flax's type of `apply` knows neither our variables nor the type of the result.
    return cast(Array, net.apply(variables, windows, train=False))


@partial(jax.jit, static_argnames=("aggregation", "antialias"), donate_argnums=0)
def fold_scores(
    canvas: Canvas, scores: Array, boxes: Array, valid: Array, aggregation: str = "max", antialias: bool = False
) -> Canvas:
    """Resizes score maps to their boxes (bilinear) and folds them into the canvas.

    Pixels outside a box keep their values. A pixel is inside if its centre is.

    Args:
      canvas: the canvas so far; donated, so it cannot be used afterwards.
      scores: float32 [n, S, S, K], the score maps of the windows.
      boxes: float32 [n, 4], the windows in pixels of the image; may extend beyond it.
      valid: bool [n]; False for boxes that only fill the batch, which change nothing.
      aggregation: "max" or "mean"; the same for all calls with a canvas.
      antialias: True filters maps that shrink, as MATLAB's imresize does.

    Returns:
      The canvas with these windows.

    Example:
      >>> canvas = empty_canvas(256, 256, num_classes=2, aggregation="max")
      >>> boxes = jnp.array([[0, 0, 10, 10], [5, 5, 20, 20]], jnp.float32)
      >>> canvas = fold_scores(canvas, jnp.ones((2, 8, 8, 2)), boxes, jnp.array([True, True]))
      >>> int(canvas.shown.max()), int((canvas.shown > 0).sum())  # 10 * 10 + 15 * 15 - 5 * 5 pixels
      (2, 300)
    """
    check_arrays(
        "fold_scores", boxes=(boxes, "n 4", "float"), scores=(scores, "n S S K", "float"), valid=(valid, "n", "bool")
    )
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
    """Returns bool [length], True for pixels whose centre lies from `start` to `stop`."""
    centres = jnp.arange(length) + 0.5
    return (centres >= start) & (centres < stop)


def _taps(start: Array, stop: Array, size: int, length: int, antialias: bool) -> list[tuple[Array, Array]]:
    """Returns pairs (index, weight), each [length]: the samples of a box's `size` that each pixel is made of."""
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
    """Returns the weighted sums of an array's entries along one axis."""
    shape = [1] * array.ndim
    shape[axis] = -1
    parts = (jnp.take(array, index, axis, mode="clip") * weight.reshape(shape) for index, weight in taps)
    return cast(Array, sum(parts))  # there is at least one tap, so the sum is an array


@partial(jax.jit, static_argnames="aggregation")
def canvas_scores(canvas: Canvas, aggregation: str) -> Array:
    """Returns the scores of every pixel after the last window.

    Args:
      canvas: the canvas with all windows.
      aggregation: "max" or "mean", as for `fold_scores`.

    Returns:
      float32 [Hp, Wp, K]; 0 for all classes at pixels that no window shows.
    """
    scores = canvas.scores
    if aggregation == "mean":
        scores = scores / jnp.maximum(canvas.shown, 1)[..., None]
    return jnp.where((canvas.shown > 0)[..., None], scores, 0)


def greatest(canvas: Canvas) -> Canvas:
    """Returns the canvas of all devices' windows, by `pmax` and `psum` over them; for "max" only, inside `on_each`."""
    return Canvas(lax.pmax(canvas.scores, AXIS), lax.psum(canvas.shown, AXIS))


def sample_scores(scores: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a window's scores at every pixel of an image, interpolated bilinearly on the host.

    Pixel centres are at half-integers in both. Beyond the outermost centres of the map, its border values continue.

    Args:
      scores: float32 [h, w, K], the score map of the box.
      box: [4], x0, y0, x1, y1 in pixels of the image, x1 and y1 exclusive; any position and size.
      height: the height of the image in pixels.
      width: the width of the image in pixels.

    Returns:
      [height, width, K], with the dtype of `scores`.

    Raises:
      InputError: if an array has another shape or dtype.
    """
    box = host_array("sample_scores: box", box)
    check_arrays("sample_scores", scores=(scores, "h w K", "float"), box=(box, "4", "number"))
    x0, y0, x1, y1 = box.astype(np.float64)
    ys = ((np.arange(height) + 0.5) - y0) * scores.shape[0] / (y1 - y0) - 0.5
    xs = ((np.arange(width) + 0.5) - x0) * scores.shape[1] / (x1 - x0) - 0.5
    result = np.empty((height, width, scores.shape[2]), scores.dtype)
    for start in range(0, height, _ROWS):
        block = slice(start, start + _ROWS)
        result[block] = _interpolate(_interpolate(scores, 0, ys[block]), 1, xs)
    return result


def _interpolate(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    """Returns an array's values at fractional positions along one axis."""
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
