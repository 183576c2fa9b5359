"""Counting which class was taken for which."""

import numpy as np
from numpy.typing import ArrayLike

from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE, check_ignore_label


def confusion_matrix(
    labels: ArrayLike, predictions: ArrayLike, num_classes: int, ignore_label: int = IGNORE
) -> np.ndarray:
    """Counts pixels by true and by predicted class. Matrices of several images add up to that of the set.

    Args:
      labels: integers of any shape, class ids 0..num_classes-1 or `ignore_label`.
      predictions: integers of the same shape, class ids; may be anything where the label is ignored.
      num_classes: K.
      ignore_label: id of pixels that do not count; no class's.

    Returns:
      int64 [K, K]: rows are the truth, columns the prediction.

    Raises:
      InputError: for different shapes, numbers that are no integers, or other ids.
    """
    labels, predictions = checked_pair(labels, predictions, num_classes, ignore_label)
    counts = labels != ignore_label
    pairs = np.bincount(
        labels[counts].astype(np.int64) * num_classes + predictions[counts].astype(np.int64), minlength=num_classes**2
    )
    return pairs.reshape(num_classes, num_classes).astype(np.int64)


def checked_pair(
    labels: ArrayLike, predictions: ArrayLike, num_classes: int, ignore_label: int = IGNORE
) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays.

    Raises:
      InputError: for different shapes, numbers that are no integers, or ids that there are not; a prediction may be
        anything where the label is ignored.
    """
    check_ignore_label(num_classes, ignore_label)
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise InputError(
            f"labels have shape {labels.shape}, predictions {predictions.shape}; "
            "resize the prediction to the size of the annotated image"
        )
    _check_integers("labels", labels)
    _check_integers("predictions", predictions)
    counts = labels != ignore_label
    _check_ids("labels", labels[counts], num_classes, f" and {ignore_label} for ignored pixels")
    _check_ids("predictions", predictions[counts], num_classes, "")
    return labels, predictions


def _check_integers(name: str, array: np.ndarray) -> None:
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} are {array.dtype}; expected integer class ids, one a pixel (of scores, the argmax)")


def _check_ids(name: str, ids: np.ndarray, num_classes: int, also: str) -> None:
    unknown = np.unique(ids[(ids < 0) | (ids >= num_classes)])
    if len(unknown):
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise InputError(
            f"{name} have class ids {shown}; expected 0 to {num_classes - 1}{also}: "
            "correct the masks or the number of classes"
        )
