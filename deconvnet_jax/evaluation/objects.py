"""Scores of single objects, by their size, and the share of objects that box proposals find."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.labels import IGNORE

ENLARGED = 1.2  # Factor on the sides of an object's box, as for the network's windows; predictions inside count.
# An object belongs to a size if its fraction of the image's pixels is above the first number, up to the second.
SIZES = {"small": (0.0, 0.02), "medium": (0.02, 0.1), "large": (0.1, 1.0)}


class ObjectScore(NamedTuple):
    """Score of one annotated object.

    Attributes:
      class_id: class of the object.
      share: fraction of the image's pixels that the object covers.
      iou: intersection over union of its mask and the prediction around it.
    """

    class_id: int
    share: float
    iou: float


def object_scores(
    labels: np.ndarray, instances: np.ndarray, predictions: np.ndarray, ignore_label: int = IGNORE
) -> list[ObjectScore]:
    """Returns the intersection over union of every annotated object of one image.

    A semantic segmentation has classes but no objects. So the prediction for an object is: the pixels of its class
    inside its box, enlarged 1.2 times, except pixels of other objects of the same class.

    Args:
      labels: ground truth, integers [H, W], class ids; 0 is background, `ignore_label` marks pixels that do not count.
      instances: integers [H, W], number of the object at each pixel, from 1; 0 and `ignore_label` mean no object.
      predictions: integers [H, W], class ids.
      ignore_label: id of pixels that do not count.

    Returns:
      One score per object, by ascending object number. An object without a labelled pixel is left out.

    Raises:
      InputError: if an array is not integers [H, W], or the sizes differ.
    """
    maps = {"labels": labels, "instances": instances, "predictions": predictions}
    check_arrays("object_scores", **{name: (array, "H W", "integer") for name, array in maps.items()})
    scores = []
    for number in np.unique(instances):
        if number in (0, ignore_label):
            continue
        mask = (instances == number) & (labels != 0) & (labels != ignore_label)
        if not mask.any():
            continue
        class_id = int(np.bincount(labels[mask]).argmax())
        mask &= labels == class_id
        free = (labels != ignore_label) & (mask | (labels != class_id))
        predicted = (predictions == class_id) & free & _around(mask)
        union = np.count_nonzero(mask | predicted)
        scores.append(ObjectScore(class_id, float(mask.mean()), float(np.count_nonzero(mask & predicted) / union)))
    return scores


def sums_by_size(scores: list[ObjectScore]) -> np.ndarray:
    """Returns the sum of IoUs and the number of objects in each size class of SIZES; sums of images add up.

    Args:
      scores: from `object_scores`.

    Returns:
      float64 [3, 2], rows in the order of SIZES: (sum of IoUs, number of objects).
    """
    sums = np.zeros((len(SIZES), 2))
    for score in scores:
        for i, (low, high) in enumerate(SIZES.values()):
            if low < score.share <= high:
                sums[i] += (score.iou, 1)
    return sums


def box_recall(overlaps: Sequence[np.ndarray], counts: Sequence[int], thresholds: Sequence[float]) -> np.ndarray:
    """Returns the share of objects that at least one of the first boxes overlaps well enough.

    Args:
      overlaps: for each image the IoU of every box with every object, [boxes, objects], best box first (`ops.box_iou`).
      counts: numbers of first boxes to consider, for example [10, 50, 2000].
      thresholds: least IoUs at which an object counts as found.

    Returns:
      float64 [len(counts), len(thresholds)], 0..1; NaN if there is no object.

    Raises:
      InputError: if an array of overlaps does not have two axes.
    """
    for of_image in overlaps:
        check_arrays("box_recall", overlaps=(of_image, "boxes objects", "number"))
    objects = sum(of_image.shape[1] for of_image in overlaps)
    found = np.zeros((len(counts), len(thresholds)))
    for of_image in overlaps:
        for row, count in enumerate(counts):
            best = of_image[:count].max(axis=0, initial=0)
            found[row] += (best[:, None] >= np.asarray(thresholds)).sum(axis=0)
    return found / objects if objects else np.full(found.shape, np.nan)


def _around(mask: np.ndarray) -> np.ndarray:
    """Returns the enlarged bounding box of a mask, as a mask."""
    box = np.ones(mask.shape, bool)
    for axis in (0, 1):
        places = np.flatnonzero(mask.any(axis=1 - axis))
        begin, end = places[0], places[-1] + 1
        more = (end - begin) * (ENLARGED - 1) / 2
        centres = np.arange(mask.shape[axis]) + 0.5
        inside = (centres >= begin - more) & (centres < end + more)
        box &= inside[:, None] if axis == 0 else inside
    return box
