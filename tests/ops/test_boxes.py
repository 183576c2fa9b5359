"""Tests boxes: overlap against a pixel count, rankings against plain loops, and the checks of box arrays."""

import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops.boxes import box_iou, checked_boxes, rank_varied


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


# Checks of box arrays.


@pytest.mark.parametrize("dtype", [int, np.uint8, np.int64, np.float16, np.float32])
def test_boxes_of_any_numbers(dtype):
    boxes = checked_boxes(np.array([[0, 0, 10, 20], [30, 5, 31, 6]], dtype), size=(100, 50))
    np.testing.assert_array_equal(boxes, [[0, 0, 10, 20], [30, 5, 31, 6]])
    assert boxes.dtype == np.float64


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros(0), jnp.zeros((0, 4))])
def test_zero_boxes(boxes):
    assert checked_boxes(boxes, size=(10, 10)).shape == (0, 4)


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros((3, 5)),
        np.zeros((0, 5)),
        np.ones((2, 2, 4)),
        [1, 2, 3, 4],
        [["0", "0", "5", "5"]],
        "boxes",
        None,
        [[0, 0, 5, 5], [1, 2]],
        np.ones((1, 4), complex),
        np.ones((1, 4), bool),
        [[0, 0, 5, None]],
    ],
)
def test_what_is_no_array_of_boxes(boxes):
    message = r"^here: (expected boxes \[n, 4\], x0, y0, x1, y1 in pixels, got an array of|rows of different lengths)"
    with pytest.raises(InputError, match=message):
        checked_boxes(boxes, "here")


@pytest.mark.parametrize(
    "box",
    [
        (100, 80, 30, 30),  # x, y, width, height
        (5, 80, 30, 30),  # width more than x, height less than y
        (5, 5, 5, 9),
        (5, 5, 9, 5),
        (9, 9, 3, 12),
        (0, 0, -4, -4),
        (np.nan, 0, 1, 1),
        (0, 0, np.inf, 3),
        (-np.inf, 0, 1, 1),
        (0, 0, 1, np.nan),
    ],
)
def test_boxes_that_are_none(box):
    with pytest.raises(
        InputError, match=r"^here: box 1 is .*; expected x0 < x1 and y0 < y1 in pixels\. Convert x, y, width"
    ):
        checked_boxes([(0, 0, 10, 10), box, box], "here")


@pytest.mark.parametrize(
    "box", [(160, 0, 170, 10), (0, 120, 10, 130), (-10, 0, 0, 10), (0, -9, 10, 0), (500, 500, 600, 600)]
)
def test_boxes_outside_their_image(box):
    assert len(checked_boxes([box])) == 1  # Without `size`, the box cannot be compared with an image.
    checked_boxes([(-10, -10, 170, 130), (159, 119, 300, 300), box], size=(120, 160))
    with pytest.raises(InputError, match=r"^box 0 is .*, and all boxes lie outside the image of 160x120 pixels"):
        checked_boxes([box, (700, 700, 800, 800)], size=(120, 160))


def test_boxes_in_fractions_of_their_image():
    fractions = np.array([[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]])
    with pytest.raises(InputError, match="all boxes lie between 0 and 1; expected pixels of the 160x120 image"):
        checked_boxes(fractions, size=(120, 160))
    checked_boxes([*fractions, (0, 0, 20, 20)], size=(120, 160))
    checked_boxes([(0, 0, 1, 1)], size=(1, 2))


def test_functions_of_boxes_check_them():
    boxes, wrong = np.array([[0, 0, 5, 5]]), np.array([[9, 9, 5, 5]])
    for call in (
        lambda: box_iou(wrong, boxes),
        lambda: box_iou(boxes, wrong),
        lambda: rank_varied(wrong, np.ones(1), 1.0, 1),
    ):
        with pytest.raises(InputError, match="box 0 is"):
            call()
    with pytest.raises(InputError, match=r"rank_varied: scores have shape \[2\]; expected one per box, \[1\]"):
        rank_varied(boxes, np.ones(2), 1.0, 1)
