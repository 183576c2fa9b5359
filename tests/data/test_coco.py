"""Masks pixel by pixel, and folders that grow split by split, all or nothing."""

import copy
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from coco_files import HEIGHT, WIDTH, annotation, fails, import_content, rectangle, snapshot, write_photographs
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from deconvnet_jax.data import class_names, import_coco, open_split, prepare_voc_layout, read_example, split_names
from deconvnet_jax.data.coco import ClassCount, CocoImage, CocoObject, paint
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import _unfinished
from deconvnet_jax.labels import voc_palette


@pytest.fixture
def source(tmp_path, rng):
    """Content of a JSON; its photographs lie in tmp_path/photos."""
    return write_photographs(tmp_path, rng)


@pytest.fixture
def load(tmp_path):
    """Writes a JSON and imports it into tmp_path/out."""
    return functools.partial(import_content, tmp_path)


# What is written.


def test_the_folder(tmp_path, source, load):
    done = []
    summary = load(source, progress=lambda *counts: done.append(counts))
    root = tmp_path / "out"
    assert class_names(root) == ("background", "cat", "lion", "dog")  # by id
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


# Segmentations.


def compressed(mask):
    runs = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def uncompressed(mask):
    column_by_column = np.concatenate([[0], mask.ravel("F"), [2]])
    ends = np.flatnonzero(np.diff(column_by_column.astype(int)))
    counts = np.diff(ends, prepend=0).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if mask[0, 0] and ends[0] else counts}


def painted(*items, height=HEIGHT, width=WIDTH):
    """Class mask, object mask and class ids of an image with objects (class id, crowd, segmentation)."""
    objects = [CocoObject(f"annotations[{i}]", *item) for i, item in enumerate(items)]
    return paint(CocoImage("images[0]", PurePosixPath("a.jpg"), height, width, objects))


corner = st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), st.integers(1, 9), st.integers(1, 9))


@given(st.lists(corner, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_rectangles_of_whole_pixels(corners):
    """Against slices of an array, overlaps included: drawn one by one, the largest first."""
    boxes = [(x, y, min(x + w, WIDTH), min(y + h, HEIGHT)) for x, y, w, h in corners]
    label, instances, class_ids = painted(*((i % 3 + 1, False, rectangle(*box)) for i, box in enumerate(boxes)))
    order = sorted(range(len(boxes)), key=lambda i: -(boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1]))
    owner = np.full((HEIGHT, WIDTH), -1)
    for i in order:
        x0, y0, x1, y1 = boxes[i]
        owner[y0:y1, x0:x1] = i
    visible = [i for i in range(len(boxes)) if (owner == i).any()]
    for number, i in enumerate(visible, start=1):
        np.testing.assert_array_equal(instances == number, owner == i)
        assert (label[owner == i] == i % 3 + 1).all()
    assert not label[owner < 0].any()
    assert class_ids.tolist() == [i % 3 + 1 for i in visible]


@pytest.mark.parametrize("encode", [compressed, uncompressed])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_run_lengths_give_the_mask(encode, share, rng):
    for height, width in ((1, 1), (1, 40), (37, 1), (23, 41), (200, 310)):
        mask = rng.random((height, width)) < share
        np.testing.assert_array_equal(painted((2, False, encode(mask)), height=height, width=width)[0], 2 * mask)


def test_several_polygons_are_one_object():
    label, instances, _ = painted(
        (4, False, [*rectangle(0, 0, 4, 4), *rectangle(2, 2, 8, 6), *rectangle(20, 10, 25, 15)])
    )
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:4, :4] = expected[2:6, 2:8] = expected[10:15, 20:25] = 1
    np.testing.assert_array_equal(instances, expected)
    np.testing.assert_array_equal(label, 4 * expected)


