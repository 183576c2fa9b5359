"""Shapes of labelme and Supervisely are drawn as these tools draw them."""

import json

import mask_exports
import numpy as np
import pytest
from mask_exports import HEIGHT, WIDTH, load, refused, write_photographs

from deconvnet_jax.data import MaskReading, read_example


def json_pair(root, shapes, **more):
    """A folder with two images; the first is annotated with `shapes`."""
    folder = write_photographs(root / "photos", ["a", "b"])
    (folder / "a.json").write_text(mask_exports.labelme_file(shapes, "a", **more))
    (folder / "b.json").write_text(mask_exports.labelme_file([], "b"))
    return {"images": folder, "masks": None}


def sly_pair(root, found):
    """A project with two images; the first has one object of the class cat with the fields `found`."""
    project = root / "project"
    for name, entries in (("a", [{"classTitle": "cat", **found}]), ("b", [])):
        write_photographs(project / "ds/img", [name])
        (project / "ds/ann").mkdir(exist_ok=True)
        data = {"size": {"height": HEIGHT, "width": WIDTH}, "tags": [], "objects": entries}
        (project / f"ds/ann/{name}.jpg.json").write_text(json.dumps(data))
    return {"images": project, "masks": None}


def shape_of(root):
    return read_example(root / "out", "a", 2).label


def test_circles_of_labelme(tmp_path):
    circle = mask_exports.labelme_shape("cat", [[12, 10], [12, 5]], "circle")
    load(tmp_path, json_pair(tmp_path, [circle], imageHeight=float(HEIGHT)))
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(ys - 10, xs - 12)
    found = shape_of(tmp_path)
    assert found[distance <= 4.5].all()
    assert not found[distance > 5.6].any()


def test_masks_of_labelme(tmp_path, rng):
    bitmap = rng.random((6, 7)) < 0.5
    text = mask_exports.png_text(bitmap, compress=False)
    load(tmp_path, json_pair(tmp_path, [mask_exports.labelme_shape("cat", [[4, 3], [10, 8]], "mask", mask=text)]))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:9, 4:11] = bitmap
    np.testing.assert_array_equal(shape_of(tmp_path), expected)


def test_early_files_of_labelme(tmp_path):
    shape = {"label": "cat", "points": mask_exports.rectangle(2, 3, 8, 9), "line_color": None, "fill_color": None}
    load(tmp_path, json_pair(tmp_path, [shape], imageHeight=None, imageWidth=None))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[3:9, 2:8] = 1
    np.testing.assert_array_equal(shape_of(tmp_path), expected)


def test_ignored_regions_of_labelme(tmp_path):
    shapes = [
        mask_exports.labelme_shape("cat", mask_exports.rectangle(2, 3, 8, 9)),
        mask_exports.labelme_shape("__ignore__", mask_exports.rectangle(4, 3, 6, 9)),
        mask_exports.labelme_shape("_background_", mask_exports.rectangle(6, 3, 8, 9)),
    ]
    load(tmp_path, json_pair(tmp_path, shapes))
    example = read_example(tmp_path / "out", "a", 2)
    np.testing.assert_array_equal(example.label[5, 1:9], [0, 1, 1, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(example.instances[5, 1:9], [0, 1, 1, 255, 255, 0, 0, 0])


def test_bitmaps_of_supervisely(tmp_path, rng):
    bitmap = rng.random((9, 11)) < 0.5
    bitmap[0, 0] = True
    found = {"data": mask_exports.png_text(bitmap), "origin": [27, 4]}  # It reaches over the right edge.
    load(tmp_path, sly_pair(tmp_path, {"geometryType": "bitmap", "bitmap": found}))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:13, 27:] = bitmap[:, :5]
    np.testing.assert_array_equal(shape_of(tmp_path), expected)


def test_a_bitmap_from_the_documentation_of_supervisely(tmp_path):
    text = (
        "eJzrDPBz5+WS4mJgYOD19HAJAtLMIMwIInOeqf8BUmwBPiGuQPr///9Lb86/C2QxlgT5BTM4PLuRBuTwebo4hlTMSa44sKHhISMDuxpTYrr0"
        "3F6gDIOnq5/LOqeEJgDM5ht6"
    )
    load(tmp_path, sly_pair(tmp_path, {"geometryType": "bitmap", "bitmap": {"data": text, "origin": [2, 1]}}))
    np.testing.assert_array_equal(shape_of(tmp_path)[1:4, 2:5], [[1, 1, 1], [1, 0, 1], [1, 1, 1]])
    assert shape_of(tmp_path).sum() == 8


def test_holes_of_supervisely(tmp_path):
    points = {
        "exterior": [[2, 2], [20, 2], [20, 15], [2, 15]],
        "interior": [[[5, 5], [9, 5], [9, 9], [5, 9]]],
    }
    load(tmp_path, sly_pair(tmp_path, {"geometryType": "polygon", "points": points}))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:16, 2:21] = 1
    expected[5:10, 5:10] = 0
    np.testing.assert_array_equal(shape_of(tmp_path), expected)


