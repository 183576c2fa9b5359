"""From the score map of a window back to the pixels of the image."""

import numpy as np

_ROWS = 64  # at a time: intermediate results of a large photograph would take as much memory again


def sample_scores(scores: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """The scores of a window at every pixel of the image, interpolated bilinearly.

    Pixel centres are at half-integers in both, so that the result does not shift whatever the box and the sizes.
    Beyond the centres of the map's outermost pixels their values go on.

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
