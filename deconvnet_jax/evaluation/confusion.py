"""Counting which class was taken for which."""

import numpy as np
from numpy.typing import ArrayLike

from deconvnet_jax.errors import InputError


def confusion_matrix(
    labels: ArrayLike, predictions: ArrayLike, num_classes: int, ignore_label: int = 255
) -> np.ndarray:
    """Counts pixels by true and by predicted class. Matrices of several images add up to that of the set.

    Args:
      labels: integers of any shape, class ids 0..num_classes-1 or `ignore_label`.
      predictions: integers of the same shape, class ids; may be anything where the label is ignored.
      num_classes: K.
      ignore_label: id of pixels that do not count.

    Returns:
      int64 [K, K]: rows are the truth, columns the prediction.

    Raises:
      InputError: for different shapes, numbers that are no integers, or other ids.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.shape != predictions.shape:
        raise InputError(
            f"labels have shape {labels.shape}, predictions {predictions.shape}; "
            "resize the prediction to the size of the annotated image"
        )
    _check_integers("labels", labels)
    _check_integers("predictions", predictions)
    counts = labels != ignore_label
    true, predicted = labels[counts].astype(np.int64), predictions[counts].astype(np.int64)
    _check_ids("labels", true, num_classes, f" and {ignore_label} for ignored pixels")
    _check_ids("predictions", predicted, num_classes, "")
    pairs = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes).astype(np.int64)


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
