"""Defines the modes of inference: which windows of an image a network is shown, and how their scores are combined.

`MODES` has one row per value of `inference.mode`, which holds everything that differs between modes. To add a mode, add
a row, and a function of windows if none of those here fits; then add the row's summary to docs/inference.md.

`windows(height, width, size)` gets no settings. A mode with a parameter needs a new setting (`inference.settings`) and
a wider signature here and in `scorer.Scorer.windows`. During training, evaluations replace every mode that has
`of_proposals` by `whole_image` (`_settings` in experiments/common/evaluation.py).

Windows are boxes float32 [n, 4]: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; they may extend beyond the image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import numpy as np
from jax import Array

from deconvnet_jax.data import enlarge, image_box, square
from deconvnet_jax.inference.combine import mean_of_probabilities, product_of_positive
from deconvnet_jax.models import FCN8s
from deconvnet_jax.ops import checked_boxes

ENLARGED = 1.2  # factor on the sides of a proposal (paper, section 6.1, for training; released boxes are enlarged too)
RELEASED_MIN_SIDE = 112  # pixels; smaller windows are left out (original: generate_EDeconvNet_CRF_results.m)
RELEASED_CANDIDATES = 2_000  # proposals per image (paper, section 6.1); the large ones among them are used
OVERLAP = 0.5  # share of its side by which a sliding window overlaps with its neighbour, at least
SHARPNESS = 4.0  # factor on scores of proposals before the CRF; measured: docs/inference.md, "What the CRF starts from"


def paper_windows(boxes: np.ndarray, count: int, factor: float = ENLARGED) -> np.ndarray:
    """Returns the windows of the paper: the first `count` proposals, enlarged and squared.

    Args:
      boxes: [m, 4], proposals with the best first: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; m may be 0.
      count: the number of windows, at most.
      factor: a factor on both sides of each proposal, before it is squared.

    Returns:
      float32 [min(m, count), 4].

    Raises:
      InputError: if `boxes` holds no valid boxes (`ops.checked_boxes`).

    Example:
      >>> paper_windows(np.array([[10, 20, 110, 60]]), count=50).tolist()
      [[0.0, -20.0, 120.0, 100.0]]
    """
    return square(enlarge(checked_boxes(boxes)[:count], factor)).astype(np.float32)


def released_windows(boxes: np.ndarray, count: int, factor: float = ENLARGED) -> np.ndarray:
    """Returns the windows of the released code: the first `count` whose side is at least 112 pixels.

    Proposals are enlarged, squared and rounded to whole pixels. Smaller windows are left out and do not count.

    Args:
      boxes: [m, 4], proposals with the best first: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; m may be 0.
      count: the number of windows, at most.
      factor: a factor on both sides of each proposal, before it is squared.

    Returns:
      float32 [n, 4], whole numbers; n is at most `count` and may be 0.

    Raises:
      InputError: if `boxes` holds no valid boxes (`ops.checked_boxes`).
    """
    windows = square(enlarge(checked_boxes(boxes), factor))
    sides = np.maximum(np.round(windows[:, 2:] - windows[:, :2]), 1)
    corners = np.round(windows[:, :2])
    windows = np.concatenate([corners, corners + sides], axis=1)
    return windows[sides[:, 0] >= RELEASED_MIN_SIDE][:count].astype(np.float32)


def whole_window(height: int, width: int, size: int = 0) -> np.ndarray:
    """Returns one window: the smallest square around the image, centred on it.

    Args:
      height: the height of the image in pixels.
      width: the width of the image in pixels.
      size: not used; the window does not depend on the network's input.

    Returns:
      float32 [1, 4].

    Example:
      >>> whole_window(75, 100).tolist()
      [[0.0, -12.5, 100.0, 87.5]]
    """
    return image_box(height, width)[None].astype(np.float32)


def corner_window(height: int, width: int, size: int) -> np.ndarray:
    """Returns one window with the size of the network's input, at the image's upper left corner (FCN-8s).

    Args:
      height: the height of the image in pixels.
      width: the width of the image in pixels.
      size: the side of the network's input in pixels.

    Returns:
      float32 [1, 4]; the window's side is `size`, or the image's longer side if that is larger.
    """
    side = max(size, height, width)
    return np.array([[0, 0, side, side]], np.float32)


def sliding_windows(height: int, width: int, size: int) -> np.ndarray:
    """Returns windows of the input's size that cover the whole image; neighbours overlap by at least half.

    Along a side of the image that is shorter than `size`, there is one window, centred on the image.

    Args:
      height: the height of the image in pixels.
      width: the width of the image in pixels.
      size: the side of the network's input in pixels.

    Returns:
      float32 [n, 4], row by row, whole numbers where the image is not smaller than the window.

    Example:
      >>> sliding_windows(100, 300, 200).tolist()
      [[0.0, -50.0, 200.0, 150.0], [100.0, -50.0, 300.0, 150.0]]
    """
    tops, lefts = _starts(height, size), _starts(width, size)
    corners = np.array([(left, top) for top in tops for left in lefts], np.float32)
    return np.concatenate([corners, corners + size], axis=1)


def _starts(length: int, size: int) -> np.ndarray:
    if length <= size:
        return np.array([(length - size) / 2])
    count = int(np.ceil((length - size) / (size * (1 - OVERLAP)))) + 1
    return np.round(np.linspace(0, length - size, count))


def scaled_windows(windows: np.ndarray, height: int, width: int, scale: float) -> np.ndarray:
    """Returns windows that show an image at another scale: their side is divided by `scale` and rounded up.

    The network's input keeps its size, so no scale needs another program. Windows that are smaller than the image
    overlap by at least half; a larger one is centred on it.

    Args:
      windows: float32 [n, 4], the windows of a mode without proposals at scale 1, all of the same size.
      height: the height of the image in pixels.
      width: the width of the image in pixels.
      scale: a factor on the size at which the network sees the image, above 0. 1 returns `windows`.

    Returns:
      float32 [m, 4], which cover the whole image.

    Example:
      >>> scaled_windows(whole_window(75, 100), 75, 100, scale=0.5).tolist()
      [[-50.0, -62.5, 150.0, 137.5]]
      >>> scaled_windows(whole_window(75, 100), 75, 100, scale=1.25).tolist()
      [[0.0, -2.5, 80.0, 77.5], [20.0, -2.5, 100.0, 77.5]]
    """
    if scale == 1:
        return windows
    side = float(windows[0, 2] - windows[0, 0])
    return sliding_windows(height, width, math.ceil(side / scale))


@dataclass(frozen=True)
class Mode:
    """A row of `MODES`: how a network segments images.

    Attributes:
      summary: a phrase that describes the windows; docs/inference.md has the same words.
      windows: takes an image's height and width and the side of the network's input, in pixels, and returns windows
        float32 [n, 4]; not used with `of_proposals`.
      of_proposals: takes proposals [m, 4], best first, `num_proposals` and `enlarge`, and returns windows float32
        [n, 4]; None if the mode uses no proposals.
      candidates: the number of proposals to find for `of_proposals`; 0 for `num_proposals`.
      one_window: True if every image has exactly one window, so that several images share a batch.
      outside: what a window shows beyond the image: "black", before the mean is subtracted, or the "mean".
      antialias: True filters crops and score maps where they shrink, as MATLAB's imresize does.
      shift: pixels by which score maps are placed too far to the right and down, as in the released code.
      clip: True starts the canvas with 0, so that negative scores do not count; needs `aggregation="max"`.
      combine: takes the scores of both networks of an ensemble, float32 [..., K] each, and returns combined scores.
      sharpness: a factor on the scores before `crf="usual"`.
      ensemble_sharpness: the same factor for the scores of an ensemble.
    """

    summary: str
    windows: Callable[[int, int, int], np.ndarray] = whole_window
    of_proposals: Callable[[np.ndarray, int, float], np.ndarray] | None = None
    candidates: int = 0
    one_window: bool = False
    outside: Literal["black", "mean"] = "black"
    antialias: bool = False
    shift: float = 0.0
    clip: bool = False
    combine: Callable[[Array, Array], Array] = mean_of_probabilities
    sharpness: float = 1.0
    ensemble_sharpness: float = 1.0


MODES = {
    "paper": Mode(
        "the best `num_proposals` proposals, enlarged and squared",
        of_proposals=paper_windows,
        sharpness=SHARPNESS,
        ensemble_sharpness=SHARPNESS,
    ),
    "released": Mode(
        "the large ones among 2,000 proposals, as in the authors' code",
        of_proposals=released_windows,
        candidates=RELEASED_CANDIDATES,
        antialias=True,
        shift=1.0,
        clip=True,
        combine=product_of_positive,
        sharpness=SHARPNESS,  # the product of an ensemble keeps 1: it is sharp already
    ),
    "whole_image": Mode("one window around the image", windows=whole_window, one_window=True),
    "sliding_window": Mode("windows of the input's size, each half over its neighbours", windows=sliding_windows),
}
FCN8S_MODE = Mode("the image in the corner of the input", windows=corner_window, one_window=True, outside="mean")


def mode_of(net: nn.Module, name: str) -> Mode:
    """Returns the row of `MODES` for a network.

    Args:
      net: the network.
      name: a key of `MODES`.

    Returns:
      The row; for an FCN-8s always `FCN8S_MODE`, which shows it the whole image, as in the original.
    """
    return FCN8S_MODE if isinstance(net, FCN8s) else MODES[name]
