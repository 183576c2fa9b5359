"""Programs that are killed, or asked to stop, end with the same parameters as one that was not, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from deconvnet_jax.data import write_scenes
from deconvnet_jax.weights import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
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
}


def start(scenes, folder):
    flags = [f"--config.{key}={value}" for key, value in SETTINGS.items()]
    flags += [f"--config.data.voc_root={scenes}", f"--config.data.data_dir={scenes.parent / 'tfds'}"]
    command = [sys.executable, "-m", "experiments.voc_train", "--config=experiments/configs/default.py"]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    return subprocess.Popen(
        [*command, f"--workdir={folder}", *flags],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def logged(folder, key):
    """Values of the steps, as far as whole lines are written."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [line[key] for line in map(json.loads, lines) if "train/loss" in line]


def wait_for_step(process, folder, step):
    deadline = time.monotonic() + 240
    while max(logged(folder, "step"), default=0) < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.005)


def finish(process):
    errors = process.communicate(timeout=240)[1]
    assert process.returncode == 0, errors
    return errors


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, train=4, val=2, seed=2)
    return root


@pytest.fixture(scope="module")
def uninterrupted(scenes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(start(scenes, folder))
    return folder


def test_killed_at_several_steps_and_terminated(scenes, uninterrupted, tmp_path, rng):
    """With worker processes, a learning rate that follows evaluations, and groups for batch statistics."""
    folder = tmp_path / "run"
    for low, high in ((1, 6), (8, 16)):
        process = start(scenes, folder)
        wait_for_step(process, folder, int(rng.integers(low, high)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(scenes, folder)
    wait_for_step(process, folder, int(rng.integers(17, 24)))
    os.killpg(process.pid, signal.SIGTERM)  # its workers get it too, as from SLURM
    said = finish(process).splitlines()[-1]
    saved = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    assert said == f"asked to stop: step {saved} is saved; the same command goes on from there"
    assert 17 <= saved < STEPS
    assert f"resumed at step {saved} of {STEPS}" in finish(start(scenes, folder))

    _, expected, _ = load_checkpoint(uninterrupted, STEPS)
    _, found, _ = load_checkpoint(folder, STEPS)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert logged(folder, "step") == logged(uninterrupted, "step") == list(range(1, STEPS + 1))
    assert logged(folder, "train/loss") == logged(uninterrupted, "train/loss")
