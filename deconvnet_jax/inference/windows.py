"""Which windows of an image a network is shown.

All are boxes float32 [n, 4]: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; they may reach beyond the image.
"""

import numpy as np

from deconvnet_jax.data import enlarge, image_box, square
from deconvnet_jax.ops import checked_boxes

ENLARGED = 1.2  # sides of a proposal (paper, section 4.1, of training; the released boxes are enlarged too)
RELEASED_MIN_SIDE = 112  # pixels (original: generate_EDeconvNet_CRF_results.m)
OVERLAP = 0.5  # of neighbouring windows of a sliding window


def paper_windows(boxes: np.ndarray, count: int, factor: float = ENLARGED) -> np.ndarray:
    """Returns the first `count` proposals [n, 4], enlarged and squared.

    Raises:
      InputError: for an array that holds no boxes (`ops.checked_boxes`).
    """
    return square(enlarge(checked_boxes(boxes)[:count], factor)).astype(np.float32)


def released_windows(boxes: np.ndarray, count: int, factor: float = ENLARGED) -> np.ndarray:
    """Returns the first `count` of those enlarged, squared proposals whose side is at least 112 whole pixels.

    Smaller ones do not count, as in the released code; so there may be none.

    Raises:
      InputError: for an array that holds no boxes (`ops.checked_boxes`).
    """
    windows = square(enlarge(checked_boxes(boxes), factor))
    sides = np.maximum(np.round(windows[:, 2:] - windows[:, :2]), 1)
    corners = np.round(windows[:, :2])
    windows = np.concatenate([corners, corners + sides], axis=1)
    return windows[sides[:, 0] >= RELEASED_MIN_SIDE][:count].astype(np.float32)


def whole_window(height: int, width: int) -> np.ndarray:
    """One window: the square around the image."""
    return image_box(height, width)[None].astype(np.float32)


def corner_window(height: int, width: int, size: int) -> np.ndarray:
    """One window: as large as the input, at the upper left corner; larger only if the image is (FCN-8s)."""
    side = max(size, height, width)
    return np.array([[0, 0, side, side]], np.float32)


def sliding_windows(height: int, width: int, size: int) -> np.ndarray:
    """Windows of the input's own size over the whole image, neighbours overlapping by half at least.

    Along a side that is shorter than the window, there is one window centred on the image.
    """
    tops, lefts = _starts(height, size), _starts(width, size)
    corners = np.array([(left, top) for top in tops for left in lefts], np.float32)
    return np.concatenate([corners, corners + size], axis=1)


def _starts(length: int, size: int) -> np.ndarray:
    if length <= size:
        return np.array([(length - size) / 2])
    count = int(np.ceil((length - size) / (size * (1 - OVERLAP)))) + 1
    return np.round(np.linspace(0, length - size, count))
