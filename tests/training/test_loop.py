"""Checks whole runs of a tiny network: what they write, and that interrupted runs end like uninterrupted ones."""

import json
import os
import signal
import time
from functools import cache, partial

import jax
import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import network_from_config
from deconvnet_jax.training import (
    AXIS_NAME,
    Evaluation,
    Preempted,
    batch_layout,
    claim_workdir,
    init_variables,
    loop,
    train,
    train_step,
)
from deconvnet_jax.training.trackers import TRACKERS
from deconvnet_jax.weights import load_checkpoint, open_checkpoints

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
    "seed": 0,
    "num_steps": 4,
    "batch_size": 8,
    "micro_batch": 0,
    "bn_group": 0,
    "caffe_gradients": False,
    "remat": False,
    "all_reduce_dtype": "float32",
    "profile": 0,
    "model": MODEL,
    "optimizer": {
        "learning_rate": 0.1,
        "schedule": "step",
        "drops": (3,),
        "drop_factor": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "decay_bn": True,
        "bias_rate": 2.0,
        "rates": (),
        "freeze": (),
    },
    "log_every": 2,
    "eval_every": 2,
    "checkpoint_every": 1,
}
pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("shallow", "shared_steps")]

SCORES = {"mean_iou": 0.5, "pixel_accuracy": 0.7}


def batch_of(position):
    rng = np.random.default_rng(position)
    return {
        "image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "label": rng.integers(0, 3, (8, 32, 32), np.uint8),
    }


class CountedBatches:
    """Iterator whose batch i is drawn from seed i; raises KeyboardInterrupt in place of batch `stop`."""

    def __init__(self, stop=None):
        self.position, self.stop = 0, stop

    def __next__(self):
        if self.position == self.stop:
            raise KeyboardInterrupt
        self.position += 1
        return batch_of(self.position - 1)

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def found(_):
    return Evaluation({**SCORES, "iou/a": 0.5, "iou/b": float("nan")}, {"image0": np.zeros((5, 7, 3), np.uint8)})


@cache
def initial_variables():
    return jax.device_get(init_variables(network_from_config(MODEL), seed=0))


def start(folder, config=CONFIG, batches=None, evaluate=found):
    net = network_from_config(config["model"])
    return train(
        config,
        claim_workdir(folder, config),
        net=net,
        variables=initial_variables(),
        batches=batches or CountedBatches(),
        info={"config": json.loads(json.dumps(config)), "class_names": ["a", "b", "c"]},
        evaluate=evaluate,
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_result(folder, expected, averages=True):
    """Compares the checkpoints of step 4 bit for bit."""
    results = (load_checkpoint(run, 4, averages)[1] for run in (folder, expected))
    jax.tree.map(np.testing.assert_array_equal, *results)


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
    assert evaluation == {"step": 2, "eval/mean_iou": 0.5, "eval/pixel_accuracy": 0.7, "eval/iou/a": 0.5}
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
    assert_same_result(tmp_path, finished)


def test_a_finished_run_does_nothing_more(finished):
    before = (finished / "metrics.jsonl").read_bytes()
    assert start(finished, batches=CountedBatches(stop=4)) == SCORES
    assert (finished / "metrics.jsonl").read_bytes() == before


class Recorder:
    """A tracker that records what it gets."""

    def __init__(self, begin):
        self.run, self.begin, self.scalars, self.pictures = begin.run or "run 7", begin, [], []

    def log_scalars(self, step, scalars):
        self.scalars.append({"step": step, **scalars})

    def log_images(self, step, images):
        self.pictures += [(step, name) for name in images]

    def finish(self, status):
        self.status = status


def test_a_tracker_gets_what_a_run_writes_and_continues_with_it(tmp_path, monkeypatch):
    recorders = []
    row = TRACKERS["wandb"]._replace(connect=lambda begin: recorders.append(Recorder(begin)) or recorders[-1])
    monkeypatch.setitem(TRACKERS, "wandb", row)
    config = {**CONFIG, "tracker": "wandb", "tracker_project": "birds"}
    with pytest.raises(Preempted):
        start(tmp_path, {**config, "checkpoint_every": 0}, TerminatedBatches(0))
    assert start(tmp_path, config) == SCORES
    first, second = recorders
    assert (first.status, second.status) == ("interrupted", "finished")
    assert (first.begin.run, second.begin.run) == (None, "run 7")
    assert (second.begin.project, second.begin.name) == ("birds", tmp_path.name)
    assert second.begin.settings["optimizer.learning_rate"] == 0.1
    written = lines(tmp_path)
    assert written == (first.scalars + second.scalars)[-len(written) :]
    assert second.pictures[-1] == (4, "eval/image0")


def test_a_run_that_diverges_stops_at_that_step_and_keeps_batch_and_checkpoint(tmp_path):
    """Every step is checked, also those that are not logged, in a new run and in a resumed one."""
    optimizer = {**CONFIG["optimizer"], "drops": (2,), "drop_factor": 1e35}
    config = {**CONFIG, "num_steps": 8, "log_every": 8, "eval_every": 0, "optimizer": optimizer}
    start(tmp_path / "resumed", {**config, "num_steps": 2, "eval_every": 2})
    for folder in (tmp_path / "resumed", tmp_path / "whole"):
        with pytest.raises(
            InputError, match=r"diverged at step 3: loss .*\. To resume from the good checkpoint of step 2, add"
        ):
            start(folder, config)
        saved = np.load(folder / "diverged/step_000003_process_0.npz")
        expected = batch_of(2)
        for key in ("image", "label"):
            np.testing.assert_array_equal(saved[key], expected[key])
        kept = load_checkpoint(folder)
        assert kept[2]["step"] == 2
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept[1]))


