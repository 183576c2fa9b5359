"""Tests that images added one by one give the scores of the set."""

import json

import numpy as np
import pytest

from deconvnet_jax.evaluation import Tally, boundary_f1, confusion_matrix, scores_table, segmentation_scores
from deconvnet_jax.evaluation.boundary_f1 import mean_boundary_f1

NAMES = ["background", "cat", "dog"]


def images(rng, count=3):
    """Returns ground truth, predictions and instances made of blocks; the last image has no dog."""
    for i in range(count):
        truth = np.kron(rng.integers(0, 2 if i == count - 1 else 3, (4, 5)), np.ones((8, 8), int)).astype(np.uint8)
        truth[0, 0] = 1
        instances = (truth > 0).astype(np.uint8) * (1 + truth)
        yield truth, np.roll(truth, 1, 1), instances


def test_scores_are_those_of_all_images(rng):
    tally, pairs = Tally(3), list(images(rng))
    for truth, prediction, instances in pairs:
        tally.add(truth, prediction, instances)
    scores = tally.scores(NAMES)
    matrix = sum(confusion_matrix(truth, prediction, 3) for truth, prediction, _ in pairs)
    expected = segmentation_scores(matrix, NAMES)
    assert {key: scores[key] for key in expected} == expected
    contours = np.array([boundary_f1(truth, prediction, 3) for truth, prediction, _ in pairs])
    assert scores["boundary_f1"] == pytest.approx(np.mean([mean_boundary_f1(row) for row in contours]))
    assert list(scores["boundary_f1_per_class"].values()) == pytest.approx(np.nanmean(contours, axis=0))
    assert sum(scores["objects"].values()) == sum(len(np.unique(instances)) - 1 for _, _, instances in pairs)
    json.dumps(scores, allow_nan=False)
    shown = scores_table(scores)
    assert shown.columns[-1].header == "boundary F1 %"
    assert "large objects" in list(shown.columns[0].cells)


def test_of_several_processes(rng):
    """Each process adds its own images, and all processes get the sum."""
    alone, parts = Tally(3), []
    for truth, prediction, instances in images(rng):
        alone.add(truth, prediction, instances)
        part = Tally(3)
        part.add(truth, prediction, instances)
        parts.append(part)
    arrays = [[] for _ in parts]
    for part, of_part in zip(parts, arrays, strict=True):
        part.summed(lambda values, of_part=of_part: of_part.append(values) or values)
    sums = iter([sum(values) for values in zip(*arrays, strict=True)])
    together = parts[0].summed(lambda _: next(sums)).scores(NAMES)
    expected = alone.scores(NAMES)
    assert together["mean_iou"] == expected["mean_iou"]
    assert together["boundary_f1"] == pytest.approx(expected["boundary_f1"])
    assert together["object_iou"] == pytest.approx(expected["object_iou"])


def test_without_instances_there_are_no_objects(rng):
    tally = Tally(3)
    tally.add(*next(images(rng))[:2])
    assert "object_iou" not in tally.scores(NAMES)


def test_many_classes(rng):
    labels = np.kron(rng.integers(0, 459, (4, 5)), np.ones((8, 8), int)).astype(np.uint16)
    labels[:8, :8] = 255
    labels[-1] = 65535
    tally = Tally(459)
    tally.add(labels, labels)
    assert tally.matrix.sum() == 31 * 40
    assert tally.matrix[255, 255] >= 64
    assert tally.scores([f"class {i}" for i in range(459)])["boundary_f1"] == 1
