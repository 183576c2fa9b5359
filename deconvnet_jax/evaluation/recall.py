"""How many objects a ranked list of boxes finds."""

from collections.abc import Sequence

import numpy as np


def box_recall(overlaps: Sequence[np.ndarray], counts: Sequence[int], thresholds: Sequence[float]) -> np.ndarray:
    """The share of objects that one of the first boxes overlaps well enough.

    Args:
      overlaps: of each image, intersection over union [boxes, objects], boxes best first (`ops.box_iou`).
      counts: how many of the first boxes are looked at.
      thresholds: what counts as found.

    Returns:
      float64 [counts, thresholds], 0..1; NaN if there is no object.
    """
    objects = sum(of_image.shape[1] for of_image in overlaps)
    found = np.zeros((len(counts), len(thresholds)))
    for of_image in overlaps:
        for row, count in enumerate(counts):
            best = of_image[:count].max(axis=0, initial=0)
            found[row] += (best[:, None] >= np.asarray(thresholds)).sum(axis=0)
    return found / objects if objects else np.full(found.shape, np.nan)
