"""Writes COCO annotation files with photographs, and checks what must hold after a refused import."""

import json

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data import import_coco
from deconvnet_jax.errors import InputError

HEIGHT, WIDTH = 20, 30
CATEGORIES = {18: "dog", 3: "cat", 7: "lion"}  # not in the order of their ids


def rectangle(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def annotation(image_id, category_id, segmentation, **more):
    return {"image_id": image_id, "category_id": category_id, "segmentation": segmentation, "iscrowd": 0, **more}


def write_photographs(folder, rng):
    """Writes FOLDER/photos; returns the JSON's content: a (dog and cat), sub/b.png (lion, crowd), c.jpeg (empty)."""
    (folder / "photos/sub").mkdir(parents=True)
    images = []
    for i, name in enumerate(("a.jpg", "sub/b.png", "c.jpeg"), start=1):
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(folder / "photos" / name)
        images.append({"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH})
    return {
        "images": images,
        "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
        "annotations": [
            annotation(1, 18, rectangle(2, 3, 12, 9), id=101),
            annotation(1, 3, rectangle(20, 10, 30, 20), id=102),
            annotation(2, 7, rectangle(0, 0, 5, 5), id=103),
            annotation(2, 3, rectangle(0, 0, 10, 5), id=104, iscrowd=1),
        ],
    }


def import_content(folder, content, split="train", **options):
    """Writes FOLDER/SPLIT.json and imports it into FOLDER/out."""
    path = folder / f"{split}.json"
    path.write_text(json.dumps(content))
    return import_coco(path, folder / "photos", folder / "out", split, **options)


def snapshot(folder):
    """Returns {path: (time of the last change, bytes)} of everything in a folder; None if it does not exist."""
    if not folder.exists():
        return None
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


def fails(folder, call, *parts):
    """Asserts that a call raises InputError of one line with these parts, and changes no file."""
    before, beside = snapshot(folder / "out"), {path for path in folder.iterdir() if path.suffix != ".json"}
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message, message
    assert snapshot(folder / "out") == before
    assert {path for path in folder.iterdir() if path.suffix != ".json"} == beside