SQUARE = [[2, 2], [9, 2], [9, 9]]


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ({"label": "cat", "points": SQUARE[:2], "shape_type": "polygon"}, ("a.json: shapes[0] (polygon) cannot",)),
        ({"label": "cat", "points": [[1e300, 2], *SQUARE], "shape_type": "polygon"}, ("in or near the image",)),
        ({"label": "cat", "points": [["x", 2], *SQUARE], "shape_type": "polygon"}, ("cannot be drawn",)),
        ({"label": "cat", "points": [[float("nan"), 2], *SQUARE], "shape_type": "polygon"}, ("cannot be drawn",)),
        (
            {"label": "cat", "points": None, "shape_type": "rectangle"},
            ("(rectangle) cannot be drawn (expected a list of points",),
        ),
        (
            {"label": "cat", "points": SQUARE, "shape_type": "circle"},
            ("(circle) cannot be drawn (expected 2 points, got 3)",),
        ),
        ({"label": "cat", "points": SQUARE, "shape_type": "spiral"}, ("(spiral) cannot be drawn",)),
        ({"label": "cat", "points": SQUARE[:2], "shape_type": "mask", "mask": "A"}, ("(mask) cannot",)),
        ({"label": " ", "points": SQUARE}, ("shapes[0] has the label ' '",)),
        ("cat", ("shapes[0] has the label None",)),
    ],
)
def test_shapes_of_labelme_that_cannot_be_drawn(tmp_path, shape, parts):
    refused(tmp_path, json_pair(tmp_path, [mask_exports.labelme_shape("cat", SQUARE), shape][1:]), *parts)


@pytest.mark.parametrize(
    ("found", "part"),
    [
        ({"geometryType": "bitmap", "bitmap": {"data": "eJw=", "origin": [0, 0]}}, "truncated or too large"),
        ({"geometryType": "bitmap", "bitmap": {"data": "####", "origin": [0, 0]}}, "cannot be drawn"),
        ({"geometryType": "bitmap"}, "cannot be drawn"),
        (
            {"geometryType": "bitmap", "bitmap": {"data": mask_exports.png_text(np.ones((2, 2))), "origin": [40, 0]}},
            "it lies at (40, 0), outside the image",
        ),
        (
            {"geometryType": "rectangle", "points": {"exterior": SQUARE}},
            "(rectangle) cannot be drawn (expected 2 points",
        ),
        (
            {"geometryType": "ellipse", "points": {}},
            "objects[0] (ellipse) cannot be drawn (expected bitmap, polygon or",
        ),
        ({"geometryType": "polygon", "points": None}, "(polygon) cannot be drawn (its data has another form)"),
        (
            {"geometryType": "polygon", "points": {"exterior": SQUARE[:1]}},
            "objects[0] (polygon) cannot",
        ),
    ],
)
def test_objects_of_supervisely_that_cannot_be_drawn(tmp_path, found, part):
    refused(tmp_path, sly_pair(tmp_path, found), part)


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"imageHeight": 10**9, "imageWidth": 10**9}, "a.json is 1000000000x1000000000 pixels"),
        ({"imageHeight": 24.5}, "has the height 24.5"),
        ({"imageHeight": "24"}, "has the height '24'"),
    ],
)
def test_sizes_of_annotations(tmp_path, more, part):
    refused(tmp_path, json_pair(tmp_path, [mask_exports.labelme_shape("cat", SQUARE)], **more), part)


