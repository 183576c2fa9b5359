"""Classes are chosen from categories; mistakes in COCO's JSON files are refused or warned of."""

import shutil

import numpy as np
import pytest
from coco_files import HEIGHT, WIDTH, annotation, fails, rectangle

from deconvnet_jax.data import class_names, import_coco, read_example

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


def test_254_classes(tmp_path, source, load):
    source["categories"] = [{"id": i, "name": f"class {i}"} for i in range(255)]
    fails(tmp_path, lambda: load(source), "255 classes", "1 to 254", "--categories")
    source["categories"].pop()
    load(source)
    assert len(class_names(tmp_path / "out")) == 255


# Likely mistakes.


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
    assert f"the category '{name}' is not a class and annotates nothing; it is left out" in warning
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


def test_ids_as_text_and_as_fractions(tmp_path, source, load):
    source["images"][0]["height"], source["images"][0]["width"] = float(HEIGHT), float(WIDTH)
    for item in source["annotations"]:
        item["image_id"], item["category_id"] = str(item["image_id"]), float(item["category_id"])
    summary = load(source)
    assert (summary.objects, summary.warnings) == (3, ())
    shutil.rmtree(tmp_path / "out")
    source["images"][0]["id"], source["images"][1]["id"] = "01", "1"  # These are different ids.
    for item in source["annotations"][:2]:
        item["image_id"] = "01"
    for item in source["annotations"][2:]:
        item["image_id"] = 1
    assert load(source).objects == 3
    assert class_names(tmp_path / "out") == ("background", "cat", "lion", "dog")


# Unusable files.


def change(*path, value):
    """Returns a function that sets the entry of a JSON at a path of keys and positions."""

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
    "zero images": (change("images", value=[]), ("train.json has no list 'images', or an empty one",)),
    "zero categories": (change("categories", value=[]), ("no list 'categories', or an empty one",)),
    "unknown image": (change(*ITEM, "image_id", value=9), (FIRST, "image_id 9", "ids of an image")),
    "unknown category": (change(*ITEM, "category_id", value=9), (FIRST, "category_id 9", "ids of an image and of a")),
    "annotation of no category": (remove(*ITEM, "category_id"), (FIRST, "category_id None")),
    "iscrowd": (change(*ITEM, "iscrowd", value="no"), (FIRST, "iscrowd 'no'", "0 or 1")),
    "id that is a list": (change("images", 0, "id", value=[1]), ("images[0] (id [1])", "an id")),
    "image id twice": (
        change("images", 1, "id", value=1),
        ("images[1] (id 1)", "an id and a name that no other image has"),
    ),
    "category id twice": (change("categories", 1, "id", value=18), ("categories[1] (id 18)", "'cat'", "no other")),
    "category name twice": (
        change("categories", 1, "name", value="dog"),
        ("categories[1] (id 3)", "'dog'", "no other"),
    ),
    "category without name": (remove(*CATEGORY), ("categories[0] (id 18)", "name None")),
    "category of two lines": (change(*CATEGORY, value="a\nb"), ("categories[0]", r"'a\nb'", "a name of one line")),
    "surrogate": (change(*CATEGORY, value="\ud800"), ("categories[0]", "a name of one line")),
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
    "same file": (
        change("images", 1, "file_name", value="a.jpg"),
        ("images[1] (id 2)", "'a.jpg'", "delete the repeated entry"),
    ),
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


@pytest.mark.parametrize(
    ("categories", "parts"),
    [
        (["dgo"], ("no category 'dgo'", "there are cat, dog, lion")),
        (["dog", "="], ("no category ''", "there are cat, dog, lion")),
        (["dog", "dog=cat"], ("names category 'dog'", "more than once")),
        (["dog=background"], ("cannot be called 'background'",)),
        (["dog="], ("cannot be called ''",)),
        (["dog=a\nb"], (r"cannot be called 'a\nb'",)),
        ([], ("0 classes, expected 1 to 254",)),
    ],
)
def test_wrong_categories(tmp_path, source, load, categories, parts):
    fails(tmp_path, lambda: load(source, categories=categories), "train.json", *parts)