def test_polygons_of_any_shape_cover_what_they_cover_for_pycocotools(rng):
    for _ in range(50):
        polygons = [rng.uniform(-3, 33, 2 * rng.integers(3, 20)).tolist() for _ in range(rng.integers(1, 4))]
        expected = coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH))
        label = painted((1, False, polygons))[0]
        assert coco_mask.encode(np.asfortranarray(label))["counts"] == expected["counts"]


def test_polygon_that_leaves_the_image():
    label, *_ = painted((1, False, rectangle(-5, -4, 8, 6)), (2, False, rectangle(25, 15, 40, 33)))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:6, :8], expected[15:, 25:] = 1, 2
    np.testing.assert_array_equal(label, expected)


def test_the_smaller_object_wins():
    large, small = (1, False, rectangle(0, 0, 20, 20)), (2, False, rectangle(15, 5, 25, 10))
    for items in ((large, small), (small, large)):
        label = painted(*items)[0]
        assert (label[5:10, 15:25] == 2).all()
        assert (label == 1).sum() == 400 - 25
    same = (1, False, rectangle(0, 0, 5, 5)), (2, False, rectangle(0, 0, 5, 5))
    label, instances, class_ids = painted(*same)
    assert (label[:5, :5] == 2).all()
    assert (class_ids.tolist(), int(instances.max())) == ([2], 1)


def test_crowds_are_ignored_where_no_object_is():
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[:10] = True
    label, instances, _ = painted((1, True, compressed(crowd)), (2, False, rectangle(5, 5, 15, 15)))
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[5:15, 5:15] = True
    for mask, value in ((label, 2), (instances, 1)):
        np.testing.assert_array_equal(mask, np.where(inside, value, np.where(crowd, 255, 0)))


