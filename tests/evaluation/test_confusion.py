"""Tests the confusion matrix against a loop over pixels."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import confusion_matrix


def by_loop(labels, predictions, num_classes, ignore_label):
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for label, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        if label != ignore_label:
            matrix[label, prediction] += 1
    return matrix


def test_by_hand():
    labels = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    predictions = np.array([[0, 1, 1], [1, 0, 2]], np.uint8)
    expected = [[1, 1, 0], [0, 2, 0], [1, 0, 0]]  # Rows are the ground truth, columns the prediction.
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 3), expected)


@pytest.mark.parametrize("dtypes", [("uint8", "uint8"), ("int32", "uint8"), ("uint8", "int64")])
@pytest.mark.parametrize(("num_classes", "ignore_label"), [(21, 255), (254, 255), (3, 7), (2, 255)])
def test_equals_a_loop(rng, dtypes, num_classes, ignore_label):
    shape = tuple(rng.integers(5, 60, 2))
    labels = rng.integers(0, num_classes, shape).astype(dtypes[0])
    labels[rng.random(shape) < 0.2] = ignore_label
    predictions = rng.integers(0, num_classes, shape).astype(dtypes[1])
    matrix = confusion_matrix(labels, predictions, num_classes, ignore_label)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, by_loop(labels, predictions, num_classes, ignore_label))


def test_matrices_add_up(rng):
    labels, predictions = rng.integers(0, 4, (2, 6, 10, 10)).astype(np.uint8)
    total = sum(confusion_matrix(a, b, 4) for a, b in zip(labels, predictions, strict=True))
    np.testing.assert_array_equal(total, confusion_matrix(labels, predictions, 4))


def test_any_prediction_where_ignored():
    labels, predictions = np.array([[0, 255]], np.uint8), np.array([[0, 200]], np.uint8)
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 2), [[1, 0], [0, 0]])


def test_nothing_but_ignored():
    labels = np.full((2, 2), 255, np.uint8)
    np.testing.assert_array_equal(confusion_matrix(labels, labels, 2), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        (np.zeros((4, 5), int), np.zeros((5, 4), int), r"labels have shape \(4, 5\).*resize"),
        (np.zeros((4, 5), np.float32), np.zeros((4, 5), int), "labels are float32.*integer"),
        (np.zeros((4, 5), int), np.zeros((4, 5), bool), "predictions are bool.*integer"),
        (np.full((4, 5), 3), np.zeros((4, 5), int), "labels have class ids 3; expected 0 to 2 and 255"),
        (np.zeros((4, 5), int), np.full((4, 5), 3), "predictions have class ids 3; expected 0 to 2"),
        (np.zeros((4, 5), int), np.full((4, 5), 255), "predictions have class ids 255"),
        (np.full((4, 5), -1), np.zeros((4, 5), int), "labels have class ids -1"),
    ],
)
def test_bad_input(labels, predictions, message):
    with pytest.raises(InputError, match=message):
        confusion_matrix(labels, predictions, 3)


def test_many_classes(rng):
    labels, predictions = rng.integers(0, 459, (2, 50, 40)).astype(np.uint16)
    labels[0] = 65535
    with pytest.raises(InputError, match="ignore_label=255 is also the id of a class, because there are 459"):
        confusion_matrix(labels, predictions, 459)
    matrix = confusion_matrix(labels, predictions, 459, ignore_label=65535)
    assert matrix.sum() == 49 * 40
    assert matrix[255].sum() == (labels == 255).sum()
