"""Every way in which annotations can be wrong gives one clear line and leaves the folder as it was."""

import functools
import json

import pytest
from coco_files import HEIGHT, WIDTH, fails, import_content, rectangle, write_photographs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from deconvnet_jax.data import import_coco
from deconvnet_jax.data.coco_json import CocoObject, _expand, run_lengths
from deconvnet_jax.errors import InputError


@pytest.fixture
def source(tmp_path, rng):
    """Content of a JSON; its photographs lie in tmp_path/photos."""
    return write_photographs(tmp_path, rng)


@pytest.fixture
def load(tmp_path):
    """Writes a JSON and imports it into tmp_path/out."""
    return functools.partial(import_content, tmp_path)


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
WRONG = {
    "no images": (remove("images"), ("train.json has no list 'images'", "instances_*.json")),
    "no annotations": (remove("annotations"), ("no list 'annotations'",)),
    "no categories, as in captions": (remove("categories"), ("no list 'categories'", "not captions")),
    "images as a dict": (change("images", value={"a.jpg": {}}), ("no list 'images'",)),
    "images as names": (change("images", 1, value="a.jpg"), ("images[1] is 'a.jpg'",)),
    "zero images": (change("images", value=[]), ("train.json has zero images",)),
    "zero categories": (change("categories", value=[]), ("no category at all",)),
    "unknown image": (change("annotations", 0, "image_id", value=9), (FIRST, "image_id 9", "no image has")),
    "unknown category": (change("annotations", 0, "category_id", value=9), (FIRST, "category_id 9", "no category")),
    "annotation of no category": (remove("annotations", 0, "category_id"), (FIRST, "category_id None")),
    "id that is a list": (change("images", 0, "id", value=[1]), ("images[0] (id [1])", "the id [1]")),
    "image id twice": (change("images", 1, "id", value=1), ("images[1] (id 1)", "of another image")),
    "category id twice": (change("categories", 1, "id", value=18), ("categories[1] (id 18)", "'cat', repeats")),
    "category name twice": (change("categories", 1, "name", value="dog"), ("categories[1] (id 3)", "'dog', repeats")),
    "category without name": (remove("categories", 0, "name"), ("categories[0] (id 18)", "name None")),
    "category of two lines": (change("categories", 0, "name", value="a\nb"), ("categories[0]", r"'a\nb'", "one line")),
    "category background": (change("categories", 0, "name", value="background"), ("'background'", "--categories")),
    "surrogate": (change("categories", 0, "name", value="\ud800"), ("categories[0]", "one line")),
    "iscrowd": (change("annotations", 0, "iscrowd", value="no"), (FIRST, "iscrowd 'no'")),
    "no file name": (remove("images", 0, "file_name"), ("images[0] (id 1)", "file_name None")),
    "missing image": (change("images", 0, "file_name", value="x.jpg"), ("x.jpg", "images[0] (id 1)", "--images")),
    "nul in a name": (change("images", 0, "file_name", value="x\0.jpg"), ("no image", "images[0] (id 1)")),
    "other format": (change("images", 0, "file_name", value="a.tif"), ("'a.tif'", ".jpg, .jpeg or .png")),
    "no format": (change("images", 0, "file_name", value="a"), ("'a'", ".jpg, .jpeg or .png")),
    "escape": (change("images", 0, "file_name", value="sub/../../a.jpg"), ("'sub/../../a.jpg'", "below")),
    "Windows escape": (change("images", 0, "file_name", value="..\\a.jpg"), ("below the folder",)),
    "absolute": (change("images", 0, "file_name", value="/a.jpg"), ("'/a.jpg'", "below the folder")),
    "two lines": (change("images", 0, "file_name", value="a\nb.jpg"), (r"'a\nb.jpg'", "one line")),
    "blank": (change("images", 0, "file_name", value="a .jpg"), ("'a .jpg'", "blanks")),
    "category _background_": (
        change("categories", 0, "name", value="_background_"),
        ("'_background_'", "--categories"),
    ),
    "fraction as id": (change("images", 0, "id", value=1.5), ("images[0] (id 1.5)", "the id 1.5")),
    "same file": (change("images", 1, "file_name", value="a.jpg"), ("images[1] (id 2) is a.jpg, as images[0] (id 1)",)),
    "same stem": (change("images", 1, "file_name", value="sub/a.png"), ("sub/a.png, but a.jpg", "'a'", "rename")),
    "other size": (change("images", 0, "width", value=31), ("a.jpg is 30x20", "says 31x20")),
    "no size": (remove("images", 0, "width"), ("images[0] (id 1)", "width None")),
    "size as text": (change("images", 0, "width", value="30"), ("width '30'",)),
    "no segmentation": (remove("annotations", 0, "segmentation"), (FIRST, "no segmentation", "a box")),
    "empty segmentation": (segmentation([]), (FIRST, "no segmentation")),
    "flat polygon": (segmentation([1, 2, 3, 4, 5, 6]), (FIRST, "a polygon 1;", "a list of polygons")),
    "four numbers": (segmentation([[1, 2, 3, 4]]), (FIRST, "polygon of 4 numbers", "6, 8, 10")),
    "no numbers": (segmentation([[]]), (FIRST, "polygon of 0 numbers")),
    "odd count": (segmentation([[1, 2, 3, 4, 5, 6, 7]]), (FIRST, "polygon of 7 numbers")),
    "second polygon": (segmentation([*rectangle(0, 0, 5, 5), [1, 2]]), (FIRST, "polygon of 2 numbers")),
    "not a number": (segmentation([[1, 2, 3, 4, 5, float("nan")]]), (FIRST, "not finite")),
    "infinite": (segmentation([[1, 2, 3, 4, 5, float("-inf")]]), (FIRST, "not finite")),
    "far outside": (segmentation([[1, 2, 3, 4, 5, 1e9]]), (FIRST, "far outside its image of 30x20")),
    "a huge integer": (segmentation([[1, 2, 3, 4, 5, 10**400]]), (FIRST, "a list of polygons")),
    "texts": (segmentation([["1", "2", "3", "4", "5", "6"]]), (FIRST, "a list of polygons")),
    "points": (segmentation([[[1, 2], [3, 4], [5, 6]]]), (FIRST, "a list of polygons")),
    "ragged": (segmentation([[1, [3, 4], 5, 6, 7, 8]]), (FIRST, "a list of polygons")),
    "runs without size": (segmentation({"counts": [600]}), (FIRST, "size None", "[20, 30]")),
    "runs of another size": (segmentation({**RUNS, "size": [30, 20]}), (FIRST, "size [30, 20]", "[20, 30]")),
    "runs without counts": (segmentation({"size": [20, 30]}), (FIRST, "damaged run lengths")),
    "runs too short": (segmentation({**RUNS, "counts": [100, 400]}), (FIRST, "500 pixels", "30x20 = 600")),
    "runs too long": (segmentation({**RUNS, "counts": [600, 600]}), (FIRST, "1200 pixels")),
    "negative runs": (segmentation({**RUNS, "counts": [700, -100]}), (FIRST, "damaged run lengths")),
    "fractions as runs": (segmentation({**RUNS, "counts": [0.5, 599.5]}), (FIRST, "damaged run lengths")),
    "damaged text": (segmentation({**RUNS, "counts": "ab~~"}), (FIRST, "damaged run lengths")),
    "text of another size": (segmentation({**RUNS, "counts": "04"}), (FIRST, "4 pixels", "30x20 = 600")),
}


