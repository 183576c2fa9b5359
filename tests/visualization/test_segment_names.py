"""Tests that names lie on their segments, are readable, and do not cover each other."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.visualization import class_legend, confusion_picture, overlay
from deconvnet_jax.visualization.fonts import drawable
from deconvnet_jax.visualization.segment_names import write_names

NAMES = ("background", "cat", "dog", "an extraordinarily long name of a class")


def written(picture, labels, names=NAMES):
    """Returns which pixels the names change."""
    return (write_names(picture, labels, names) != picture).any(-1)


@pytest.mark.parametrize("colour", [0, 127, 255])
def test_names_are_readable_on_any_colour(colour):
    """Text is white with a black outline, so both colours occur."""
    picture, labels = np.full((200, 300, 3), colour, np.uint8), np.ones((200, 300), np.uint8)
    drawn = write_names(picture, labels, NAMES)
    assert drawn.min() == 0
    assert drawn.max() == 255
    changed = (drawn != colour).any(-1)
    assert 30 < changed.sum() < 1500


def test_a_name_lies_on_its_segment_far_from_the_edge():
    labels = np.zeros((200, 300), np.uint8)
    labels[20:120, 150:290] = 2
    rows, columns = np.nonzero(written(np.full((200, 300, 3), 128, np.uint8), labels))
    assert abs((rows.min() + rows.max()) / 2 - 70) < 12
    assert abs((columns.min() + columns.max()) / 2 - 220) < 12


def test_a_ring_carries_its_name_on_the_ring():
    """The centre of a ring belongs to another class."""
    rows, columns = np.indices((300, 300))
    distance = np.hypot(rows - 150, columns - 150)
    labels = ((distance > 80) & (distance < 140)).astype(np.uint8)
    changed = written(np.full((300, 300, 3), 128, np.uint8), labels)
    assert changed.any()
    assert labels[changed].mean() > 0.75


def test_segments_that_are_too_small_get_no_name():
    labels = np.zeros((200, 300), np.uint8)
    labels[50:54, 50:200] = 1  # flat
    labels[100:140, 100:104] = 2  # narrow
    labels[150:170, 10:60] = 3  # large enough, but the name is longer
    labels[::7, ::7] = 1  # specks
    assert not written(np.full((200, 300, 3), 128, np.uint8), labels).any()


def test_every_segment_of_a_class_gets_the_name():
    labels = np.zeros((200, 300), np.uint8)
    labels[20:80, 20:120] = labels[120:180, 180:280] = 1
    changed = written(np.full((200, 300, 3), 128, np.uint8), labels)
    assert changed[20:80, 20:120].any()
    assert changed[120:180, 180:280].any()


def test_names_do_not_cover_each_other():
    """Stripes of two classes lie in each other's way: only where there is room for both names are both written."""
    labels = np.ones((60, 100), np.uint8)
    labels[22:38] = 2
    picture = np.full((60, 100, 3), 128, np.uint8)
    both = written(picture, labels)
    alone = [written(picture, np.where(labels == i, i, 0).astype(np.uint8)) for i in (1, 2)]
    assert not (alone[0] & alone[1]).any()
    assert both.sum() >= max(change.sum() for change in alone)


def test_background_and_ignored_pixels_get_no_name():
    picture = np.full((100, 100, 3), 128, np.uint8)
    for labels in (np.zeros((100, 100), np.uint8), np.full((100, 100), 255, np.uint8)):
        assert not written(picture, labels).any()


def test_text_grows_with_the_picture():
    heights = []
    for side in (200, 2000):
        rows, _ = np.nonzero(written(np.full((side, side, 3), 128, np.uint8), np.ones((side, side), np.uint8)))
        heights.append(np.ptp(rows))
    assert 5 < heights[1] / heights[0] < 9


def test_overlays_have_names_on_demand(rng):
    image, labels = rng.integers(0, 256, (100, 150, 3), np.uint8), np.ones((100, 150), np.uint8)
    np.testing.assert_array_equal(
        overlay(image, labels, class_names=NAMES), write_names(overlay(image, labels), labels, NAMES)
    )
    with pytest.raises(InputError, match="class id 7 has no name"):
        overlay(image, labels * 7, class_names=NAMES)


def test_a_name_that_the_font_lacks_becomes_the_id():
    """Boxes for missing characters would be all that a reader sees. Other names stay as they are."""
    picture, labels = np.full((200, 300, 3), 128, np.uint8), np.ones((200, 300), np.uint8)
    expected = write_names(picture, labels, ("background", "class 1"))
    np.testing.assert_array_equal(write_names(picture, labels, ("background", "猫")), expected)
    np.testing.assert_array_equal(class_legend([1], ["", "猫 cat"], 99), class_legend([1], ["", "class 1"], 99))
    assert drawable("été жук", 1) == "été жук"
    confusion_picture(np.eye(2), ["背景", "$"]).canvas.draw()  # Matplotlib warns of missing characters.
