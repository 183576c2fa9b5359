"""The confusion matrix, and checks of label maps against predictions."""

import numpy as np
from numpy.typing import ArrayLike

from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE, check_ignore_label


def confusion_matrix(
    labels: ArrayLike, predictions: ArrayLike, num_classes: int, ignore_label: int = IGNORE
) -> np.ndarray:
    """Returns the number of pixels for every pair of true and predicted class.

    The matrices of several images add up to the matrix of the set.

    Args:
      labels: ground truth, integers of any shape, class ids 0..num_classes-1 or `ignore_label`.
      predictions: integers of the same shape, class ids; any integer where the label is ignored.
      num_classes: number of classes K.
      ignore_label: id of pixels that do not count; it must not be the id of a class.

    Returns:
      int64 [K, K]: rows are the ground truth, columns the prediction.

    Raises:
      InputError: if the shapes differ, the arrays are not integers, or an id is unknown.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax import confusion_matrix
      >>> labels = np.array([[0, 0, 1], [1, 1, 255]])  # 255 is ignored
      >>> predictions = np.array([[0, 1, 1], [1, 1, 0]])
      >>> confusion_matrix(labels, predictions, num_classes=2)
      array([[1, 1],
             [0, 3]])
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
    """Returns labels and predictions as arrays, after checking that they fit each other.

    Args:
      labels: ground truth, integers of any shape, class ids 0..num_classes-1 or `ignore_label`.
      predictions: integers of the same shape, class ids; any integer where the label is ignored.
      num_classes: number of classes.
      ignore_label: id of pixels that do not count; it must not be the id of a class.

    Returns:
      Both as NumPy arrays, in their own dtypes.

    Raises:
      InputError: if the shapes differ, the arrays are not integers, or an id is unknown.
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
        raise InputError(f"{name} are {array.dtype}; expected integer class ids; take the argmax of scores")


def _check_ids(name: str, ids: np.ndarray, num_classes: int, also: str) -> None:
    unknown = np.unique(ids[(ids < 0) | (ids >= num_classes)])
    if len(unknown):
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise InputError(
            f"{name} have class ids {shown}; expected 0 to {num_classes - 1}{also}: "
            "correct the masks or the number of classes"
        )