@pytest.mark.parametrize("there", [False, True], ids=["new", "added"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_content(tmp_path, source, load, case, there):
    if there:
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
        (b"[1, 2]", "holds a list"),
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
        (["dog", "dog=cat"], ("names 'dog' twice",)),
        (["dog=background"], ("cannot be called 'background'",)),
        (["dog="], ("cannot be called ''",)),
        (["dog=a\nb"], (r"cannot be called 'a\nb'",)),
        ([], ("0 classes, expected 1 to 254",)),
    ],
)
def test_wrong_categories(tmp_path, source, load, categories, parts):
    fails(
        tmp_path, lambda: load(source, categories=categories), "train.json" if "twice" not in parts[0] else "", *parts
    )


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


@given(st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=30))
@example([2**29 - 1, 3, 2**28, 5, 0])
@settings(max_examples=100, deadline=None)
def test_the_text_of_run_lengths(runs):
    """Against pycocotools, which does not check them. It has room for six characters a number, five bits in each."""
    text = coco_mask.frPyObjects({"size": [1, 1], "counts": runs}, 1, 1)["counts"].decode()
    assert _expand(text) == runs


@pytest.mark.parametrize("text", ["", "0", "~~~", "\n", "é", "Q", "oooooooooooooooooooooo0", "999", "h4999999", "NN"])
def test_damaged_text_never_reaches_pycocotools(text):
    item = CocoObject("x.json: annotations[0]", 1, False, {"size": [5, 5], "counts": text})
    with pytest.raises(InputError, match=r"^x\.json: annotations\[0\] has .*run lengths"):
        run_lengths(item, 5, 5)
