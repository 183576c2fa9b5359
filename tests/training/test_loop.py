"""Whole runs of a tiny network: what they write, and that an interrupted run ends as one that was not."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import network_from_config
from deconvnet_jax.training import Evaluation, claim_workdir, init_variables, train
from deconvnet_jax.weights import load_checkpoint

MODEL = {
    "num_classes": 3,
    "width": 1 / 32,
    "decoder_width": 1.0,
    "fc_features": 4,
    "fc_window": 1,
    "bn_epsilon": 1e-5,
    "bn_momentum": 0.9,
    "dtype": "float32",
}
CONFIG = {
    "num_steps": 4,
    "batch_size": 8,
    "model": MODEL,
    "optimizer": {
        "learning_rate": 0.1,
        "drops": (3,),
        "drop_factor": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "bias_rate": 2.0,
        "freeze": (),
    },
    "log_every": 2,
    "eval_every": 2,
    "checkpoint_every": 1,
}
SCORES = {"mean_iou": 0.5, "pixel_accuracy": 0.7}


class CountedBatches:
    """Batch i is drawn from seed i; `stop` raises in its place, as a preempted machine would."""

    def __init__(self, stop=None):
        self.position, self.stop = 0, stop

    def __next__(self):
        if self.position == self.stop:
            raise KeyboardInterrupt
        rng = np.random.default_rng(self.position)
        self.position += 1
        return {
            "image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
            "label": rng.integers(0, 3, (8, 32, 32), np.uint8),
        }

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def start(folder, config=CONFIG, batches=None, variables=None):
    net = network_from_config(config["model"])
    return train(
        config,
        claim_workdir(folder, config),
        net=net,
        variables=init_variables(net, seed=0) if variables is None else variables,
        batches=batches or CountedBatches(),
        info={"config": json.loads(json.dumps(config)), "class_names": ["a", "b", "c"]},
        evaluate=lambda _: Evaluation(SCORES, {"image0": np.zeros((5, 7, 3), np.uint8)}),
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert start(folder) == SCORES
    return folder


def test_what_a_run_writes(finished):
    written = lines(finished)
    assert [line["step"] for line in written] == [2, 2, 4, 4]
    first, evaluation, last, _ = written
    assert first["train/learning_rate"] == pytest.approx(0.1)
    assert last["train/learning_rate"] == pytest.approx(0.01)
    assert first["train/loss"] == pytest.approx(np.log(3), rel=0.3)
    assert first["train/images_per_second"] > 0
    assert evaluation == {"step": 2, "eval/mean_iou": 0.5, "eval/pixel_accuracy": 0.7}
    with Image.open(finished / "pictures/step_000004_image0.png") as picture:
        assert picture.size == (7, 5)
    assert list((finished / "tensorboard").iterdir())
    net, variables, info = load_checkpoint(finished, 4)
    assert net == network_from_config(MODEL)
    assert info["class_names"] == ["a", "b", "c"]
    assert set(variables) == {"params", "batch_stats"}


def test_an_interrupted_run_ends_as_one_that_was_not(finished, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, batches=CountedBatches(stop=3))
    assert start(tmp_path) == SCORES
    _, expected, _ = load_checkpoint(finished, 4)
    _, resumed, _ = load_checkpoint(tmp_path, 4)
    jax.tree.map(np.testing.assert_array_equal, resumed, expected)


def test_a_finished_run_does_nothing_more(finished):
    before = (finished / "metrics.jsonl").read_bytes()
    assert start(finished, batches=CountedBatches(stop=4)) == {}
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(tmp_path):
    config = {**CONFIG, "log_every": 1, "optimizer": {**CONFIG["optimizer"], "learning_rate": 1e30}}
    with pytest.raises(InputError, match=r"the loss is nan at step \d; lower config.optimizer.learning_rate"):
        start(tmp_path, config)
    assert [line for line in lines(tmp_path) if "train/loss" in line]
