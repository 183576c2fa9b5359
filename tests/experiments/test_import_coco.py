"""The command as people run it, and what the next program makes of the folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data import class_names, read_example, split_names
from deconvnet_jax.data.coco import ClassCount, CocoSummary
from experiments.tasks import import_coco

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path, rng):
    """Two photographs, the first with a dog and a cat."""
    (tmp_path / "photos").mkdir()
    images = []
    for i, name in enumerate(("a.jpg", "b.png")):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "photos" / name)
        images.append({"id": i, "file_name": name, "height": 20, "width": 30})
    boxes = {1: [0, 0, 10, 0, 10, 10, 0, 10], 2: [20, 10, 25, 10, 25, 20, 20, 20]}
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "[bold]cat"}],
        "annotations": [{"image_id": 0, "category_id": key, "segmentation": [box]} for key, box in boxes.items()],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def run(folder, *flags):
    command = [sys.executable, "-m", "experiments.import_coco", f"--annotations={folder / 'instances.json'}"]
    command += [f"--images={folder / 'photos'}", f"--output={folder / 'voc'}", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_two_splits(source):
    done = run(source, "--split=train", "--skip_empty")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    parts = ("split train, 1 image, 2 objects of 2 classes, 0 pixels ignored (0.0%), 1 image without objects left out",)
    assert all(part in done.stdout for part in (str(source / "voc"), *parts)), done.stdout
    assert "[bold]cat" in done.stderr  # a name, no instruction for the table
    again = run(source, "--split=val")
    assert again.returncode == 0, again.stderr
    assert split_names(source / "voc", "train") == ["a"]
    assert split_names(source / "voc", "val") == ["a", "b"]
    assert read_example(source / "voc", "a", 3).instances.max() == 2


def test_warnings(source):
    content = json.loads((source / "instances.json").read_text())
    content["categories"].append({"id": 3, "name": "lion"})
    (source / "instances.json").write_text(json.dumps(content))
    done = run(source, "--split=train")
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "no object of 1 of 3 classes: lion;" in warning
    assert warning.endswith("--categories=dog,[bold]cat")


def test_categories(source):
    done = run(source, "--split=train", "--categories=[bold]cat=feline, dog")
    assert done.returncode == 0, done.stderr
    assert class_names(source / "voc") == ("background", "feline", "dog")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--split=train", "--categories=dgo"), "has no category 'dgo'; there are [bold]cat, dog"),
        (("--split=train", "--output="), "--output is empty; name a file or folder"),
    ],
)
def test_wrong_use_is_one_line(source, flags, message):
    done = run(source, *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert not (source / "voc").exists()


def test_description_names_all_that_was_left_out():
    classes = (ClassCount("background", 1, 0, 60), ClassCount("dog", 1, 1, 30))
    summary = CocoSummary(images=1, left_out=0, objects=1, hidden=2, ignored_pixels=10, classes=classes)
    assert import_coco.describe(summary) == (
        "1 image, 1 object of 1 class, 10 pixels ignored (10.0%), 2 annotations without a visible pixel left out"
    )
