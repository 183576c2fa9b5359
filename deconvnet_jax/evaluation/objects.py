"""How well single objects are segmented, small ones and large ones, and how many of them boxes find."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE

ENLARGED = 1.2  # the object's box, in which pixels of its class are held against it; as the network's windows
SIZES = {"small": (0.0, 0.02), "medium": (0.02, 0.1), "large": (0.1, 1.0)}  # share of the image's pixels, from and to


class ObjectScore(NamedTuple):
    """One annotated object.

    Attributes:
      class_id: its class.
      share: of the image's pixels.
      iou: of its mask and of what was predicted around it.
    """

    class_id: int
    share: float
    iou: float


def object_scores(
    labels: np.ndarray, instances: np.ndarray, predictions: np.ndarray, ignore_label: int = IGNORE
) -> list[ObjectScore]:
    """The intersection over union of every annotated object of one image, each as heavy as any other.

    A semantic segmentation says classes, not objects. What counts as predicted for an object are the pixels of its
    class in its box, enlarged 1.2 times, that no other object of the class is at.

    Args:
      labels: integers [H, W], class ids, 0 for background, `ignore_label` for pixels that do not count.
      instances: integers [H, W], the objects' numbers from 1; 0 and `ignore_label` for none.
      predictions: integers [H, W], class ids.
      ignore_label: see above.

    Raises:
      InputError: for different shapes.
    """
    if not labels.shape == instances.shape == predictions.shape:
        shapes = ", ".join(str(array.shape) for array in (labels, instances, predictions))
        raise InputError(f"labels, instances and predictions differ in shape: {shapes}")
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
    """For every one of SIZES the sum of IoUs and the number of objects, float64 [3, 2]; sums of images add up."""
    sums = np.zeros((len(SIZES), 2))
    for score in scores:
        for i, (low, high) in enumerate(SIZES.values()):
            if low < score.share <= high:
                sums[i] += (score.iou, 1)
    return sums


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


def _around(mask: np.ndarray) -> np.ndarray:
    """The box of a mask, enlarged, as a mask."""
    box = np.ones(mask.shape, bool)
    for axis in (0, 1):
        places = np.flatnonzero(mask.any(axis=1 - axis))
        begin, end = places[0], places[-1] + 1
        more = (end - begin) * (ENLARGED - 1) / 2
        centres = np.arange(mask.shape[axis]) + 0.5
        inside = (centres >= begin - more) & (centres < end + more)
        box &= inside[:, None] if axis == 0 else inside
    return box
