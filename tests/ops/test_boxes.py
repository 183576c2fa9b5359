"""Overlap of boxes, counted pixel by pixel; rankings against plain loops."""

import numpy as np
import pytest

from deconvnet_jax.ops.boxes import box_iou, rank_varied


def random_boxes(rng, count, size=24):
    corners = rng.integers(-4, size, (count, 2, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def pixels(box, size=40):
    mask = np.zeros((size, size), bool)
    x0, y0, x1, y1 = np.asarray(box) + 8
    mask[y0:y1, x0:x1] = True
    return mask


def test_counted_pixels(rng):
    boxes, others = random_boxes(rng, 30), random_boxes(rng, 20)
    boxes[0] = (3, 3, 3, 9)  # empty
    others[0] = boxes[0]
    found = box_iou(boxes, others)
    assert found.shape == (30, 20)
    for i, box in enumerate(boxes):
        for j, other in enumerate(others):
            mine, its = pixels(box), pixels(other)
            union = np.count_nonzero(mine | its)
            wanted = np.count_nonzero(mine & its) / union if union else 0
            assert abs(found[i, j] - wanted) < 1e-12


def test_fractions_of_pixels_and_no_boxes():
    np.testing.assert_allclose(box_iou([[0, 0, 1, 1]], [[0.5, 0, 1.5, 1]]), [[1 / 3]])
    np.testing.assert_allclose(box_iou(np.float32([[0, 0, 2, 2]]), np.float32([[0, 0, 2, 2], [2, 0, 4, 2]])), [[1, 0]])
    assert box_iou(np.zeros((0, 4)), np.ones((3, 4))).shape == (0, 3)


@pytest.mark.parametrize(("power", "picks"), [(4.0, 100), (4.0, 7), (2.0, 30), (1.0, 0)])
def test_ranking_against_a_loop(rng, power, picks):
    boxes = np.unique(random_boxes(rng, 60), axis=0)
    boxes = boxes[(boxes[:, :2] < boxes[:, 2:]).all(axis=1)]
    scores = rng.random(len(boxes))
    order, ranked = rank_varied(boxes, scores, power, picks)
    left, wanted = dict(enumerate(scores)), []
    while left:
        best = max(left, key=left.get)
        wanted.append((best, left.pop(best)))
        if len(wanted) <= picks:
            for i in left:
                left[i] *= 1 - box_iou(boxes[[best]], boxes[[i]])[0, 0] ** power
    assert order.tolist() == [i for i, _ in wanted]
    np.testing.assert_allclose(ranked, [score for _, score in wanted])
    assert (np.diff(ranked) <= 0).all()


def test_the_same_box_again_comes_last():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60.0]])
    order, scores = rank_varied(boxes, np.array([0.9, 0.8, 0.7, 0.1]), 4.0, 10)
    assert order.tolist() == [0, 2, 3, 1]
    assert scores[-1] == 0
    assert rank_varied(np.zeros((0, 4)), np.zeros(0), 4.0, 10)[0].shape == (0,)
