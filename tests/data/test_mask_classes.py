"""Classes come from tables and names, and pixels without a class are refused."""

import mask_exports
import numpy as np
import pytest
from mask_exports import (
    CLASSES,
    HEIGHT,
    NAMED,
    NAMES,
    WIDTH,
    check,
    colored,
    drawn,
    indexed,
    load,
    objects,
    plain,
    refused,
    save,
)

from deconvnet_jax.data import MaskPairing, MaskReading, class_names, read_example

# Pixels of classes.


def test_ignored_classes(tmp_path):
    summary = load(tmp_path, plain(tmp_path), NAMED._replace(ignore=["cat"]))
    assert summary.classes == ("background", "dog")
    check(tmp_path, labels=lambda i: np.array([0, 255, 1], np.uint8)[drawn(i)])


def test_without_background(tmp_path):
    summary = load(tmp_path, plain(tmp_path), MaskReading(names=["sky", "cat", "dog"]))
    assert summary.classes == ("sky", "cat", "dog")
    assert any(
        warning.startswith("no class is called background, so 'sky' has the id 0") for warning in summary.warnings
    )


@pytest.mark.parametrize(("unknown", "becomes"), [("ignore", 255), ("background", 0)])
def test_unknown_pixels(tmp_path, unknown, becomes):
    source = plain(tmp_path)
    reading = MaskReading(names=["background", "cat"])
    refused(tmp_path, source, "a.png has the number 2 at 45 pixels", "--names", "--unknown=ignore", reading=reading)
    load(tmp_path, source, reading._replace(unknown=unknown))
    check(tmp_path, labels=lambda i: np.array([0, 1, becomes], np.uint8)[drawn(i)])


def test_unknown_pixels_as_a_background_that_is_ignored(tmp_path):
    source, mask = plain(tmp_path), drawn(0)
    assert mask[0, 0] == 0
    mask[0, 0] = 7
    save(tmp_path / "masks/a.png", mask)
    load(tmp_path, source, NAMED._replace(ignore=["background"], unknown="background"))
    check(tmp_path, labels=lambda i: np.array([255, 0, 1], np.uint8)[drawn(i)])


def test_unknown_colours(tmp_path):
    source = mask_exports.cvat(tmp_path)
    mask = colored(drawn(1))
    mask[0, :3], mask[0, 5] = (1, 2, 3), (4, 5, 6)
    save(tmp_path / "cvat/SegmentationClass/b.png", mask)
    refused(
        tmp_path, source, "SegmentationClass/b.png has the colour (1, 2, 3) at 3 pixels and 1 other", "labelmap.txt"
    )
    load(tmp_path, source, MaskReading(unknown="ignore"))
    assert (read_example(tmp_path / "out", "b", 3).label == 255).sum() == 4


def test_transparent_pixels(tmp_path):
    def masks(i):
        rgba = np.dstack([colored(drawn(i)), np.full((HEIGHT, WIDTH), 255, np.uint8)])
        rgba[-1, :4, 3] = 0
        return rgba

    source = plain(tmp_path, masks)
    (tmp_path / "colours.csv").write_text("background,0,0,0\ncat,140,120,240\ndog,250,50,83\n")
    reading = MaskReading(classes=tmp_path / "colours.csv")
    refused(tmp_path, source, "a.png has 4 transparent pixels without a class", "--unknown=ignore", reading=reading)
    load(tmp_path, source, reading._replace(unknown="ignore"))
    assert (read_example(tmp_path / "out", "a", 3).label == 255).sum() == 4


def test_palette_with_transparency_holds_ids(tmp_path):
    source = plain(tmp_path, indexed)
    for i, name in enumerate(NAMES):
        save(tmp_path / f"masks/{name}.png", indexed(i), transparency=0)
    load(tmp_path, source, NAMED)
    check(tmp_path)


def test_labels_of_labelme(tmp_path):
    """labels.txt of labelme begins with names that are no classes."""
    source = mask_exports.labelme(tmp_path)
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    summary = load(tmp_path, source, MaskReading(classes=tmp_path / "labels.txt"))
    assert summary.classes == ("background", "dog", "cat")
    check(tmp_path, labels=lambda i: np.array([0, 2, 1], np.uint8)[drawn(i)], with_objects=True)


def test_shapes_of_unknown_classes(tmp_path):
    source = mask_exports.labelme(tmp_path)
    reading = MaskReading(names=["cat", "dgo"])
    refused(tmp_path, source, "a.json: shapes[1] has the class 'dog'", "did you mean dgo?", reading=reading)
    load(tmp_path, source, reading._replace(unknown="ignore"))
    assert read_example(tmp_path / "out", "a", 3).label[4, 12] == 255
    assert read_example(tmp_path / "out", "a", 3).instances[4, 12] == 255


