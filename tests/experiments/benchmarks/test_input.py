"""Tests that both sides of the input benchmark cut the same crops; the measured numbers are not tested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deconvnet_jax.data import crop_window, open_split, prepare_voc_layout
from experiments.benchmarks import input as input_benchmark

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[3]
LITTLE = """
import json, sys
from experiments.benchmarks import input as benchmark

benchmark.WINDOW_COUNTS, benchmark.IMAGES, benchmark.SCENES, benchmark.ROUNDS = (100, 200), 20, 3, 1
benchmark.SECONDS, benchmark.WARM, benchmark.BATCH = 0.1, 64, 16
if __name__ == "__main__":
    print(json.dumps(benchmark.run()))
"""


def test_little_of_everything(tmp_path):
    """Runs in a separate program, because the workers of Grain and PyTorch share memory with it."""
    pytest.importorskip("torch")
    (tmp_path / "little.py").write_text(LITTLE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "little.py")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout.splitlines()[-1])
    rates = numbers["crops_per_second"]
    assert list(rates) == ["deconvnet_jax", "with a cache for a quarter", "without cache", numbers["alternative"]]
    assert min(rates.values()) > 0
    ratio = rates["deconvnet_jax"] / rates["PyTorch DataLoader, OpenCV"]
    assert numbers["ratio"]["deconvnet_jax"]["median"] == pytest.approx(ratio)
    assert list(numbers["milliseconds_and_core_per_crop_by_windows"]) == ["100", "200"]
    comparison, growth = input_benchmark.tables(numbers)
    assert comparison.rows[-1][0] == "PyTorch DataLoader, OpenCV"
    assert [row[0] for row in growth.rows] == ["100", "200"]


def test_the_alternative_cuts_the_same_crops(tmp_path, monkeypatch):
    """Without random crops, pixels are equal in windows inside the image and beyond it."""
    pytest.importorskip("torch")
    monkeypatch.setattr(input_benchmark, "RESIZE", 224)
    names = input_benchmark.write_images(tmp_path / "voc", 3)
    windows = input_benchmark.random_windows(3, 12)
    source = open_split(prepare_voc_layout(tmp_path / "voc", tmp_path / "tfds"), "train")
    theirs = input_benchmark.WindowFiles(tmp_path / "voc", names, windows)
    beyond = 0
    for i, (index, box) in enumerate(zip(windows.images, windows.boxes, strict=True)):
        image, label = crop_window(source[index].image, source[index].label, box, 224)
        found = theirs[i]
        its = found["image"].numpy()[..., ::-1].astype(int), found["label"].numpy()
        mirrored = [array[:, ::-1] for array in its]
        if (
            np.abs(mirrored[0] - image).mean() < np.abs(its[0] - image).mean()
        ):  # Images decide, because a label may be symmetric.
            its = mirrored
        beyond += (label == 255).any()
        assert np.mean(its[1] == label) > 0.97  # The two sides round the nearest pixel differently.
        assert np.abs(its[0] - image).mean() < 3
    assert 0 < beyond < 12