@pytest.mark.parametrize(
    ("text", "part"), [("{", "not a complete JSON file"), ("[]", "no JSON object"), ("{}", "labelme")]
)
def test_other_json(tmp_path, text, part):
    source = mask_exports.labelme(tmp_path)
    (tmp_path / "labelme/b.json").write_text(text)
    refused(tmp_path, source, "b.json", part)


def test_more_objects_than_numbers(tmp_path):
    shapes = [
        mask_exports.labelme_shape("cat", [[i % 30, i // 30], [i % 30, i // 30]], "rectangle") for i in range(255)
    ]
    refused(tmp_path, json_pair(tmp_path, shapes), "a.json shows 255 objects, expected at most 254")


def test_more_objects_than_numbers_without_numbers(tmp_path):
    shapes = [
        mask_exports.labelme_shape("cat", [[i % 30, i // 30], [i % 30, i // 30]], "rectangle") for i in range(300)
    ]
    source = json_pair(tmp_path, shapes)
    refused(tmp_path, source, "a.json shows 300 objects", "leave out all object numbers with --noobjects")
    load(tmp_path, source, MaskReading(objects=False))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:10, :30] = 1
    np.testing.assert_array_equal(shape_of(tmp_path), expected)


def renamed(root, image_path, folder="", name="a"):
    """Two photographs, and the annotation of one with another name or place; `image_path` stands in it."""
    source = json_pair(root, [mask_exports.labelme_shape("cat", mask_exports.rectangle(2, 3, 8, 9))])
    data = json.loads((root / "photos/a.json").read_text())
    (root / "photos/a.json").unlink()
    path = root / "photos" / folder / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**data, "imagePath": image_path}))
    return source


@pytest.mark.parametrize("image_path", ["..\\a.jpg", "C:\\my photos\\A.JPG", "../photos/a.jpg", "a.png"])
def test_annotations_that_name_their_photograph(tmp_path, image_path):
    load(tmp_path, renamed(tmp_path, image_path, "json", "lab_0"))
    assert shape_of(tmp_path).sum() == 36


@pytest.mark.parametrize("image_path", ["from_camera.jpg", "..\\a.jpg", "", ".", "..", None, 3])
def test_annotations_whose_path_is_no_contradiction(tmp_path, image_path):
    load(tmp_path, renamed(tmp_path, image_path))
    assert shape_of(tmp_path).sum() == 36


def test_annotations_of_another_photograph(tmp_path):
    source = renamed(tmp_path, "..\\photos\\b.jpg")
    refused(tmp_path, source, "a.json has the name of", "a.jpg, but its imagePath is that of", "b.jpg")


def test_annotations_of_equal_names_in_two_folders(tmp_path):
    for i, site in enumerate(("one", "two")):
        write_photographs(tmp_path / "photos" / site, ["a"])
        shapes = [mask_exports.labelme_shape("cat", mask_exports.rectangle(2, 3, 8 + i, 9))]
        (tmp_path / f"photos/{site}/a.json").write_text(mask_exports.labelme_file(shapes, "a"))
    load(tmp_path, {"images": tmp_path / "photos", "masks": None})
    assert [read_example(tmp_path / "out", f"{site}_a", 2).label.sum() for site in ("one", "two")] == [36, 42]
