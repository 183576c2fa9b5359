"""Masks that nothing can be learned from are refused with the remedy that fits; masks that look like them are not."""

import re

import numpy as np
import pytest

from deconvnet_jax.data.mask_ids import SplitIds, check_ids, is_trained_on, unknown_ids_remedy
from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import label_image

CLASSES = ("background", "road", "car")


@pytest.mark.parametrize(
    ("ids", "trained", "message"),
    [
        ({0, 255}, True, r"'train' hold only 0 and 255, .*import_masks --binary=NAME, or save mask // 255$"),
        ({0, 255}, False, "hold only 0 and 255"),
        ({255}, False, "hold only 255, which marks ignored pixels; .*: export the masks again with class ids"),
        (set(), False, "hold only 255"),
        (
            {0},
            True,
            r"show only 'background' \(id 0\), .* expected at least two classes: write 1, 2, ... where objects",
        ),
        ({2}, True, r"show only 'car' \(id 2\), .*: write 0 where the background is$"),
        (
            {1, 255},
            True,
            r"show only 'road' \(id 1\), .*: write 0 where the background is, instead of 255, which marks",
        ),
    ],
)
def test_masks_that_teach_nothing(ids, trained, message):
    with pytest.raises(InputError, match=message) as caught:
        check_ids(ids, "data", "train", CLASSES, trained)
    assert str(caught.value).startswith("data: the masks of the split 'train' ")
    assert "\n" not in str(caught.value)


def test_the_name_of_a_single_class_is_in_the_command():
    with pytest.raises(InputError, match="--binary=road"):
        check_ids({0, 255}, "data", "val", CLASSES[:2], trained=False)


@pytest.mark.parametrize(
    ("ids", "trained"),
    [({0, 1}, True), ({0, 1, 255}, True), ({1, 2}, True), ({1, 2, 255}, True), ({0}, False), ({1, 255}, False)],
)
def test_masks_that_are_fine(ids, trained):
    """VOC's 255 along borders, one class with the ids 0 and 1, no background, and a split of negatives to score on."""
    check_ids(ids, "data", "train", CLASSES, trained)


def test_splits_that_are_trained_on():
    splits = ["train", "train_aug", "trainval", "val"]
    assert [split for split in splits if is_trained_on(split, splits)] == ["train", "train_aug", "trainval"]
    assert is_trained_on("street", ["street"])


def found(*masks):
    ids = SplitIds()
    for i, mask in enumerate(masks):
        ids.add(f"im{i}", np.array([mask], np.uint8))
    return ids


def test_what_the_masks_of_a_split_hold():
    ids = found([0, 1], [0, 255], [2, 2])
    assert (ids.masks, ids.ids, ids.binary) == (3, {0, 1, 2, 255}, ["im1"])


def test_some_masks_of_0_and_255_among_others_are_warned_of():
    (warning,) = found([0, 1, 255], [0, 255], [0, 255]).warnings("train", CLASSES)
    assert warning.startswith("2 of 3 masks of the split 'train' hold only 0 and 255, among them that of 'im1'")
    assert found(*[[0, 1]] * 9, [0, 255]).warnings("train", CLASSES) == []  # One in ten may hold only ignored objects.
    assert found([0, 1], [0, 0]).warnings("train", CLASSES) == []


def test_a_split_of_one_class_is_warned_of():
    assert found([0], [0, 255]).warnings("val", CLASSES) == [
        "the masks of the split 'val' show only 'background'; check them before training"
    ]


def greys(*ids):
    """The greys that Pillow makes of VOC's colours of some ids."""
    return np.array(label_image(np.array([ids], np.uint8)).convert("RGB").convert("L"))


@pytest.mark.parametrize(
    ("label", "named", "message"),
    [
        (
            np.array([[0, 128]]),
            True,
            r"if 128 marks the object, import the masks: .*import_masks --binary=NAME --threshold=128$",
        ),
        (np.array([[0, 127, 255]]), True, "if 127 marks the object"),
        (greys(0, 1, 2), True, r"these are the greys of VOC's colours, 38 of id 1, .*; use the coloured mask"),
        (greys(0, 2, 3, 255), True, "these are the greys of VOC's colours, 75 of id 2"),
        (np.arange(100)[None], True, "that many numbers come from smoothing or JPEG; export the mask as PNG"),
        (np.array([[0, 1, 30]]), False, "without classes.txt the classes are VOC's; name yours there"),
        (np.array([[0, 1, 30]]), True, "correct the mask, or name all classes in classes.txt"),
        (np.array([[0, 128, 255, 64]]), True, "correct the mask"),
    ],
)
def test_what_to_do_about_other_numbers(label, named, message):
    remedy = unknown_ids_remedy(label.astype(np.uint8), 21, named)
    assert re.match(message, remedy), remedy


def test_the_greys_are_those_of_a_converted_mask():
    assert greys(1, 2, 3).tolist() == [[38, 75, 113]]
