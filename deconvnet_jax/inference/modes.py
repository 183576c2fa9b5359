"""The modes of inference: which windows of an image a network is shown, and how their scores are put together.

`MODES` has one row per value of `inference.mode`; all that differs between modes is in its row. To add a mode, add a
row, and a function of windows if none of those here fits; then add the row's summary to docs/inference.md.

`windows(height, width, size)` gets no settings. A mode with a parameter needs a new setting (`inference.settings`) and
a wider signature here and in `scorer.Scorer.windows`. While a network trains, evaluations replace every mode that has
`of_proposals` by `whole_image` (`_settings` in experiments/common/evaluation.py).

Windows are boxes float32 [n, 4]: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; they may reach beyond the image.
"""

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

ENLARGED = 1.2  # sides of a proposal (paper, section 4.1, of training; the released boxes are enlarged too)
RELEASED_MIN_SIDE = 112  # pixels (original: generate_EDeconvNet_CRF_results.m)
RELEASED_CANDIDATES = 2_000  # proposals per image (paper, section 4.3), of which the large ones are taken
OVERLAP = 0.5  # of neighbouring windows of a sliding window
SHARPNESS = 4.0  # after proposals; measured: docs/inference.md, "What the CRF starts from"


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


def whole_window(height: int, width: int, size: int = 0) -> np.ndarray:
    """Returns one window: the square around the image, whatever the input's size."""
    return image_box(height, width)[None].astype(np.float32)


def corner_window(height: int, width: int, size: int) -> np.ndarray:
    """Returns one window as large as the input, at the upper left corner; larger only if the image is (FCN-8s)."""
    side = max(size, height, width)
    return np.array([[0, 0, side, side]], np.float32)


def sliding_windows(height: int, width: int, size: int) -> np.ndarray:
    """Returns windows of the input's own size over the whole image, neighbours overlapping by half at least.

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


@dataclass(frozen=True)
class Mode:
    """How a network segments images. Its windows come from the image's size or, with `of_proposals`, from proposals.

    Attributes:
      summary: which windows these are, for docs/inference.md.
      windows: function of an image's height and width and the side of the network's input to windows.
      of_proposals: function of proposals [m, 4], best first, `num_proposals` and `enlarge` to windows.
      candidates: how many proposals are found for `of_proposals`; 0: `num_proposals`.
      one_window: every image has exactly one window, so that several images share a batch.
      outside: what a window shows beyond the image: "black" before the mean is subtracted, or the "mean".
      antialias: crops and score maps are filtered where they shrink, as MATLAB's imresize does.
      shift: pixels by which score maps are put back too far to the right and down.
      clip: the canvas begins with 0, so that negative scores do not count; needs `aggregation="max"`.
      combine: function of the scores of both networks of an ensemble to one.
      sharpness: factor on the scores before `crf="usual"`.
      ensemble_sharpness: the same for the scores of an ensemble.
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
        sharpness=SHARPNESS,  # not of the product, which is sharp already
    ),
    "whole_image": Mode("one window around the image", windows=whole_window, one_window=True),
    "sliding_window": Mode("windows of the input's size, each half over its neighbours", windows=sliding_windows),
}
FCN8S_MODE = Mode("the image in the corner of the input", windows=corner_window, one_window=True, outside="mean")


def mode_of(net: nn.Module, name: str) -> Mode:
    """Returns the row of a mode for a network; an FCN-8s sees whole images in any mode, as in the original."""
    return FCN8S_MODE if isinstance(net, FCN8s) else MODES[name]
