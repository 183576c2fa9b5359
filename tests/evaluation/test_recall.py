"""Recall of boxes, counted by hand."""

import numpy as np

from deconvnet_jax.evaluation import box_recall


def test_by_hand():
    overlaps = [
        np.array([[0.2, 0.6], [0.5, 0.1], [0.9, 0.0]]),  # 3 boxes, 2 objects
        np.array([[0.4]]),
        np.zeros((0, 1)),  # no box
        np.zeros((5, 0)),  # no object
    ]
    found = box_recall(overlaps, counts=(1, 2, 50), thresholds=(0.5, 0.7))
    np.testing.assert_allclose(found, [[1 / 4, 0], [2 / 4, 0], [2 / 4, 1 / 4]])


def test_nothing_to_find():
    assert np.isnan(box_recall([np.zeros((5, 0))], (1,), (0.5,))).all()
    assert np.isnan(box_recall([], (1,), (0.5,))).all()


def test_grows_with_boxes_and_falls_with_the_threshold(rng):
    overlaps = [rng.random((rng.integers(0, 30), rng.integers(0, 5))) for _ in range(20)]
    found = box_recall(overlaps, (1, 5, 10, 100), (0.3, 0.5, 0.7))
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) <= 0).all()
