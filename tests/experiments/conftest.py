"""A few scenes, training programs on them, and a checkpoint of a tiny network as if it had been trained."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from training_programs import with_devices

from deconvnet_jax.data import class_names, write_scenes
from deconvnet_jax.models import network_from_config
from deconvnet_jax.training import add_metrics, save_checkpoint
from deconvnet_jax.weights import open_checkpoints
from experiments.configs import default

ROOT = Path(__file__).resolve().parents[2]


class TinyRun(NamedTuple):
    """Folder of the run, folder of its data, names of its classes."""

    folder: Path
    voc_root: Path
    class_names: tuple[str, ...]


def random_variables(model, rng):
    """As the network would be initialised, but drawn by NumPy: compiling that alone takes JAX seconds."""

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    inputs = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    shapes = jax.eval_shape(network_from_config(model).init, jax.random.key(0), inputs)
    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    scores = variables["params"]["seg-score-voc"]["kernel"]
    scores -= scores.mean(axis=2, keepdims=True)  # otherwise one class wins everywhere
    return variables


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Folder in the VOC layout with 4 training and 3 evaluation scenes; its packed copy may go to the folder beside."""
    root = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(root, train=4, val=3, seed=2)
    return root


@pytest.fixture(scope="module")
def start_training():
    """Starts experiments.voc_train: (folder, settings, *flags, devices) -> process; none of them outlives the tests."""
    started = []

    def start(folder, settings, *flags, devices=2):
        command = [sys.executable, "-m", "experiments.voc_train", "--config=experiments/configs/default.py"]
        command += [f"--workdir={folder}", *flags, *(f"--config.{key}={value}" for key, value in settings.items())]
        pipes = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env=with_devices(devices), **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """An untrained network at steps 1 and 2; 2 is said to be the worse, and has other averages of its variables."""
    folder = tmp_path_factory.mktemp("run")
    root = folder / "data/scenes"
    write_scenes(root, train=1, val=3, seed=5)
    config = default.get_config()
    config.data.voc_root, config.data.data_dir = str(root), str(folder / "data/tfds")
    config.model.update(num_classes=len(class_names(root)), width=1 / 32, fc_features=8)
    config.inference.mode = "whole_image"
    variables, averages = (random_variables(config.model.to_dict(), np.random.default_rng(seed)) for seed in (1, 2))
    info = {"config": config.to_dict(), "class_names": list(class_names(root))}
    with open_checkpoints(folder / "checkpoints") as manager:
        for step, mean_iou in ((1, 0.5), (2, 0.4)):
            save_checkpoint(
                manager,
                step,
                variables=variables,
                optimizer={"unused": np.zeros(1), **({"averages": averages} if step == 2 else {})},
                data={},
                info=info,
            )
            add_metrics(manager, step, {"mean_iou": mean_iou})
    return TinyRun(folder, root, class_names(root))
