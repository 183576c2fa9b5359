"""Programs that are killed, or asked to stop, end with the same parameters as one that was not, bit for bit."""

import os
import signal
from functools import partial

import jax
import numpy as np
import pytest
from training_programs import finish, metric_lines, wait_for_step

from deconvnet_jax.weights import load_checkpoint

pytestmark = pytest.mark.end_to_end

STEPS = 30
SETTINGS = {
    "batch_size": 4,
    "num_steps": STEPS,
    "log_every": 1,
    "eval_every": 12,
    "eval_images": 1,
    "checkpoint_every": 7,
    "bn_group": 2,
    "data.resize_size": 36,
    "data.crop_size": 32,
    "data.workers": 2,
    "model.width": 1 / 16,
    "model.fc_features": 4,
    "model.fc_window": 1,
    "optimizer.schedule": "plateau",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.003,
    "optimizer.warmup_steps": 10,
    "ema_decay": 0.9,
}


def logged(folder, key):
    return [line[key] for line in metric_lines(folder) if "train/loss" in line]


@pytest.fixture(scope="module")
def start(scenes, start_training):
    data = {"data.voc_root": scenes, "data.data_dir": scenes.parent / "tfds"}
    return partial(start_training, settings={**SETTINGS, **data})


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(start(folder))
    return folder


def test_killed_and_terminated(start, uninterrupted, tmp_path, rng):
    """With worker processes, AdamW, a learning rate that follows evaluations, averages, and groups for statistics."""
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_step([process], folder, int(rng.integers(1, 16)))  # the first checkpoint is that of step 7
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start(folder)
    wait_for_step([process], folder, int(rng.integers(17, 24)))
    os.killpg(process.pid, signal.SIGTERM)  # its workers get it too, as from SLURM
    said = finish(process)[0].splitlines()[-1]
    saved = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    assert said == f"stopped as asked: step {saved} is saved; give the same command to resume"
    assert 17 <= saved < STEPS
    assert f"resumed at step {saved} of {STEPS}" in finish(start(folder))[0]

    for averages in (True, False):
        _, expected, _ = load_checkpoint(uninterrupted, STEPS, averages)
        _, found, _ = load_checkpoint(folder, STEPS, averages)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert logged(folder, "step") == logged(uninterrupted, "step") == list(range(1, STEPS + 1))
    assert logged(folder, "train/loss") == logged(uninterrupted, "train/loss")
