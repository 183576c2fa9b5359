"""Tests object scores and box recall on hand-counted cases."""

import numpy as np
import pytest

from deconvnet_jax.evaluation import SIZES, ObjectScore, box_recall, object_scores, sums_by_size


def test_by_hand():
    """Uses an image of 1,000 pixels with two adjacent objects of one class and one object of another class."""
    labels, instances = np.zeros((2, 20, 50), np.uint8)
    labels[2:12, 5:15], instances[2:12, 5:15] = 1, 1  # 100 pixels.
    labels[2:12, 15:20], instances[2:12, 15:20] = 1, 2  # 50 pixels, touching the first object.
    labels[15:17, 40:42], instances[15:17, 40:42] = 2, 3  # 4 pixels.
    predictions = np.zeros_like(labels)
    predictions[2:12, 5:18] = 1  # All of the first object, and 30 pixels of the second.
    predictions[12, 5:15] = 1  # A wrong row in the first object's enlarged box.
    predictions[19, 5:15] = 1  # Too far away to count.
    found = object_scores(labels, instances, predictions)
    assert [score.class_id for score in found] == [1, 1, 2]
    assert [score.share for score in found] == pytest.approx([0.1, 0.05, 0.004])
    # First object: 100 of 100 + 10 pixels below it. Second: 30 of 50 + the one pixel of that row in its enlarged box.
    assert [score.iou for score in found] == pytest.approx([100 / 110, 30 / 51, 0.0])
    sums = sums_by_size(found)
    assert list(SIZES) == ["small", "medium", "large"]
    np.testing.assert_allclose(sums, [[0.0, 1], [100 / 110 + 30 / 51, 2], [0, 0]])


def test_ignored_pixels_do_not_count():
    labels, instances = np.zeros((2, 20, 20), np.uint8)
    labels[5:10, 5:10], instances[5:10, 5:10] = 3, 7
    labels[4, :], instances[4, :] = 255, 255
    predictions = np.zeros_like(labels)
    predictions[4:10, 5:10] = 3
    assert object_scores(labels, instances, predictions) == [ObjectScore(3, 25 / 400, 1.0)]
    labels[5:10, 5:10] = 255  # All pixels of this object are ignored.
    assert object_scores(labels, instances, predictions) == []


def test_recall_by_hand():
    overlaps = [
        np.array([[0.2, 0.6], [0.5, 0.1], [0.9, 0.0]]),  # Three boxes and two objects.
        np.array([[0.4]]),
        np.zeros((0, 1)),  # No box.
        np.zeros((5, 0)),  # No object.
    ]
    found = box_recall(overlaps, counts=(1, 2, 50), thresholds=(0.5, 0.7))
    np.testing.assert_allclose(found, [[1 / 4, 0], [2 / 4, 0], [2 / 4, 1 / 4]])


def test_recall_of_nothing():
    assert np.isnan(box_recall([np.zeros((5, 0))], (1,), (0.5,))).all()
    assert np.isnan(box_recall([], (1,), (0.5,))).all()


def test_recall_grows_with_boxes_and_falls_with_the_threshold(rng):
    overlaps = [rng.random((rng.integers(0, 30), rng.integers(0, 5))) for _ in range(20)]
    found = box_recall(overlaps, (1, 5, 10, 100), (0.3, 0.5, 0.7))
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) <= 0).all()
