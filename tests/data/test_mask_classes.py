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
    plain,
    refused,
    save,
)

from deconvnet_jax.data import MaskReading, read_example

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
