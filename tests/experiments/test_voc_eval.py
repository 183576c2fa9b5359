"""Evaluation from a checkpoint: the command as people run it, and its functions for what can go wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data import read_example, split_names
from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import confusion_matrix, segmentation_scores
from deconvnet_jax.inference import Segmenter
from experiments import voc_eval

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments):
    words = [sys.executable, "-m", "experiments.voc_eval", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def evaluated(tiny_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluation") / "new/folder"
    done = command(f"--checkpoint={tiny_run.folder}", f"--output={output}", "--panels=2", "--batch_size=2")
    assert done.returncode == 0, done.stderr
    return done, output


def test_last_line_is_strict_json(evaluated, tiny_run):
    done, output = evaluated
    scores = json.loads(done.stdout.splitlines()[-1], parse_constant=pytest.fail)
    assert scores == json.loads((output / "metrics.json").read_text())
    assert set(scores["iou_per_class"]) == set(tiny_run.class_names)
    assert (scores["step"], scores["split"], scores["images"]) == (1, "val", 3)
    assert 0 < scores["seconds_per_image"] < 60
    table = "\n".join(done.stdout.splitlines()[:-1])
    assert all(name in table for name in tiny_run.class_names)
    assert "Traceback" not in done.stderr


def test_scores_are_those_of_the_written_label_maps(evaluated, tiny_run):
    done, output = evaluated
    num_classes = len(tiny_run.class_names)
    names = split_names(tiny_run.voc_root, "val")
    assert sorted(path.stem for path in (output / "labels").iterdir()) == sorted(names)
    matrix = np.zeros((num_classes, num_classes), np.int64)
    segmenter = Segmenter.from_checkpoint(tiny_run.folder)
    for name in names:
        example = read_example(tiny_run.voc_root, name, num_classes)
        labels = np.asarray(Image.open(output / f"labels/{name}.png"))
        assert (labels == segmenter(example.image).labels).mean() > 0.999  # batches of 2 round differently
        matrix += confusion_matrix(example.label, labels, num_classes)
    scores = json.loads(done.stdout.splitlines()[-1])
    expected = segmentation_scores(matrix, tiny_run.class_names)
    assert {name: scores[name] for name in expected} == expected


def test_panels_of_the_first_images(evaluated, tiny_run):
    _, output = evaluated
    panels = sorted(path.name for path in (output / "panels").iterdir())
    assert panels == sorted(f"{name}.jpg" for name in split_names(tiny_run.voc_root, "val")[:2])
    for name in panels:
        with Image.open(output / "panels" / name) as panel:
            assert panel.width > 3 * panel.height


def test_another_split_and_step(tiny_run):
    scores = voc_eval.run(tiny_run.folder, overrides={"eval_split": "train"}, step=2, batch_size=2)
    assert (scores["split"], scores["images"], scores["step"]) == ("train", 1, 2)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["background", "cat"], "has 2 classes"),
        (["background", "circle"], "class 1 = 'circle', which is"),
    ],
)
def test_other_classes(tiny_run, tmp_path, classes, message):
    shutil.copytree(tiny_run.voc_root, tmp_path / "other")
    if "circle" in classes:
        classes = [*classes, *tiny_run.class_names[2:]]
    (tmp_path / "other/classes.txt").write_text("\n".join(classes))
    with pytest.raises(InputError, match=message):
        voc_eval.run(tiny_run.folder, overrides={"voc_root": str(tmp_path / "other")})


def test_unusable_arguments(tiny_run, tmp_path):
    (tmp_path / "file").write_text("")
    for message, arguments in {
        "no checkpoint in": {"checkpoint": tmp_path},
        "no split 'test'": {"overrides": {"eval_split": "test"}},
        "not a folder in the VOC layout": {"overrides": {"voc_root": str(tmp_path)}},
        "--output=.*file cannot be a folder": {"output": tmp_path / "file"},
        "no step 7": {"step": 7},
    }.items():
        with pytest.raises(InputError, match=message):
            voc_eval.run(**({"checkpoint": tiny_run.folder} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--checkpoint"),
        (["--checkpoint={run}", "--config=experiments/configs/default.py", "--config.data.voc_rot=x"], "voc_rot"),
        (["--checkpoint={run}", "--config=experiments/configs/default.py"], "no data: give --config.data.voc_root"),
    ],
)
def test_wrong_use_is_one_line(tiny_run, arguments, message):
    done = command(*(argument.format(run=tiny_run.folder) for argument in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
