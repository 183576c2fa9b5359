"""Tests the scores on hand-computed cases, against a loop over pixels, and on masks of VOC 2012 val."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import confusion_matrix, scores_table, segmentation_scores

BY_HAND = np.array([[50, 10, 0], [5, 20, 0], [0, 0, 15]])


def test_by_hand():
    scores = segmentation_scores(BY_HAND, ["background", "cat", "dog"])
    iou = {"background": 50 / 65, "cat": 20 / 35, "dog": 1.0}
    assert scores["iou_per_class"] == pytest.approx(iou)
    assert scores["mean_iou"] == scores["mean_iou_present"] == pytest.approx(sum(iou.values()) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(85 / 100)
    assert scores["accuracy_per_class"] == pytest.approx({"background": 50 / 60, "cat": 20 / 25, "dog": 1.0})
    assert scores["mean_accuracy"] == pytest.approx((50 / 60 + 20 / 25 + 1) / 3)
    weighted = 0.60 * iou["background"] + 0.25 * iou["cat"] + 0.15 * iou["dog"]
    assert scores["frequency_weighted_iou"] == pytest.approx(weighted)
    assert scores["pixels_per_class"] == {"background": 60, "cat": 25, "dog": 15}


def test_a_class_that_is_only_predicted_counts_as_zero():
    scores = segmentation_scores(np.array([[8, 2], [0, 0]]))
    assert scores["iou_per_class"] == {"0": 0.8, "1": 0.0}
    assert scores["accuracy_per_class"] == {"0": 0.8, "1": None}
    assert scores["mean_iou"] == pytest.approx(0.4)
    assert scores["mean_iou_present"] == scores["mean_accuracy"] == scores["frequency_weighted_iou"] == 0.8


def test_a_class_without_any_pixel_is_left_out():
    matrix = np.zeros((4, 4), np.int64)
    matrix[:3, :3] = BY_HAND
    scores, without = segmentation_scores(matrix), segmentation_scores(BY_HAND)
    assert scores["iou_per_class"]["3"] is None
    assert scores["mean_iou"] == pytest.approx(without["mean_iou"])
    json.dumps(scores, allow_nan=False)


def test_equals_a_loop(rng):
    labels = rng.integers(0, 4, (30, 41)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.3] = 255
    predictions = rng.integers(0, 4, labels.shape).astype(np.uint8)
    intersection, union = [0] * 4, [0] * 4
    for truth, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        for k in range(4):
            if truth != 255:
                intersection[k] += truth == k and prediction == k
                union[k] += truth == k or prediction == k
    iou = [i / u for i, u in zip(intersection, union, strict=True)]
    scores = segmentation_scores(confusion_matrix(labels, predictions, 4))
    assert list(scores["iou_per_class"].values()) == pytest.approx(iou)
    assert scores["mean_iou"] == pytest.approx(np.mean(iou))


@pytest.fixture(scope="module")
def voc_masks(real_data):
    paths = sorted((real_data / "voc2012_val_masks/SegmentationClass").glob("*.png"))[::12]
    return [np.asarray(Image.open(path)) for path in paths]


def test_voc_masks_against_themselves(voc_masks):
    matrix = sum(confusion_matrix(mask, mask, 21) for mask in voc_masks)
    scores = segmentation_scores(matrix)
    for name in ("mean_iou", "mean_iou_present", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        assert scores[name] == 1.0
    assert set(scores["iou_per_class"].values()) == {1.0}  # All 21 classes occur.


def test_voc_masks_against_background(voc_masks):
    matrix = sum(confusion_matrix(mask, np.zeros_like(mask), 21) for mask in voc_masks)
    scores = segmentation_scores(matrix)
    share = sum((mask == 0).sum() for mask in voc_masks) / sum((mask != 255).sum() for mask in voc_masks)
    assert 0.6 < share < 0.9
    assert scores["pixel_accuracy"] == scores["iou_per_class"]["0"] == pytest.approx(share)
    assert scores["mean_iou"] == pytest.approx(share / 21)
    assert scores["mean_accuracy"] == pytest.approx(1 / 21)
    assert scores["frequency_weighted_iou"] == pytest.approx(share**2)


def test_table():
    matrix = np.zeros((4, 4), np.int64)
    matrix[:3, :3] = 1000 * BY_HAND
    text = io.StringIO()
    table = scores_table(segmentation_scores(matrix, ["background", "cat", "[dog]", "cow"]))
    Console(file=text, width=80).print(table)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.getvalue().splitlines()]
    assert ["background", "76.92", "83.33", "60,000"] in rows
    assert ["[dog]", "100.00", "100.00", "15,000"] in rows
    assert ["cow", "-", "-", "0"] in rows
    assert ["mean IoU", "78.02", "", ""] in rows
    assert ["mean accuracy", "", "87.78", ""] in rows
    assert ["pixel accuracy", "", "85.00", "100,000"] in rows
    (weighted,) = (row for row in rows if row[0] == "frequency-weighted IoU")
    assert weighted[1:] == [f"{100 * segmentation_scores(matrix)['frequency_weighted_iou']:.2f}", "", ""]


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        (np.zeros((3, 3), int), None, "empty"),
        (np.ones((3, 2), int), None, r"shape \(3, 2\); expected \[K, K\]"),
        (np.eye(2), ["a"], "expected 2 different class names"),
        (np.eye(2), ["a", "a"], "expected 2 different class names"),
    ],
)
def test_bad_input(matrix, names, message):
    with pytest.raises(InputError, match=message):
        segmentation_scores(matrix, names)
