"""How well the contours of segments are met: boundary F1, which mean IoU hardly sees."""

import numpy as np

from deconvnet_jax.evaluation.confusion import checked_pair
from deconvnet_jax.evaluation.edges import distances_to

TOLERANCE = 0.0075  # of the image's diagonal, as published for CamVid (SegNet)


def boundary_f1(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int, ignore_label: int = 255, tolerance: float = TOLERANCE
) -> np.ndarray:
    """The boundary F1 of every class in one image.

    Csurka, Larlus, Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013. The contour of
    a class are its pixels beside a pixel of another class. Precision is the share of the predicted contour that has the
    true one within the tolerance, recall the share of the true one that has the predicted one so near; F1 is their
    harmonic mean. Over a set of images, take the mean over the classes of each image, then over images
    (`mean_boundary_f1`). Where the truth is ignored, so is the prediction, and its border is no contour.

    Args:
      labels: integers [H, W], class ids 0..num_classes-1 or `ignore_label`.
      predictions: integers [H, W], class ids.
      num_classes: K.
      ignore_label: id of pixels that do not count.
      tolerance: a distance, as a share of the image's diagonal.

    Returns:
      float64 [K], 0..1; NaN for classes without a pixel in the truth. 1 where neither truth nor prediction has a
      contour (the class is everywhere), 0 where one of them has none.

    Raises:
      InputError: for different shapes, or other ids.
    """
    labels, predictions = checked_pair(labels, predictions, num_classes, ignore_label)
    valid = labels != ignore_label
    reach = tolerance * np.hypot(*labels.shape)
    scores = np.full(num_classes, np.nan)
    for class_id in np.unique(labels[valid]):
        true, found = (_contour(array == class_id, valid) for array in (labels, predictions))
        if not (true.any() and found.any()):
            scores[class_id] = float(true.any() == found.any())
            continue
        precision = (distances_to(true)[found] <= reach).mean()
        recall = (distances_to(found)[true] <= reach).mean()
        scores[class_id] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return scores


def mean_boundary_f1(scores: np.ndarray) -> float:
    """One image's boundary F1: the mean over its classes of `boundary_f1`; NaN for an image without annotation."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def _contour(mask: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Pixels of the mask with one of their four neighbours outside it; ignored pixels are on neither side."""
    contour = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        before, after = (np.take(mask, np.arange(n, mask.shape[axis] - 1 + n), axis) for n in (0, 1))
        both = np.logical_and(*(np.take(valid, np.arange(n, mask.shape[axis] - 1 + n), axis) for n in (0, 1)))
        differ = (before != after) & both
        views = (contour[:-1], contour[1:]) if axis == 0 else (contour[:, :-1], contour[:, 1:])
        views[0][...] |= differ & before
        views[1][...] |= differ & after
    return contour
