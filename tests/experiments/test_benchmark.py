"""The benchmarks run and say what they say they measure; the numbers themselves are no test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from deconvnet_jax.data import crop_window, open_split, prepare_voc_layout, write_scenes
from experiments import benchmark as benchmark_program
from experiments.benchmarks import input as input_benchmark
from experiments.benchmarks import proposals as proposals_benchmark
from experiments.benchmarks import scaling as scaling_benchmark

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


LITTLE_INPUT = """
import json, sys
from experiments.benchmarks import input as benchmark

benchmark.WINDOW_COUNTS, benchmark.IMAGES, benchmark.SCENES, benchmark.ROUNDS = (100, 200), 20, 3, 1
benchmark.SECONDS, benchmark.WARM, benchmark.BATCH = 0.1, 64, 16
if __name__ == "__main__":
    print(json.dumps(benchmark.run()))
"""


def test_input(tmp_path):
    """With little of everything; in a program of its own, as Grain's and PyTorch's workers share memory with it."""
    pytest.importorskip("torch")
    (tmp_path / "little.py").write_text(LITTLE_INPUT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "little.py")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout.splitlines()[-1])
    assert numbers["alternative"] == "PyTorch DataLoader, OpenCV"
    rates = numbers["crops_per_second"]
    assert len(rates) == 4
    assert min(rates.values()) > 0
    ratio = rates["deconvnet_jax"] / rates["PyTorch DataLoader, OpenCV"]
    assert numbers["ratio"]["deconvnet_jax"]["median"] == pytest.approx(ratio)
    assert list(numbers["milliseconds_and_core_per_crop_by_windows"]) == ["100", "200"]
    assert "PyTorch DataLoader, OpenCV" in done.stderr


def test_the_alternative_cuts_the_same_crops(tmp_path, monkeypatch):
    """Without chance, pixel by pixel: windows within the image and beyond it."""
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
        if np.abs(mirrored[0] - image).mean() < np.abs(its[0] - image).mean():  # a label may be its own mirror image
            its = mirrored
        beyond += (label == 255).any()
        assert np.mean(its[1] == label) > 0.97  # nearest pixels are chosen by another rounding
        assert np.abs(its[0] - image).mean() < 3
    assert 0 < beyond < 12


def test_all_runs_each_with_the_same_flags_and_outlives_one_that_fails(monkeypatch):
    values = flags.FlagValues()
    for name in benchmark_program.PASSED_ON:
        flags.DEFINE_string(name, None, "", flag_values=values)
    values(["benchmark", "--width=2"])
    monkeypatch.setattr(benchmark_program, "NAMES", ("scaling", "proposals", "forward", "all"))
    numbers = benchmark_program.run_all(values)
    assert list(numbers) == ["scaling", "forward"]  # proposals need photographs
    assert numbers["forward"] is None  # the width
    assert numbers["scaling"] == scaling_benchmark.run(None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (),
            "expected the name of one benchmark (environment, input, proposals, train, repeat, forward, unpool, "
            "infer, crf, growth, scaling, all); got nothing",
        ),
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


def test_all_gives_each_benchmark_the_flags_it_knows(monkeypatch):
    """`all --picture --dtype`: a benchmark refuses what is for another one alone."""
    values = flags.FlagValues()
    for flag in benchmark_program.PASSED_ON:
        flags.DEFINE_string(flag, None, "", flag_values=values)
    values(["program", "--picture=a.png", "--dtype=bfloat16", "--width=1"])
    commands = {}

    def started(command, **_):
        commands[command[3]] = command[4:]
        return subprocess.CompletedProcess(command, 0, "{}")

    monkeypatch.setattr(benchmark_program.subprocess, "run", started)
    benchmark_program.run_all(values)
    for name in ("train", "repeat"):
        assert commands.pop(name) == ["--width=1", "--dtype=bfloat16"]
    assert commands.pop("growth") == ["--width=1", "--picture=a.png"]
    assert commands
    assert all(given == ["--width=1"] for given in commands.values())
