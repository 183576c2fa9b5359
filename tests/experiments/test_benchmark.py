"""The benchmarks run and say what they say they measure; the numbers themselves are no test."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deconvnet_jax.data import write_scenes
from experiments.benchmarks import input as input_benchmark
from experiments.benchmarks import proposals as proposals_benchmark

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*arguments):
    command = [sys.executable, "-m", "experiments.benchmark", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_proposals(tmp_path):
    write_scenes(tmp_path / "scenes", train=1, val=2, seed=4)
    done = benchmark("proposals", f"--voc_root={tmp_path / 'scenes'}", f"--json={tmp_path / 'numbers.json'}")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "numbers.json").read_text()) == numbers
    assert numbers["images"] == 2
    _, truth = zip(*proposals_benchmark.load(str(tmp_path / "scenes"), "val"), strict=True)
    assert numbers["objects"] == sum(len(boxes) for boxes in truth) > 0
    assert list(numbers["methods"]) == ["network", "gradient", "selective_search", "grid"]
    for result in numbers["methods"].values():
        recall = np.array([list(of_threshold.values()) for of_threshold in result["recall"].values()])
        assert (np.diff(recall, axis=1) >= 0).all()
        assert recall[0, -1] >= 50
        assert result["seconds"] > 0
    assert "50@0.5" in done.stderr


def test_input(monkeypatch, capsys):
    """With little of everything."""
    pytest.importorskip("torch")
    for name, value in {
        "WINDOW_COUNTS": (100, 200), "IMAGES": 20, "SCENES": 3, "ROUNDS": 1, "SECONDS": 0.1, "WARM": 64, "BATCH": 16,
    }.items():  # fmt: skip
        monkeypatch.setattr(input_benchmark, name, value)
    numbers = input_benchmark.run()
    assert numbers["alternative"] == "PyTorch DataLoader, OpenCV"
    rates = numbers["crops_per_second"]
    assert len(rates) == 4
    assert min(rates.values()) > 0
    ratio = rates["deconvnet_jax"] / rates["PyTorch DataLoader, OpenCV"]
    assert numbers["ratio"]["deconvnet_jax"]["median"] == pytest.approx(ratio)
    assert list(numbers["milliseconds_and_core_per_crop_by_windows"]) == ["100", "200"]
    assert "PyTorch DataLoader, OpenCV" in capsys.readouterr().err


def test_the_alternative_cuts_the_same_crops(tmp_path):
    """Windows within the image and beyond it: what PyTorch's loader gives is a part of what ours gives before it."""
    pytest.importorskip("torch")
    from deconvnet_jax.data import open_split, prepare_voc_layout, training_batches

    names = input_benchmark.write_images(tmp_path / "voc", 2)
    windows = input_benchmark.random_windows(2, 6)
    source = open_split(prepare_voc_layout(tmp_path / "voc", tmp_path / "tfds"), "train")
    options = {"batch_size": 1, "crop_size": 224, "resize_size": 224, "mirror": False, "random_crop": False}
    batches = training_batches(source, windows, label_mode="all", **options)
    ours = [next(batches) for _ in range(6)]
    batches.close()
    theirs = input_benchmark.WindowFiles(tmp_path / "voc", names, windows)
    for i in range(6):
        label = theirs[i]["label"].numpy()
        shares = [np.mean(label == value) for value in range(7)]
        same = [[np.mean(batch["label"] == value) for value in range(7)] for batch in ours]
        mirrored = min(np.abs(np.subtract(shares, other)).max() for other in same)
        assert mirrored < 0.12  # 224 of 250 pixels at random


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected the name of one benchmark, input or proposals; got nothing"),
        (("speed",), "got speed"),
        (("proposals",), "needs photographs with masks: --voc_root=FOLDER"),
        (("proposals", "--json=nowhere/numbers.json"), "there is no folder nowhere; make it first"),
    ],
)
def test_wrong_use(arguments, message):
    done = benchmark(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