ADAMW = {"name": "adamw", "learning_rate": 0.01, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "warmup_steps": 2}
COSINE = {"schedule": "cosine", "decay_steps": 4, "end_factor": 0.0, "power": 0.9}
AVERAGED = {**CONFIG, "eval_every": 1, "ema_decay": 0.15, "optimizer": {**CONFIG["optimizer"], **ADAMW, **COSINE}}


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """Two runs with AdamW, with and without averages: {decay: (folder, the variables that evaluations got)}."""
    runs = {}
    for decay in (0.15, 0.0):
        folder, seen = tmp_path_factory.mktemp("averaged"), []
        start(folder, {**AVERAGED, "ema_decay": decay}, evaluate=partial(seen_by, seen))
        runs[decay] = folder, seen
    return runs


def seen_by(seen, variables):
    seen.append(jax.device_get(variables))
    return found(variables)


def test_evaluations_and_predictions_use_the_averages(averaged):
    """They equal a loop in NumPy over the variables of the run without averages, which learns the same."""
    (folder, seen), (plain, weights) = averaged[0.15], averaged[0.0]
    expected = jax.tree.map(np.float64, initial_variables())
    for done, (average, variables) in enumerate(zip(seen, weights, strict=True)):
        decay = min(0.15, (1 + done) / (10 + done))  # 0.1, then 0.15
        expected = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, expected, variables)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), average, expected)
    assert set(expected) == {"params", "batch_stats"}
    assert not np.allclose(seen[-1]["params"]["conv1_1"]["kernel"], weights[-1]["params"]["conv1_1"]["kernel"])
    for variables, run, averages in ((seen, folder, True), (weights, folder, False), (weights, plain, True)):
        jax.tree.map(np.testing.assert_array_equal, load_checkpoint(run, 4, averages)[1], variables[-1])


def test_an_interrupted_run_with_adamw_and_averages(averaged, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, AVERAGED, CountedBatches(stop=3))
    assert start(tmp_path, AVERAGED) == SCORES
    assert_same_result(tmp_path, averaged[0.15][0])
    assert_same_result(tmp_path, averaged[0.15][0], averages=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ema_decay": 0.2}, "ema_decay was 0.15 and is now 0.2; use another --workdir to start a new run$"),
        ({"name": "sgd"}, "optimizer.name was 'adamw' and is now 'sgd'; use another --workdir to start a new run$"),
        ({"decay_steps": 9}, "decay_steps was 4 and is now 9; .*, or --accept_changes to resume with the new value$"),
    ],
)
def test_what_a_resumed_run_may_change(averaged, change, message):
    (key,) = change
    config = (
        {**AVERAGED, **change} if key in AVERAGED else {**AVERAGED, "optimizer": {**AVERAGED["optimizer"], **change}}
    )
    with pytest.raises(InputError, match=message):
        claim_workdir(averaged[0.15][0], config)
    if key != "decay_steps":
        with pytest.raises(InputError, match=message):
            claim_workdir(averaged[0.15][0], config, accept_changes=True)


class TerminatedBatches(CountedBatches):
    """Iterator that sends a signal to this process before batch `at`."""

    def __init__(self, at, number=signal.SIGTERM):
        super().__init__()
        self.at, self.number = at, number

    def __next__(self):
        if self.position == self.at:
            os.kill(os.getpid(), self.number)
            self.at = None
        return super().__next__()


@pytest.mark.parametrize("at", [0, 3, 5])
def test_sigterm_saves_and_the_run_goes_on_as_if_nothing_had_happened(finished, tmp_path, at):
    """Batches are read ahead, so the signal is noticed at an earlier step."""
    config = {**CONFIG, "checkpoint_every": 0, "eval_every": 0}
    with pytest.raises(Preempted) as stop:
        start(tmp_path, config, TerminatedBatches(at))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()] == [str(stop.value.step)]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert start(tmp_path) == SCORES
    assert_same_result(tmp_path, finished)


