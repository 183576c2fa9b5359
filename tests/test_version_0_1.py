"""Tests that checkpoints, run folders, packed data and proposals of version 0.1.0 are still read.

tests/support/version_0_1.tar.xz holds a run of two steps that commit d8cd5bb wrote; its README explains how.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from training_programs import metric_lines, with_devices

from deconvnet_jax.inference import Segmenter

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parent.parent
LOSS_OF_STEP_3 = 1.776612401008606


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version_0_1")
    with tarfile.open(ROOT / "tests/support/version_0_1.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_a_checkpoint_gives_the_same_scores(stored):
    image = cv2.imread(str(stored / "scenes/JPEGImages/val_0000.jpg"))[..., ::-1]
    expected = np.load(stored / "expected.npz")
    for mode in ("whole_image", "paper"):
        result = Segmenter.from_checkpoint(stored / "run", mode=mode, num_proposals=3)(image)
        np.testing.assert_allclose(result.scores[::16, ::16], expected[mode], atol=1e-5)


def test_a_run_resumes_on_packed_data(stored):
    """The loss of the third step is that of version 0.1.0, and neither data nor proposals are made again."""

    def packed():
        return {path: path.stat().st_mtime_ns for path in (stored / "tfds").rglob("*.*-of-*")}

    before = packed()
    settings = {
        "data.voc_root": stored / "scenes",
        "data.data_dir": stored / "tfds",
        "data.windows": ("instance", "proposal"),
        "data.cache_mb": 64,
        "model.width": 1 / 32,
        "model.fc_features": 8,
        "batch_size": 2,
        "eval_every": 0,
        "checkpoint_every": 2,
        "log_every": 1,
        "inference.mode": "whole_image",
        "num_steps": 3,
    }
    command = [sys.executable, "-m", "experiments.voc_train", "--config=experiments/configs/default.py"]
    command += [f"--workdir={stored / 'run'}", "--accept_changes"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    subprocess.run(command, cwd=ROOT, env=with_devices(1), check=True, capture_output=True, timeout=300)

    lines = metric_lines(stored / "run")
    assert [line["step"] for line in lines] == [1, 2, 3]
    np.testing.assert_allclose(lines[-1]["train/loss"], LOSS_OF_STEP_3, rtol=1e-4)
    assert packed() == before
    assert len(before) == 3
