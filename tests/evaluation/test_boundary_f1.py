"""Boundary F1 by hand, and against distances between all pairs of contour pixels."""

import numpy as np
import pytest

from deconvnet_jax.evaluation import boundary_f1, mean_boundary_f1


def brute_force(labels, predictions, class_id, reach):
    """From the definition, pixel by pixel."""

    def contour(array):
        found = []
        for row, column in np.argwhere((array == class_id) & (labels != 255)):
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                inside = 0 <= r < array.shape[0] and 0 <= c < array.shape[1]
                if inside and labels[r, c] != 255 and array[r, c] != class_id:
                    found.append((row, column))
                    break
        return np.array(found).reshape(-1, 2)

    true, found = contour(labels), contour(predictions)
    if not (len(true) and len(found)):
        return float(len(true) == len(found))
    distances = np.sqrt(((true[:, None] - found[None]) ** 2).sum(-1))
    precision, recall = (distances.min(0) <= reach).mean(), (distances.min(1) <= reach).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_equals_brute_force(rng):
    coarse = rng.integers(0, 3, (6, 8))
    labels = np.kron(coarse, np.ones((5, 5), int))
    predictions = np.roll(labels, rng.integers(-3, 4, 2), (0, 1))
    predictions[rng.random(labels.shape) < 0.02] = 1
    labels[rng.random(labels.shape) < 0.1] = 255
    tolerance = 0.04
    scores = boundary_f1(labels, predictions, 4, tolerance=tolerance)
    reach = tolerance * np.hypot(*labels.shape)
    for class_id in range(3):
        if (labels == class_id).any():
            assert scores[class_id] == pytest.approx(brute_force(labels, predictions, class_id, reach))
    assert np.isnan(scores[3])


def test_by_hand():
    """A square of 10 shifted by two pixels, in an image whose tolerance is one pixel, then two."""
    labels, predictions = np.zeros((2, 60, 80), np.uint8)
    labels[20:30, 20:30] = predictions[20:30, 22:32] = 1
    # Each contour has 36 pixels. Of the upper and the lower row 8 predicted ones lie on true ones and one more beside
    # one; the columns are two pixels off, but the left one's ends are beside the rows.
    near = boundary_f1(labels, predictions, 2, tolerance=1.0 / 100)[1]
    assert near == pytest.approx((2 * (8 + 1) + 2) / 36)
    assert boundary_f1(labels, predictions, 2, tolerance=2.0 / 100)[1] == 1.0
    assert boundary_f1(labels, labels, 2, tolerance=0)[1] == 1.0


def test_classes_without_a_contour():
    everywhere = np.zeros((4, 4), np.uint8)
    half = everywhere.copy()
    half[:2] = 1
    np.testing.assert_array_equal(boundary_f1(everywhere, everywhere, 2), [1.0, np.nan])
    np.testing.assert_array_equal(boundary_f1(everywhere, half, 2), [0.0, np.nan])
    np.testing.assert_array_equal(boundary_f1(half, everywhere, 2), [0.0, 0.0])
    assert mean_boundary_f1(np.array([0.5, np.nan, 1.0])) == 0.75
    assert np.isnan(mean_boundary_f1(boundary_f1(np.full((4, 4), 255), everywhere, 2)))


def test_ignored_pixels_make_no_contour():
    """A prediction that is right wherever there is truth, whatever it says elsewhere."""
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    labels[10:20] = 255
    predictions = np.where(labels == 255, 1, labels)
    predictions[12:15] = 0
    np.testing.assert_array_equal(boundary_f1(labels, predictions, 2, tolerance=0), [1.0, 1.0])