def test_ctrl_c_saves_and_a_second_one_stops_at_once(tmp_path):
    config = {**CONFIG, "checkpoint_every": 0, "eval_every": 0}
    with pytest.raises(Preempted) as stop:
        start(tmp_path / "a", config, TerminatedBatches(3, signal.SIGINT))
    assert stop.value.signal == signal.SIGINT
    assert load_checkpoint(tmp_path / "a")[2]["step"] == stop.value.step

    class Impatient(TerminatedBatches):
        def __next__(self):
            if self.position == self.at:
                os.kill(os.getpid(), self.number)
            return super().__next__()

    before = signal.getsignal(signal.SIGINT)  # it is ignored if tests run in the background of a shell
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "b", config, Impatient(3, signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) == before


def test_sigterm_in_an_evaluation_stops_it_at_once_and_it_comes_later(finished, tmp_path):
    def evaluate(_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        raise AssertionError("not reached")

    with pytest.raises(Preempted) as stop:
        start(tmp_path, evaluate=evaluate)
    assert stop.value.step == 2
    assert start(tmp_path) == SCORES
    assert_same_result(tmp_path, finished)
    assert [line["step"] for line in lines(tmp_path)] == [2, 2, 4, 4]
    with open_checkpoints(tmp_path / "checkpoints") as manager:
        assert manager.metrics(4) == SCORES


def test_an_evaluation_that_fails_loses_nothing(tmp_path):
    def evaluate(_):
        raise InputError("a mask is damaged")

    with pytest.raises(InputError, match="a mask is damaged"):
        start(tmp_path, evaluate=evaluate)
    assert load_checkpoint(tmp_path)[2]["step"] == 2


def test_the_learning_rate_drops_when_evaluations_no_longer_improve(tmp_path):
    """Holds also if the run is interrupted between an evaluation and the next step. An equal score is no gain."""
    scores = {1: 0.1, 2: 0.3, 3: 0.3, 4: 0.2, 5: 0.4, 6: 0.4, 7: 1.0}
    seen = []

    def evaluate(_):
        seen.append(scores[len(seen) + 1])
        return Evaluation({"mean_iou": 0.0, "pixel_accuracy": seen[-1]}, {})

    plateau = {"schedule": "plateau", "plateau_metric": "pixel_accuracy", "plateau_patience": 1}
    optimizer = {**CONFIG["optimizer"], **plateau, "learning_rate": 0.1, "drop_factor": 0.5}
    config = {**CONFIG, "num_steps": 7, "log_every": 1, "eval_every": 1, "optimizer": optimizer}
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, config, CountedBatches(stop=6), evaluate=evaluate)
    assert len(seen) < 7
    start(tmp_path, config, evaluate=evaluate)
    rates = {line["step"]: line["train/learning_rate"] for line in lines(tmp_path) if "train/learning_rate" in line}
    np.testing.assert_allclose([rates[step] for step in range(1, 8)], [0.1, 0.1, 0.1, 0.05, 0.025, 0.025, 0.0125])


def test_profiled_steps(tmp_path):
    start(tmp_path, {**CONFIG, "num_steps": 8, "profile": 2, "eval_every": 0, "checkpoint_every": 0, "log_every": 8})
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_the_step_compiles_once(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        traced = []
        patch.setattr(loop, "train_step", lambda *a, **k: traced.append(1) or train_step(*a, **k))
        start(tmp_path, {**CONFIG, "eval_every": 2})
    assert len(traced) == 1


def test_the_learning_rate_in_the_log_is_that_of_the_step(tmp_path):
    start(tmp_path, {**CONFIG, "log_every": 1, "eval_every": 0, "checkpoint_every": 0})
    np.testing.assert_allclose([line["train/learning_rate"] for line in lines(tmp_path)], [0.1, 0.1, 0.1, 0.01])


def test_the_step_is_what_the_config_says(monkeypatch):
    monkeypatch.setattr(loop, "make_optimizer", lambda settings, params: ("optimizer of", params))
    net, weights = network_from_config(MODEL), [1.0, 2.0, 3.0]
    settings = {"seed": 7, "caffe_gradients": True, "remat": True, "all_reduce_dtype": "bfloat16"}
    settings |= {"batch_size": 8, "micro_batch": 1, "bn_group": 2}
    config = {**CONFIG, **settings, "ema_decay": 0.5, "optimizer": {**CONFIG["optimizer"], "freeze": ["conv1_"]}}
    layout = batch_layout(8, 4, micro_batch=1, bn_group=2)
    step, optimizer = loop.make_step(config, net, "parameters", 4, weights)
    assert optimizer == ("optimizer of", "parameters")
    assert step.keywords == {
        "net": net.clone(remat=True, bn_axis_name=AXIS_NAME, bn_axis_groups=((0, 1), (2, 3))),
        "optimizer": optimizer,
        "axis_name": AXIS_NAME,
        "layout": layout,
        "seed": 7,
        "freeze": ("conv1_",),
        "class_weights": weights,
        "caffe_gradients": True,
        "all_reduce_dtype": np.dtype("bfloat16"),
        "ema_decay": 0.5,
    }
