"""Boundary F1: how well the contours of segments are met, which mean IoU hardly measures."""

import cv2
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation.confusion import checked_pair
from deconvnet_jax.evaluation.edges import distances_to
from deconvnet_jax.labels import IGNORE

TOLERANCE = 0.0075  # Fraction of the image's diagonal, as published for CamVid (SegNet).
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def boundary_f1(
    labels: np.ndarray,
    predictions: np.ndarray,
    num_classes: int,
    ignore_label: int = IGNORE,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """Returns the boundary F1 of every class that occurs in the ground truth of one image.

    Source: Csurka, Larlus, Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013. The
    contour of a class is its pixels next to a pixel of another class. Precision is the share of the predicted contour
    that has the true contour within the tolerance. Recall is the share of the true contour that has the predicted one
    within the tolerance. F1 is their harmonic mean. For a set of images, average over the classes of each image, then
    over images (`mean_boundary_f1`).

    The publication does not consider ignored pixels. VOC marks a ring of them around every object, and the contour lies
    somewhere in the ring. So every ignored pixel takes the label of the nearest pixel that counts, and the prediction
    there is replaced in the same way. The true contour is then the middle line of the ring, and the tolerance grows by
    the distance to the ring's edge. A prediction that is right outside the ring scores 1, whatever it contains inside.

    Args:
      labels: ground truth, integers [H, W], class ids 0..num_classes-1 or `ignore_label`.
      predictions: integers [H, W], class ids; any integer where the label is ignored.
      num_classes: number of classes K.
      ignore_label: id of pixels that do not count.
      tolerance: allowed distance as a fraction of the image's diagonal.

    Returns:
      float64 [K], 0..1. A class without a pixel in the ground truth gets NaN; a class that the prediction lacks gets 0.
      If neither ground truth nor prediction has a contour (the class covers the image) the score is 1; if only one has
      a contour it is 0.

    Raises:
      InputError: if the shapes differ, the arrays do not have two axes, or an id is unknown.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.evaluation import boundary_f1, mean_boundary_f1
      >>> labels = np.zeros((100, 100), np.uint8)
      >>> labels[20:60, 20:60] = 1
      >>> scores = boundary_f1(labels, np.roll(labels, 1, axis=1), num_classes=3)  # one pixel off
      >>> scores
      array([ 1.,  1., nan])
      >>> mean_boundary_f1(scores)
      1.0
    """
    labels, predictions = checked_pair(labels, predictions, num_classes, ignore_label)
    if labels.ndim != 2:
        raise InputError(f"labels have shape {labels.shape}; expected one image [H, W], so score images one by one")
    counts = labels != ignore_label
    scores = np.full(num_classes, np.nan)
    if not counts.any():
        return scores
    slack = np.zeros(labels.shape, np.float32)
    if not counts.all():
        # Take the larger distance of both sides of a contour: a ring's middle pixel lies on one side.
        slack = cv2.dilate(np.ceil(distances_to(counts)), _CROSS)
        nearest = _nearest(counts)
        labels, predictions = labels.ravel()[nearest], predictions.ravel()[nearest]
    reach = tolerance * np.hypot(*labels.shape)
    for class_id in np.unique(labels[counts]):
        found = predictions == class_id
        scores[class_id] = _f1(_contour(labels == class_id), _contour(found), slack, reach) if found.any() else 0.0
    return scores


def mean_boundary_f1(scores: np.ndarray) -> float:
    """Returns the boundary F1 of one image: the mean over its classes.

    Args:
      scores: float [K], from `boundary_f1`; NaN for classes that do not occur.

    Returns:
      A fraction 0..1, or NaN for an image without annotated pixels.
    """
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def _f1(true: np.ndarray, found: np.ndarray, slack: np.ndarray, reach: float) -> float:
    """Returns the F1 of a class that occurs in ground truth and prediction.

    Args:
      true: bool [H, W], the true contour.
      found: bool [H, W], the predicted contour.
      slack: float32 [H, W], by how many pixels the true contour may be off because pixels are ignored there.
      reach: the tolerance in pixels.
    """
    if not (true.any() and found.any()):
        return float(true.any() == found.any())
    right = np.zeros(true.shape, bool)
    for pixels in np.unique(slack[true]):
        right |= distances_to(true & (slack == pixels)) <= reach + pixels
    precision = right[found].mean()
    recall = (distances_to(found) <= reach + slack)[true].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _contour(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels of the mask with one of their four neighbours outside it; the image's edge is no contour."""
    inner = cv2.erode(mask.astype(np.uint8), _CROSS)
    return mask & (inner == 0)


def _nearest(mask: np.ndarray) -> np.ndarray:
    """Returns, for every pixel, the row-major position of the nearest pixel of a mask: int64 [H, W].

    The mask is bool [H, W] and must not be empty.
    """
    outside = (~mask).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    numbers = np.asarray(labels, np.int64)
    positions = np.zeros(numbers.max() + 1, np.int64)
    positions[numbers[mask]] = np.flatnonzero(mask)
    return positions[numbers]
