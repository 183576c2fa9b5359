"""The evaluation of a network while it trains, divided over processes."""

import numpy as np
import pytest

from deconvnet_jax.data import Example
from deconvnet_jax.inference import MODES, Result
from experiments.common import evaluation
from experiments.configs import default


@pytest.mark.parametrize(("images", "expected"), [(0, [[0, 3, 6], [1, 4], [2, 5]]), (5, [[0, 3], [1, 4], [2]])])
def test_every_process_scores_its_share_and_all_get_the_sum(monkeypatch, rng, images, expected):
    """Images are told apart by their only value; a network that is right about all but image 1."""
    truth = rng.integers(0, 2, (7, 8, 8), np.uint8)
    source = [Example(str(i), np.full((8, 8, 3), i, np.uint8), truth[i], None) for i in range(7)]
    seen, shares = [], []

    class Known:
        def __init__(self, *_, **__):
            pass

        def segment(self, images, _):
            for image in images:
                number = image[0, 0, 0]
                seen.append(number)
                yield Result(truth[number] ^ (number == 1), None, None)

    def sum_over_processes(matrix):
        shares.append(matrix)
        return np.sum(shares, axis=0)

    monkeypatch.setattr(evaluation, "Segmenter", Known)
    monkeypatch.setattr(evaluation.jax, "process_count", lambda: 3)
    monkeypatch.setattr(evaluation, "sum_over_processes", sum_over_processes)
    config = default.get_config()
    config.eval_images = images
    evaluate = evaluation.evaluator(None, ["a", "b"], source, config)
    for process, share in enumerate(expected):
        monkeypatch.setattr(evaluation.jax, "process_index", lambda process=process: process)
        seen.clear()
        found = evaluate({})
        assert seen == share
        assert set(found.images) == {f"image{i}" for i in share[: evaluation.PICTURES]}
    total = sum(map(len, expected))
    assert found.scores["pixel_accuracy"] == pytest.approx((total - 1) / total)


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        ({"mode": "paper", "flip": True}, {"mode": "whole_image", "flip": False}),
        *[({"mode": name}, {"mode": "whole_image"}) for name, mode in MODES.items() if mode.of_proposals],
        ({"mode": "whole_image", "flip": True}, {"mode": "whole_image", "flip": True, "batch_size": 1}),
        (
            {"mode": "sliding_window", "aggregation": "mean", "crf": "usual", "ensemble_checkpoint": "runs/fcn8s"},
            {"mode": "sliding_window", "crf": "none", "ensemble_checkpoint": "", "batch_size": 10},
        ),
    ],
)
def test_images_are_segmented_as_the_config_says_without_proposals(monkeypatch, chosen, shown):
    given = []

    class Known:
        def __init__(self, *arguments):
            given.append(arguments[-1])

        def segment(self, images, _):
            return (Result(np.zeros(image.shape[:2], np.uint8), None, None) for image in images)

    monkeypatch.setattr(evaluation, "Segmenter", Known)
    config = default.get_config()
    config.inference.update(chosen)
    source = [Example("0", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8), None)]
    evaluation.evaluator(None, ["a", "b"], source, config)({})
    assert {key: getattr(given[0], key) for key in shown} == shown
