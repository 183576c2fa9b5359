"""Segmentations are drawn pixel by pixel as pycocotools draws them, and damaged ones are refused."""

from pathlib import PurePosixPath

import numpy as np
import pytest
from coco_files import HEIGHT, WIDTH, rectangle
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from deconvnet_jax.data.coco_annotations import CocoImage, CocoObject
from deconvnet_jax.data.coco_masks import paint
from deconvnet_jax.errors import InputError


def compressed(mask):
    runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def uncompressed(mask):
    column_by_column = np.concatenate([[0], mask.ravel("F"), [2]])
    ends = np.flatnonzero(np.diff(column_by_column.astype(int)))
    counts = np.diff(ends, prepend=0).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if mask[0, 0] and ends[0] else counts}


def painted(*items, height=HEIGHT, width=WIDTH):
    """Draws an image with objects (class id, crowd, segmentation); returns class mask, object mask and class ids."""
    objects = [CocoObject(f"annotations[{i}]", *item) for i, item in enumerate(items)]
    return paint(CocoImage("images[0]", PurePosixPath("a.jpg"), height, width, objects))


corner = st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), st.integers(1, 9), st.integers(1, 9))


@given(st.lists(corner, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_rectangles_of_whole_pixels(corners):
    """Compares with slices of an array that are filled one by one, the largest first, overlaps included."""
    boxes = [(x, y, min(x + w, WIDTH), min(y + h, HEIGHT)) for x, y, w, h in corners]
    label, instances, class_ids = painted(*((i % 3 + 1, False, rectangle(*box)) for i, box in enumerate(boxes)))
    order = sorted(range(len(boxes)), key=lambda i: -(boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]))
    owner = np.full((HEIGHT, WIDTH), -1)
    for i in order:
        x0, y0, x1, y1 = boxes[i]
        owner[y0:y1, x0:x1] = i
    visible = [i for i in range(len(boxes)) if (owner == i).any()]
    for number, i in enumerate(visible, start=1):
        np.testing.assert_array_equal(instances == number, owner == i)
        assert (label[owner == i] == i % 3 + 1).all()
    assert not label[owner < 0].any()
    assert class_ids.tolist() == [i % 3 + 1 for i in visible]


@pytest.mark.parametrize("encode", [compressed, uncompressed])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_run_lengths_give_the_mask(encode, share, rng):
    for height, width in ((1, 1), (1, 40), (37, 1), (23, 41), (200, 310)):
        mask = rng.random((height, width)) < share
        np.testing.assert_array_equal(painted((2, False, encode(mask)), height=height, width=width)[0], 2 * mask)


def test_several_polygons_are_one_object():
    label, instances, _ = painted(
        (4, False, [*rectangle(0, 0, 4, 4), *rectangle(2, 2, 8, 6), *rectangle(20, 10, 25, 15)])
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:4, :4] = expected[2:6, 2:8] = expected[10:15, 20:25] = 1
    np.testing.assert_array_equal(instances, expected)
    np.testing.assert_array_equal(label, 4 * expected)


def test_polygons_of_any_shape_cover_what_they_cover_for_pycocotools(rng):
    for _ in range(50):
        polygons = [rng.uniform(-3, 33, 2 * rng.integers(3, 20)).tolist() for _ in range(rng.integers(1, 4))]
        expected = coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH))
        label = painted((1, False, polygons))[0]
        assert coco_mask.encode(np.asfortranarray(label))["counts"] == expected["counts"]


def test_polygon_that_leaves_the_image():
    label, *_ = painted((1, False, rectangle(-5, -4, 8, 6)), (2, False, rectangle(25, 15, 40, 33)))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:6, :8], expected[15:, 25:] = 1, 2
    np.testing.assert_array_equal(label, expected)


def test_the_smaller_object_wins():
    large, small = (1, False, rectangle(0, 0, 20, 20)), (2, False, rectangle(15, 5, 25, 10))
    for items in ((large, small), (small, large)):
        label = painted(*items)[0]
        assert (label[5:10, 15:25] == 2).all()
        assert (label == 1).sum() == 400 - 25
    same = (1, False, rectangle(0, 0, 5, 5)), (2, False, rectangle(0, 0, 5, 5))
    label, instances, class_ids = painted(*same)
    assert (label[:5, :5] == 2).all()
    assert (class_ids.tolist(), int(instances.max())) == ([2], 1)


def test_crowds_are_ignored_where_no_object_is():
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[:10] = True
    label, instances, _ = painted((1, True, compressed(crowd)), (2, False, rectangle(5, 5, 15, 15)))
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[5:15, 5:15] = True
    for mask, value in ((label, 2), (instances, 1)):
        np.testing.assert_array_equal(mask, np.where(inside, value, np.where(crowd, 255, 0)))


@pytest.mark.parametrize("text", ["", "0", "~~~", "\n", "é", "Q", "oooooooooooooooooooooo0", "999", "h4999999", "NN"])
def test_damaged_text_is_refused(text):
    with pytest.raises(InputError, match=r"^annotations\[0\] has damaged run lengths"):
        painted((1, False, {"size": [5, 5], "counts": text}), height=5, width=5)
