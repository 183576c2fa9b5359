"""Tests edge scores on hand-made cases and against all distances by brute force."""

import numpy as np
import pytest

from deconvnet_jax.evaluation import edge_scores

SIZE = 120  # 0.75 % of the diagonal are 1.27 pixels.


def column(x, value=1.0):
    picture = np.zeros((SIZE, SIZE), np.float32)
    picture[:, x] = value
    return picture


def test_hand_made():
    found = edge_scores([(column(40), column(41))])  # The lines are within the tolerance.
    assert (found.ods, found.ois, found.precision, found.recall) == (1, 1, 1, 1)
    assert edge_scores([(column(40), column(43))]).ods == 0
    # Half of the drawn pixels are found, and a third of the predicted pixels are wrong.
    found = edge_scores([(column(10) + column(20) + column(90), column(10) + column(20) + column(50) + column(60))])
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), pytest.approx(1 / 2))
    assert found.ods == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))


def test_lines_that_many_people_drew_count_more():
    share = column(30, 0.8) + column(70, 0.2)
    assert edge_scores([(column(30), share)]).recall == pytest.approx(0.8)
    assert edge_scores([(column(70), share)]).recall == pytest.approx(0.2)


def test_one_threshold_for_all_and_one_for_each():
    # The value 0.3 is right in one image and wrong in the other.
    dim, bright = column(30, 0.3), column(30, 0.9) + column(90, 0.3)
    found = edge_scores([(dim, column(30)), (bright, column(30))])
    assert found.ois == 1
    assert found.ods == pytest.approx(0.8)  # Three lines of which one is wrong, or one line of two.
    assert 0 < found.threshold <= 0.3


def test_nothing_predicted_or_drawn():
    nothing = np.zeros((SIZE, SIZE), np.float32)
    assert edge_scores([(nothing, column(3))]).ods == 0
    assert edge_scores([(column(3), nothing)]).ods == 0


def test_brute_force(rng):
    thresholds = np.array([0.25, 0.5, 0.75])
    pairs = []
    for _ in range(3):
        edges = np.where(rng.random((150, 200)) < 0.03, rng.random((150, 200)), 0)
        share = np.where(rng.random((150, 200)) < 0.02, rng.integers(1, 6, (150, 200)) / 5, 0)
        pairs.append((edges, share))
    counts = np.zeros((3, 3, 4))  # Images, thresholds, counts.
    for i, (edges, share) in enumerate(pairs):
        for j, threshold in enumerate(thresholds):
            mine, its = np.argwhere(edges >= threshold), np.argwhere(share > 0)
            near = np.linalg.norm(mine[:, None] - its[None], axis=2) <= 0.0075 * np.hypot(150, 200)
            weights = share[share > 0]
            counts[i, j] = near.any(axis=1).sum(), len(mine), weights[near.any(axis=0)].sum(), weights.sum()

    def f_measure(right, predicted, found, drawn):
        precision, recall = right / predicted, found / drawn
        return 2 * precision * recall / max(precision + recall, 1e-12)

    found = edge_scores(pairs, thresholds)
    of_all = [f_measure(*counts[:, j].sum(axis=0)) for j in range(3)]
    assert found.ods == pytest.approx(max(of_all))
    assert found.threshold == thresholds[np.argmax(of_all)]
    best = [max(of_image, key=lambda row: f_measure(*row)) for of_image in counts]
    assert found.ois == pytest.approx(f_measure(*np.sum(best, axis=0)))