def test_254_objects_and_no_more(tmp_path, source, load):
    pixels = [annotation(1, 3, rectangle(i % 30, i // 30, i % 30 + 1, i // 30 + 1)) for i in range(255)]
    source["annotations"] = pixels
    fails(tmp_path, lambda: load(source), "images[0] (id 1)", "image 'a'", "255 objects", "at most 254")
    source["annotations"] = pixels[:254]
    assert load(source).objects == 254
    assert sorted(np.unique(read_example(tmp_path / "out", "a", 4).instances)) == list(range(255))


# Categories.


def test_categories_chosen_renamed_and_merged(tmp_path, source, load):
    summary = load(source, categories=["dog", "cat=feline", "lion = feline"])
    root = tmp_path / "out"
    assert class_names(root) == ("background", "dog", "feline")
    assert [count.objects for count in summary.classes] == [0, 1, 2]
    a, b = (read_example(root, name, 3) for name in "ab")
    assert (a.label[5, 5], a.label[15, 25], b.label[2, 2]) == (1, 2, 2)


def test_other_categories_are_background_crowds_too(tmp_path, source, load):
    source["annotations"][2]["segmentation"] = "nonsense that nobody looks at"
    summary = load(source, categories=["dog"])
    assert (summary.images, summary.objects, summary.ignored_pixels) == (3, 1, 0)
    assert sorted(np.unique(read_example(tmp_path / "out", "a", 2).label)) == [0, 1]


def test_category_with_an_equals_sign(tmp_path, source, load):
    source["categories"][0]["name"] = "a=b"
    load(source, categories=["a=b", "cat"])
    assert class_names(tmp_path / "out") == ("background", "a=b", "cat")


def test_skip_empty(tmp_path, source, load):
    (tmp_path / "photos/c.jpeg").unlink()  # nothing is needed of an image that is left out
    summary = load(source, categories=["cat", "dog"], skip_empty=True)  # b shows a crowd only
    assert (summary.images, summary.left_out) == (1, 2)
    assert split_names(tmp_path / "out", "train") == ["a"]
    assert [path.name for path in (tmp_path / "out/JPEGImages").iterdir()] == ["a.jpg"]


def test_254_classes(tmp_path, source, load):
    source["categories"] = [{"id": i, "name": f"class {i}"} for i in range(255)]
    fails(tmp_path, lambda: load(source), "255 classes", "1 to 254", "--categories")
    source["categories"].pop()
    load(source)
    assert len(class_names(tmp_path / "out")) == 255


# What is probably meant otherwise.


@pytest.mark.parametrize("position", [0, 3])
def test_the_root_category_of_roboflow(tmp_path, source, load, position):
    for category in source["categories"]:
        category["supercategory"] = "animals"
    source["categories"].insert(position, {"id": 0, "name": "animals", "supercategory": "none"})
    (warning,) = load(source).warnings
    assert "'animals' is the supercategory of all others and annotates nothing; it is left out" in warning
    assert class_names(tmp_path / "out") == ("background", "cat", "lion", "dog")


def test_a_root_category_that_is_used_or_wanted(tmp_path, source, load):
    for category in source["categories"]:
        category["supercategory"] = "animals"
    source["categories"].append({"id": 0, "name": "animals", "supercategory": "none"})
    (warning,) = load(source, categories=["animals", "cat"]).warnings
    assert "no object of 1 of 2 classes: animals;" in warning
    shutil.rmtree(tmp_path / "out")
    source["annotations"].append(annotation(3, 0, rectangle(0, 0, 5, 5)))
    assert load(source).warnings == ()
    assert class_names(tmp_path / "out") == ("background", "animals", "cat", "lion", "dog")


@pytest.mark.parametrize("name", ["_background_", "__ignore__", "background", "Background"])
def test_categories_that_are_no_classes(tmp_path, source, load, name):
    source["categories"].insert(0, {"id": 0, "name": name, "supercategory": None})
    (warning,) = load(source).warnings
    assert f"the category '{name}' is no class and annotates nothing; it is left out" in warning
    assert class_names(tmp_path / "out") == ("background", "cat", "lion", "dog")


def test_categories_without_annotations_are_named(tmp_path, source, load):
    source["categories"] += [{"id": 90 + i, "name": f"c{i}"} for i in range(20)]
    (warning,) = load(source).warnings
    assert "no object of 20 of 23 classes: c0, c1, c2" in warning
    assert "c11, ...;" in warning
    assert warning.endswith("--categories=cat,lion,dog")
    assert len(class_names(tmp_path / "out")) == 24


def test_file_of_crowds(source, load):
    source["annotations"] = [item | {"iscrowd": 1} for item in source["annotations"]]
    (warning,) = load(source).warnings
    assert "no object of 3 of 3 classes: cat, lion, dog;" in warning


def fractions(segmentation):
    return [[value / size for value, size in zip(segmentation[0], (WIDTH, HEIGHT) * 4, strict=True)]]


@pytest.mark.parametrize("options", [{}, {"skip_empty": True}, {"categories": ["dog", "cat"]}])
def test_coordinates_that_are_fractions(tmp_path, source, load, options):
    for item in source["annotations"]:
        item["segmentation"] = fractions(item["segmentation"])
    count = 3 if "categories" in options else 4
    fails(tmp_path, lambda: load(source, **options), f"of all {count} annotations lie between 0 and 1", "pixels")


def test_no_annotation_covers_a_pixel(tmp_path, source, load):
    beyond, line = rectangle(35, 2, 45, 9), [[2, 2, 9, 2, 20, 2]]
    nothing = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    for item, value in zip(source["annotations"], (beyond, line, nothing, nothing), strict=True):
        item["segmentation"] = value
    fails(tmp_path, lambda: load(source), "train.json: none of the 4 annotations covers a pixel", "pixels")
    fails(tmp_path, lambda: load(source, skip_empty=True), "train.json: zero images left")
    source["annotations"][0]["segmentation"] = rectangle(2, 3, 12, 9)
    assert load(source).hidden == 2  # the last is a crowd


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


def test_ids_as_text_and_as_fractions(tmp_path, source, load):
    source["images"][0]["height"], source["images"][0]["width"] = float(HEIGHT), float(WIDTH)
    for item in source["annotations"]:
        item["image_id"], item["category_id"] = str(item["image_id"]), float(item["category_id"])
    summary = load(source)
    assert (summary.objects, summary.warnings) == (3, ())
    shutil.rmtree(tmp_path / "out")
    source["images"][0]["id"], source["images"][1]["id"] = "01", "1"  # of which neither is the other
    for item in source["annotations"][:2]:
        item["image_id"] = "01"
    for item in source["annotations"][2:]:
        item["image_id"] = 1
    assert load(source).objects == 3
    assert class_names(tmp_path / "out") == ("background", "cat", "lion", "dog")


# A folder that is there.


@pytest.fixture
def halves(source):
    """Two JSONs: of a alone, and of the others."""
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
    fails(tmp_path, lambda: load(source), "--split=train", "train.txt is already there")


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
    parts = (f"{folder}/a.png", str(tmp_path / "photos/a.jpg"), "another mask")
    fails(tmp_path, lambda: load(source, split="val"), *parts)


def test_folder_that_is_empty(tmp_path, source, load):
    (tmp_path / "out").mkdir()
    before = (tmp_path / "out").stat().st_ino
    load(source)
    assert (tmp_path / "out").stat().st_ino == before  # it may be a disk of its own
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
    """Without the split file nobody looks at what was moved, and the second run takes it as its own."""
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


# What is wrong with a file.


def change(*path, value):
    """Sets an entry of the JSON, path being keys and places."""

    def apply(content):
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return apply


def remove(*path):
    def apply(content):
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return apply


def segmentation(value):
    return change("annotations", 0, "segmentation", value=value)


FIRST = "annotations[0] (id 101)"
RUNS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
NAME, CATEGORY, FILE, SIZE = (
    ("images", 0, "file_name"), ("categories", 0, "name"), "below the folder --images", ("images", 0, "width"),
)  # fmt: skip
ITEM = ("annotations", 0)
POLYGON = (FIRST, "has a polygon", "a list of polygons, each a list x, y")
BAD_RUNS = (FIRST, "damaged run lengths", "'size' [20, 30] and 'counts'", "600 pixels")
WRONG = {
    "no images": (remove("images"), ("train.json has no list 'images'", "instances_*.json")),
    "no annotations": (remove("annotations"), ("no list 'annotations'",)),
    "no categories, as in captions": (remove("categories"), ("no list 'categories'", "not captions")),
    "images as a dict": (change("images", value={"a.jpg": {}}), ("no list 'images'",)),
    "images as names": (change("images", 1, value="a.jpg"), ("images[1] is 'a.jpg'",)),
    "zero images": (change("images", value=[]), ("train.json has no list 'images', or nothing in it",)),
    "zero categories": (change("categories", value=[]), ("no list 'categories', or nothing in it",)),
    "unknown image": (change(*ITEM, "image_id", value=9), (FIRST, "image_id 9", "ids of an image")),
    "unknown category": (change(*ITEM, "category_id", value=9), (FIRST, "category_id 9", "ids of an image and of a")),
    "annotation of no category": (remove(*ITEM, "category_id"), (FIRST, "category_id None")),
    "iscrowd": (change(*ITEM, "iscrowd", value="no"), (FIRST, "iscrowd 'no'", "0 or 1")),
    "id that is a list": (change("images", 0, "id", value=[1]), ("images[0] (id [1])", "an id")),
    "image id twice": (change("images", 1, "id", value=1), ("images[1] (id 1)", "an id that no other image has")),
    "category id twice": (change("categories", 1, "id", value=18), ("categories[1] (id 18)", "'cat'", "no other")),
    "category name twice": (
        change("categories", 1, "name", value="dog"),
        ("categories[1] (id 3)", "'dog'", "no other"),
    ),
    "category without name": (remove(*CATEGORY), ("categories[0] (id 18)", "name None")),
    "category of two lines": (change(*CATEGORY, value="a\nb"), ("categories[0]", r"'a\nb'", "a line of text")),
    "surrogate": (change(*CATEGORY, value="\ud800"), ("categories[0]", "a line of text")),
    "category background": (change(*CATEGORY, value="background"), ("called 'background'", "--categories")),
    "category _background_": (change(*CATEGORY, value="_background_"), ("called '_background_'", "--categories")),
    "no file name": (remove(*NAME), ("images[0] (id 1)", "file_name None")),
    "missing image": (change(*NAME, value="x.jpg"), ("x.jpg", "images[0] (id 1)", "--images")),
    "nul in a name": (change(*NAME, value="x\0.jpg"), ("no image", "images[0] (id 1)")),
    "other format": (change(*NAME, value="a.tif"), ("'a.tif'", ".jpg, .jpeg or .png", "convert")),
    "no format": (change(*NAME, value="a"), ("'a'", ".jpg, .jpeg or .png")),
    "escape": (change(*NAME, value="sub/../../a.jpg"), ("'sub/../../a.jpg'", FILE)),
    "Windows escape": (change(*NAME, value="..\\a.jpg"), (FILE,)),
    "absolute": (change(*NAME, value="/a.jpg"), ("'/a.jpg'", FILE)),
    "two lines": (change(*NAME, value="a\nb.jpg"), (r"'a\nb.jpg'", "one line")),
    "blank": (change(*NAME, value="a .jpg"), ("'a .jpg'", "blanks")),
    "same file": (change("images", 1, "file_name", value="a.jpg"), ("images[1] (id 2)", "'a.jpg'", "one entry")),
    "same stem": (change("images", 1, "file_name", value="sub/a.png"), ("images[1] (id 2)", "'sub/a.png'", "rename")),
    "other size": (change(*SIZE, value=31), ("a.jpg is 30x20", "says 31x20")),
    "no size": (remove(*SIZE), ("images[0] (id 1)", "width None")),
    "size as text": (change(*SIZE, value="30"), ("width '30'",)),
    "no segmentation": (remove(*ITEM, "segmentation"), (FIRST, "no segmentation", "a box")),
    "empty segmentation": (segmentation([]), (FIRST, "no segmentation")),
    "flat polygon": (segmentation([1, 2, 3, 4, 5, 6]), POLYGON),
    "four numbers": (segmentation([[1, 2, 3, 4]]), POLYGON),
    "no numbers": (segmentation([[]]), POLYGON),
    "odd count": (segmentation([[1, 2, 3, 4, 5, 6, 7]]), POLYGON),
    "second polygon": (segmentation([*rectangle(0, 0, 5, 5), [1, 2]]), (*POLYGON, "[1, 2];")),
    "not a number": (segmentation([[1, 2, 3, 4, 5, float("nan")]]), (*POLYGON, "nan")),
    "infinite": (segmentation([[1, 2, 3, 4, 5, float("-inf")]]), (*POLYGON, "-inf")),
    "far outside": (segmentation([[1, 2, 3, 4, 5, 1e9]]), (*POLYGON, "in pixels of the 30x20 image")),
    "a huge integer": (segmentation([[1, 2, 3, 4, 5, 10**400]]), POLYGON),
    "texts": (segmentation([["1", "2", "3", "4", "5", "6"]]), POLYGON),
    "points": (segmentation([[[1, 2], [3, 4], [5, 6]]]), POLYGON),
    "ragged": (segmentation([[1, [3, 4], 5, 6, 7, 8]]), POLYGON),
    "runs without size": (segmentation({"counts": [600]}), BAD_RUNS),
    "runs of another size": (segmentation({**RUNS, "size": [30, 20]}), BAD_RUNS),
    "runs without counts": (segmentation({"size": [20, 30]}), BAD_RUNS),
    "runs too short": (segmentation({**RUNS, "counts": [100, 400]}), BAD_RUNS),
    "runs too long": (segmentation({**RUNS, "counts": [600, 600]}), BAD_RUNS),
    "negative runs": (segmentation({**RUNS, "counts": [700, -100]}), BAD_RUNS),
    "fractions as runs": (segmentation({**RUNS, "counts": [0.5, 599.5]}), BAD_RUNS),
    "damaged text": (segmentation({**RUNS, "counts": "ab~~"}), BAD_RUNS),
    "text of another size": (segmentation({**RUNS, "counts": "04"}), BAD_RUNS),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_content(tmp_path, source, load, case):
    load(source, split="other")
    apply, parts = WRONG[case]
    apply(source)
    fails(tmp_path, lambda: load(source), *parts)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "not a complete JSON file"),
        (b'{"images": [', "not a complete JSON file"),
        (b"\xff\xfe\xfa not text", "not a complete JSON file"),
        (b"[" * 100_000, "not a complete JSON file"),
        (b"[1, 2]", "no list 'categories'"),
        (b'{"info": {}}', "no list 'categories'"),
    ],
)
def test_wrong_file(tmp_path, source, content, part):
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    call = lambda: import_coco(path, tmp_path / "photos", tmp_path / "out", "train")  # noqa: E731
    fails(tmp_path, call, str(path), part, "instances_*.json")


@pytest.mark.parametrize("name", ["nothing.json", "photos"])
def test_no_file(tmp_path, source, name):
    call = lambda: import_coco(tmp_path / name, tmp_path / "photos", tmp_path / "out", "train")  # noqa: E731
    fails(tmp_path, call, f"no file {tmp_path / name}", "instances_*.json")


def test_no_folder_of_images(tmp_path, source):
    (tmp_path / "a.json").write_text(json.dumps(source))
    call = lambda: import_coco(tmp_path / "a.json", tmp_path / "nothing", tmp_path / "out", "train")  # noqa: E731
    fails(tmp_path, call, f"there is no folder {tmp_path / 'nothing'}")


@pytest.mark.parametrize("split", ["", "my split", "../train", "1st", "all", "train-1"])
def test_wrong_split(tmp_path, source, split):
    (tmp_path / "a.json").write_text(json.dumps(source))
    call = lambda: import_coco(tmp_path / "a.json", tmp_path / "photos", tmp_path / "out", split)  # noqa: E731
    fails(tmp_path, call, f"--split={split}:", "letters, digits and _")


@pytest.mark.parametrize(
    ("categories", "parts"),
    [
        (["dgo"], ("no category 'dgo'", "there are cat, dog, lion")),
        (["dog", "="], ("no category ''", "there are cat, dog, lion")),
        (["dog", "dog=cat"], ("no other category 'dog'",)),
        (["dog=background"], ("cannot be called 'background'",)),
        (["dog="], ("cannot be called ''",)),
        (["dog=a\nb"], (r"cannot be called 'a\nb'",)),
        ([], ("0 classes, expected 1 to 254",)),
    ],
)
def test_wrong_categories(tmp_path, source, load, categories, parts):
    fails(tmp_path, lambda: load(source, categories=categories), "train.json", *parts)


def test_no_image_left(tmp_path, source, load):
    source["annotations"] = source["annotations"][:2]
    call = lambda: load(source, categories=["lion"], skip_empty=True)  # noqa: E731
    fails(tmp_path, call, "train.json: zero images left", "--categories")


def test_damaged_image(tmp_path, source, load):
    path = tmp_path / "photos/a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    fails(tmp_path, lambda: load(source), str(path), "not a complete image file")


def test_image_turned_by_its_exif_mark(tmp_path, source, load):
    source["images"][0].update(width=HEIGHT, height=WIDTH)
    fails(tmp_path, lambda: load(source), "a.jpg is 30x20", "says 20x30", "EXIF")


@pytest.mark.parametrize("text", ["", "0", "~~~", "\n", "é", "Q", "oooooooooooooooooooooo0", "999", "h4999999", "NN"])
def test_damaged_text_is_refused(text):
    with pytest.raises(InputError, match=r"^annotations\[0\] has damaged run lengths"):
        painted((1, False, {"size": [5, 5], "counts": text}), height=5, width=5)
