"""Imports are written completely or not at all, and folders grow by one split at a time."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coco_files import HEIGHT, WIDTH, annotation, fails, rectangle, snapshot
from PIL import Image

from deconvnet_jax.data import class_names, import_coco, open_split, prepare_voc_layout, read_example, split_names
from deconvnet_jax.data.coco import ClassCount
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import _unfinished
from deconvnet_jax.labels import voc_palette

# What is written.


def test_the_folder(tmp_path, source, load):
    done = []
    summary = load(source, progress=lambda *counts: done.append(counts))
    root = tmp_path / "out"
    assert class_names(root) == ("background", "cat", "lion", "dog")  # In the order of the ids.
    assert split_names(root, "train") == ["a", "b", "c"]
    assert done == [(1, 3), (2, 3), (3, 3)]
    for stored, given_name in (("a.jpg", "a.jpg"), ("b.png", "sub/b.png"), ("c.jpeg", "c.jpeg")):
        assert (root / "JPEGImages" / stored).read_bytes() == (tmp_path / "photos" / given_name).read_bytes()
    label, instances = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    label[3:9, 2:12], label[10:20, 20:30] = 3, 1
    instances[3:9, 2:12], instances[10:20, 20:30] = 1, 2
    a, b, c = (read_example(root, name, 4) for name in "abc")
    np.testing.assert_array_equal(a.label, label)
    np.testing.assert_array_equal(a.instances, instances)
    np.testing.assert_array_equal(b.label[:5, :10], [[2] * 5 + [255] * 5] * 5)
    np.testing.assert_array_equal(b.instances[:5, :10], [[1] * 5 + [255] * 5] * 5)
    assert b.label.astype(int).sum() == 25 * (2 + 255)
    assert not c.label.any()
    assert not c.instances.any()
    assert (summary.images, summary.left_out, summary.objects, summary.hidden) == (3, 0, 3, 0)
    assert summary.ignored_pixels == 25
    empty = 3 * HEIGHT * WIDTH - 60 - 100 - 25 - 25
    assert summary.classes == (
        ClassCount("background", 3, 0, empty),
        ClassCount("cat", 1, 1, 100),
        ClassCount("lion", 1, 1, 25),
        ClassCount("dog", 1, 1, 60),
    )
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_masks_have_the_palette_of_voc(tmp_path, source, load):
    load(source)
    for folder in ("SegmentationClass", "SegmentationObject"):
        with Image.open(tmp_path / "out" / folder / "b.png") as mask:
            assert mask.mode == "P"
            palette = mask.getpalette()
            assert palette == voc_palette().ravel().tolist()[: len(palette)]


def test_tfds_packs_the_folder(tmp_path, source, load):
    load(source)
    load({**source, "images": source["images"][:1], "annotations": source["annotations"][:2]}, split="val")
    builder = prepare_voc_layout(tmp_path / "out", tmp_path / "tfds")
    train, val = open_split(builder, "train"), open_split(builder, "val")
    assert [example.name for example in train] == ["a", "b", "c"]
    assert [example.name for example in val] == ["a"]
    expected = read_example(tmp_path / "out", "b", 4)
    np.testing.assert_array_equal(train[1].label, expected.label)
    np.testing.assert_array_equal(train[1].instances, expected.instances)
    np.testing.assert_array_equal(train[1].image, expected.image)


def test_254_objects_and_no_more(tmp_path, source, load):
    pixels = [annotation(1, 3, rectangle(i % 30, i // 30, i % 30 + 1, i // 30 + 1)) for i in range(255)]
    source["annotations"] = pixels
    fails(tmp_path, lambda: load(source), "images[0] (id 1)", "image 'a'", "255 objects", "at most 254")
    source["annotations"] = pixels[:254]
    assert load(source).objects == 254
    assert sorted(np.unique(read_example(tmp_path / "out", "a", 4).instances)) == list(range(255))


def test_skip_empty(tmp_path, source, load):
    (tmp_path / "photos/c.jpeg").unlink()  # Images that are left out need not exist.
    summary = load(source, categories=["cat", "dog"], skip_empty=True)  # Image b shows only a crowd.
    assert (summary.images, summary.left_out) == (1, 2)
    assert split_names(tmp_path / "out", "train") == ["a"]
    assert [path.name for path in (tmp_path / "out/JPEGImages").iterdir()] == ["a.jpg"]


def test_no_annotation_covers_a_pixel(tmp_path, source, load):
    beyond, line = rectangle(35, 2, 45, 9), [[2, 2, 9, 2, 20, 2]]
    nothing = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    for item, value in zip(source["annotations"], (beyond, line, nothing, nothing), strict=True):
        item["segmentation"] = value
    fails(tmp_path, lambda: load(source), "train.json: none of the 4 annotations covers a pixel", "pixels")
    fails(tmp_path, lambda: load(source, skip_empty=True), "train.json: no image shows an object")
    source["annotations"][0]["segmentation"] = rectangle(2, 3, 12, 9)
    assert load(source).hidden == 2  # The last annotation is a crowd.


@pytest.mark.parametrize(("name", "orientation"), [("a.jpg", 2), ("a.jpg", 8), ("sub/b.png", 6)])
def test_images_that_are_turned_by_exif(tmp_path, source, load, rng, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "photos" / name, exif=exif)
    (warning,) = load(source).warnings
    assert f"1 of 3 images have an EXIF orientation, among them {tmp_path / 'photos' / name} ({orientation})" in warning


@pytest.mark.parametrize("orientation", [0, 1, 9, 77])
def test_images_that_are_upright(tmp_path, source, load, rng, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "photos/a.jpg", exif=exif)
    assert load(source).warnings == ()


# The output folder exists already.


@pytest.fixture
def halves(source):
    """The content of two JSON files: one with image a, one with the others."""
    first, second = copy.deepcopy(source), copy.deepcopy(source)
    del first["images"][1:], first["annotations"][2:]
    del second["images"][0], second["annotations"][:2]
    return first, second


def test_second_split(tmp_path, halves, load):
    load(halves[0])
    before = snapshot(tmp_path / "out")
    load(halves[1], split="val")
    root = tmp_path / "out"
    assert split_names(root, "train") == ["a"]
    assert split_names(root, "val") == ["b", "c"]
    after = snapshot(root)
    assert {path: after[path] for path in before if path.is_file()} == {
        path: state for path, state in before.items() if path.is_file()
    }
    for name in "abc":
        read_example(root, name, 4)
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("place", [".", "out"])
def test_what_a_killed_import_left_is_removed(tmp_path, halves, load, place):
    load(halves[0])
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    name = _unfinished(Path("out")).name.replace(f"-{os.getpid()}-", f"-{gone.stdout.strip()}-")
    (tmp_path / place / name / "JPEGImages").mkdir(parents=True)
    load(halves[1], split="val")
    assert not list(tmp_path.rglob(".unfinished*"))


def test_same_images_in_another_split(tmp_path, source, load):
    load(source)
    before = snapshot(tmp_path / "out")
    load(source, split="again")
    new = set(snapshot(tmp_path / "out")) - set(before)
    assert [path.name for path in new] == ["again.txt"]
    assert split_names(tmp_path / "out", "again") == ["a", "b", "c"]


def test_split_that_is_there(tmp_path, source, load):
    load(source)
    fails(tmp_path, lambda: load(source), "--split=train", "train.txt already exists")


def test_other_classes(tmp_path, halves, load):
    load(halves[0])
    fails(
        tmp_path,
        lambda: load(halves[1], split="val", categories=["lion", "cat", "dog"]),
        "classes.txt",
        "background, cat, lion, dog",
        "background, lion, cat, dog",
    )


def test_other_image_of_the_same_name(tmp_path, source, load, rng):
    load(source)
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "photos/a.png")
    source["images"][0]["file_name"] = "a.png"
    parts = (str(tmp_path / "photos/a.png"), str(tmp_path / "out/JPEGImages/a.jpg"), "different")
    fails(tmp_path, lambda: load(source, split="val"), *parts)


@pytest.mark.parametrize("category", [3, 18])
def test_other_masks_of_the_same_image(tmp_path, source, load, category):
    load(source)
    source["annotations"][0]["category_id"] = category
    source["annotations"].insert(1, annotation(1, category, rectangle(2, 3, 5, 6)))
    folder = "SegmentationClass" if category == 3 else "SegmentationObject"
    parts = (f"{folder}/a.png", str(tmp_path / "photos/a.jpg"), "differs from the new mask")
    fails(tmp_path, lambda: load(source, split="val"), *parts)


def test_folder_that_is_empty(tmp_path, source, load):
    (tmp_path / "out").mkdir()
    before = (tmp_path / "out").stat().st_ino
    load(source)
    assert (tmp_path / "out").stat().st_ino == before  # The folder may be a mounted disk, which must not be replaced.
    assert split_names(tmp_path / "out", "train") == ["a", "b", "c"]


def test_output_in_a_folder_that_is_not_there_yet(tmp_path, source):
    (tmp_path / "a.json").write_text(json.dumps(source))
    import_coco(str(tmp_path / "a.json"), str(tmp_path / "photos"), str(tmp_path / "new/out"), "train")
    assert split_names(tmp_path / "new/out", "train") == ["a", "b", "c"]


def test_folder_of_something_else(tmp_path, source, load):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/letter.txt").write_text("dear")
    fails(tmp_path, lambda: load(source), str(tmp_path / "out"), "not a folder in the VOC layout")


def test_output_that_is_a_file(tmp_path, source, load):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match=r"--output: .*out is a file"):
        load(source)


@pytest.mark.parametrize("number", range(1, 12))
def test_killed_while_moving_then_run_again(tmp_path, source, load, monkeypatch, number):
    """Checks that files are not read without the split file, and that the second run reuses them."""
    (tmp_path / "out").mkdir()
    rename, calls = Path.rename, []

    def failing(self, target):
        calls.append(self)
        if len(calls) == number:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(KeyboardInterrupt):
            load(source)
    moved = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(moved) == number - 1
    assert not (tmp_path / "out/ImageSets/Segmentation/train.txt").exists()
    load(source)
    assert split_names(tmp_path / "out", "train") == ["a", "b", "c"]
    assert all(read_example(tmp_path / "out", name, 4).instances is not None for name in "abc")


# Unusable arguments and images.


def test_no_folder_of_images(tmp_path, source):
    (tmp_path / "a.json").write_text(json.dumps(source))
    call = lambda: import_coco(tmp_path / "a.json", tmp_path / "nothing", tmp_path / "out", "train")  # noqa: E731
    fails(tmp_path, call, f"no folder {tmp_path / 'nothing'}")


@pytest.mark.parametrize("split", ["", "my split", "../train", "1st", "all", "train-1"])
def test_wrong_split(tmp_path, source, split):
    (tmp_path / "a.json").write_text(json.dumps(source))
    call = lambda: import_coco(tmp_path / "a.json", tmp_path / "photos", tmp_path / "out", split)  # noqa: E731
    fails(tmp_path, call, f"--split={split}:", "letters, digits and _")


def test_no_image_left(tmp_path, source, load):
    source["annotations"] = source["annotations"][:2]
    call = lambda: load(source, categories=["lion"], skip_empty=True)  # noqa: E731
    fails(tmp_path, call, "train.json: no image shows an object of the chosen categories", "--categories")


def test_damaged_image(tmp_path, source, load):
    path = tmp_path / "photos/a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    fails(tmp_path, lambda: load(source), str(path), "not a complete image file")


def test_image_turned_by_its_exif_mark(tmp_path, source, load):
    source["images"][0].update(width=HEIGHT, height=WIDTH)
    fails(tmp_path, lambda: load(source), "a.jpg is 30x20", "says 20x30", "EXIF")