# Tables of classes.


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("background\n\ncat\r\ndog\n", CLASSES),
        ("# a comment\nPixel Value, Class\n0, background\n1, cat\n2, dog\n", CLASSES),
        ("cat;1\nbackground;0\ndog;2", CLASSES),
        ("id\tname\n1\tcat\n0\tbackground\n2\tdog\n", CLASSES),
        ('0,_background_\n1,"cat"\n2,dog\n', CLASSES),
        ("\ufeff0,cat\n1,cat\n2,dog\n", ("cat", "dog")),  # Two numbers may be one class.
    ],
)
def test_tables_of_numbers(tmp_path, text, names):
    (tmp_path / "table.csv").write_bytes(text.encode("utf-8"))
    assert load(tmp_path, plain(tmp_path), MaskReading(classes=tmp_path / "table.csv")).classes == names


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        ("background,0,0,0\ncat,300,0,0\n", "line 2: 'cat,300,0,0' is no class"),
        ("background,0,0,0\ncat\n", "line 2: 'cat' is no class"),
        ("background:0,0,0::\ncat:1,2::\n", "is no class"),
        ("background,0,0,0\ncat,0,0,0\n", "gives (0, 0, 0) to two classes"),
        ("0,background\n0,cat\n", "gives 0 to two classes"),
        ("background\n", "1 class (background)"),
        # Lines that would shift the ids.
        ("name\nbackground\ncat\ndog\n", "its first line 'name' seems to be a title"),
        ("Class Name\nbackground\ncat\n", "its first line 'Class Name' seems to be a title"),
        ("0 background\n1 cat\n2 dog\n", "'0 background' is no name; expected on each line id,name"),
        ("0: background\n1: cat\n2: dog\n", "'0: background' is no name"),
        ("background=0\ncat=1\ndog=2\n", "'background=0' is no name"),
        ("background, other\ncat\ndog\n", "line 1: 'background,other' is no class"),
        ("-1,void\n0,background\n1,cat\n", "line 1: '-1,void' is no class"),
        ("background:0,0,0::\ncat:::\ndog:1,1,1::\n", "line 2: 'cat:::' is no class"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, part):
    (tmp_path / "table.csv").write_text(text)
    refused(tmp_path, plain(tmp_path), "table.csv", part, reading=MaskReading(classes=tmp_path / "table.csv"))


def test_a_table_that_is_missing(tmp_path):
    refused(tmp_path, plain(tmp_path), "no file", reading=MaskReading(classes=tmp_path / "table.csv"))


def test_tables_among_the_masks(tmp_path):
    source = plain(tmp_path)
    (tmp_path / "masks/classes.txt").write_text("background\ncat\ndog\n")
    assert load(tmp_path, source).classes == CLASSES
    (tmp_path / "photos/_classes.csv").write_text("0,background\n1,lion\n2,dog\n")
    refused(tmp_path, source, "name different classes", "--classes=FILE", output="again")


def test_names_that_look_like_numbered_lines(tmp_path):
    (tmp_path / "table.txt").write_text("2 wheeler\ncat\n3 wheeler\n")
    reading = MaskReading(classes=tmp_path / "table.txt")
    assert load(tmp_path, plain(tmp_path), reading).classes == ("2 wheeler", "cat", "3 wheeler")


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["0=background", "16777216=cat"], "no pixel holds the number in '16777216=cat'; expected 0 to 16777215"),
        (["0=background", f"{10**20}=cat"], f"'{10**20}=cat'"),
        (["background=0", "cat=1"], "'background=0' is no name; expected NAME,NAME,... or ID=NAME,..."),
        (["0=background", "cat=1"], "'cat=1' is no name"),
        (["0:background", "1:cat"], "'0:background' is no name"),
    ],
)
def test_numbers_of_names_that_cannot_be_used(tmp_path, names, part):
    refused(tmp_path, plain(tmp_path), "--names", part, reading=MaskReading(names=names))


# Pixels and images without anything.


def test_images_without_a_mask_need_a_background(tmp_path):
    source = plain(tmp_path)
    (tmp_path / "masks/e.png").unlink()
    back, names = MaskPairing(unmatched="background"), ["sky", "cat", "dog"]
    message = "--unmatched=background: --names has no class called background; give --unmatched=skip"
    refused(tmp_path, source, message, reading=MaskReading(names=names), pairing=back)
    load(tmp_path, source, NAMED._replace(ignore=["background"]), back)
    check(tmp_path, labels=lambda i: np.array([255, 0, 1], np.uint8)[drawn(i)])


@pytest.mark.parametrize("export", [mask_exports.labelme, mask_exports.supervisely, mask_exports.cvat])
def test_ignored_background_of_objects(tmp_path, export):
    load(tmp_path, export(tmp_path), MaskReading(ignore=["background"]))
    classes = class_names(tmp_path / "out")
    ids = np.array([255, classes.index("cat"), classes.index("dog")], np.uint8)
    for i, name in enumerate(NAMES):
        example = read_example(tmp_path / "out", name, 2)
        np.testing.assert_array_equal(example.label, ids[drawn(i)])
        np.testing.assert_array_equal(example.instances, np.where(objects(i) == 0, 255, objects(i)))


def test_ignored_background_of_images_without_annotations(tmp_path):
    source = mask_exports.labelme(tmp_path)
    (tmp_path / "labelme/e.json").unlink()
    load(tmp_path, source, MaskReading(ignore=["background"]), MaskPairing(unmatched="background"))
    example = read_example(tmp_path / "out", "e", 2)
    assert (example.label == 255).all()
    assert (example.instances == 255).all()
