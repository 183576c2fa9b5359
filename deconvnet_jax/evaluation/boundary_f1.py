"""How well the contours of segments are met: boundary F1, which mean IoU hardly sees."""

import cv2
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation.confusion import checked_pair
from deconvnet_jax.evaluation.edges import distances_to
from deconvnet_jax.labels import IGNORE

TOLERANCE = 0.0075  # of the image's diagonal, as published for CamVid (SegNet)
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def boundary_f1(
    labels: np.ndarray,
    predictions: np.ndarray,
    num_classes: int,
    ignore_label: int = IGNORE,
    tolerance: float = TOLERANCE,
) -> np.ndarray:
    """Returns the boundary F1 of every class that occurs in the truth of one image.

    Csurka, Larlus, Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013. The contour of
    a class are its pixels beside a pixel of another class. Precision is the share of the predicted contour that has the
    true one within the tolerance. Recall is the share of the true contour that has the predicted one within the
    tolerance. F1 is their harmonic mean. Over a set of images, take the mean over the classes of each image, then over
    images (`mean_boundary_f1`).

    The publication does not know ignored pixels. VOC draws a ring of them around every object, in which the contour
    runs somewhere. So every ignored pixel takes the label of the nearest pixel that counts, and the prediction there is
    replaced in the same way. In a ring, the true contour is then its middle line, and the tolerance grows by the
    distance to the ring's edge. A prediction that is right outside the ring scores 1, whatever it says inside.

    Args:
      labels: integers [H, W], class ids 0..num_classes-1 or `ignore_label`.
      predictions: integers [H, W], class ids.
      num_classes: K.
      ignore_label: id of pixels that do not count.
      tolerance: a distance, as a share of the image's diagonal.

    Returns:
      float64 [K], 0..1; NaN for classes without a pixel in the truth. 0 where the prediction lacks the class. 1 where
      neither truth nor prediction has a contour (the class is everywhere), 0 where one of them has none.

    Raises:
      InputError: for different shapes, more or fewer than two axes, or other ids.
    """
    labels, predictions = checked_pair(labels, predictions, num_classes, ignore_label)
    if labels.ndim != 2:
        raise InputError(f"labels have shape {labels.shape}; expected one image [H, W]: score images one by one")
    counts = labels != ignore_label
    scores = np.full(num_classes, np.nan)
    if not counts.any():
        return scores
    slack = np.zeros(labels.shape, np.float32)
    if not counts.all():
        # The larger one of both sides of a contour: the middle pixel of a ring is on one of them.
        slack = cv2.dilate(np.ceil(distances_to(counts)), _CROSS)
        nearest = _nearest(counts)
        labels, predictions = labels.ravel()[nearest], predictions.ravel()[nearest]
    reach = tolerance * np.hypot(*labels.shape)
    for class_id in np.unique(labels[counts]):
        found = predictions == class_id
        scores[class_id] = _f1(_contour(labels == class_id), _contour(found), slack, reach) if found.any() else 0.0
    return scores


def mean_boundary_f1(scores: np.ndarray) -> float:
    """One image's boundary F1: the mean over its classes of `boundary_f1`; NaN for an image without annotation."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def _f1(true: np.ndarray, found: np.ndarray, slack: np.ndarray, reach: float) -> float:
    """F1 of a class that truth and prediction have.

    Args:
      true: bool [H, W], the true contour.
      found: bool [H, W], the predicted contour.
      slack: float32 [H, W], whole pixels by which a true contour may be elsewhere, since pixels are ignored there.
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
    """Pixels of the mask with one of their four neighbours outside it; the image's edge is no contour."""
    inner = cv2.erode(mask.astype(np.uint8), _CROSS)
    return mask & (inner == 0)


def _nearest(mask: np.ndarray) -> np.ndarray:
    """Of every pixel the position, row by row, of the nearest pixel of a bool mask that is not empty: int64 [H, W]."""
    outside = (~mask).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    numbers = np.asarray(labels, np.int64)
    positions = np.zeros(numbers.max() + 1, np.int64)
    positions[numbers[mask]] = np.flatnonzero(mask)
    return positions[numbers]
