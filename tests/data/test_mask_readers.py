"""What marks the classes is recognised, and asked for where it cannot be."""

import mask_exports
import numpy as np
import pytest
from mask_exports import CLASSES, COLORS, HEIGHT, NAMED, WIDTH, check, colored, drawn, load, plain, refused, save
from PIL import Image

from deconvnet_jax.data import MaskReading, class_names, read_example


@pytest.mark.parametrize(
    ("masks", "parts"),
    [
        (lambda i: (drawn(i) == 1).astype(np.uint8) * 255, ("the masks hold only 0 and 255", "--binary=NAME")),
        (lambda i: (drawn(i) == 1).astype(np.uint8), ("the masks hold only 0 and 1", "--binary=NAME")),
        (
            lambda i: (drawn(i) == 1).astype(np.uint16) * 65535,
            ("the masks hold only 0 and 65535", "--binary=NAME"),
        ),
        (lambda i: drawn(i) * 3, ("the masks hold the numbers 0, 3, 6", "--names=0=NAME,3=NAME,6=NAME")),
        (lambda i: colored(drawn(i)), ("(0, 0, 0), (140, 120, 240), (250, 50, 83)", "--classes=FILE", "name,r,g,b")),
        (
            lambda i: (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 200).astype(np.uint8),
            ("the masks hold 200 numbers: 0, 1,", "--binary=NAME --threshold=128"),
        ),
    ],
)
def test_flags_that_are_missing(tmp_path, masks, parts):
    refused(tmp_path, plain(tmp_path, masks), *parts, "5 masks, such as")


def test_0_and_255_are_no_ids(tmp_path):
    source = plain(tmp_path, lambda i: (drawn(i) == 1).astype(np.uint8) * 255)
    refused(tmp_path, source, "the masks show only background and 255", "--binary=NAME", reading=NAMED)


def test_masks_that_show_one_class(tmp_path):
    source = plain(tmp_path, lambda _: np.zeros((HEIGHT, WIDTH), np.uint8))
    for reading in (NAMED, MaskReading(binary="cat")):
        refused(tmp_path, source, "the masks show only background", reading=reading)


def test_sorted_palettes(tmp_path):
    def masks(i):
        image = Image.fromarray(drawn(i))
        colors = list(COLORS.values()) if i < 3 else [COLORS["background"], COLORS["dog"], COLORS["cat"]]
        image.putpalette([channel for color in colors for channel in color])
        return image

    source = plain(tmp_path, masks)
    parts = ("the number 1 has the colour (250, 50, 83)", "d.png", "(140, 120, 240)", "a.png", "--kind=ids")
    refused(tmp_path, source, *parts, reading=NAMED)
    load(tmp_path, source, NAMED._replace(kind="ids"))
    check(tmp_path)


@pytest.mark.parametrize(
    ("reading", "parts"),
    [
        (MaskReading(binary="cat", names=CLASSES), ("--binary and --names",)),
        (MaskReading(threshold=128), ("--threshold needs --binary",)),
        (MaskReading(binary="background"), ("--binary=background",)),
        (NAMED._replace(ignore=["horse"]), ("--ignore", "no class 'horse'", "background, cat, dog")),
        (MaskReading(binary="cat", ignore=["cat"]), ("--binary and --ignore are both given",)),
        (MaskReading(binary="cat", kind="ids"), ("--binary and --kind are both given",)),
        (MaskReading(binary="cat", unknown="ignore"), ("--binary and --unknown=ignore are both given",)),
        (NAMED._replace(kind="colours"), ("--kind=colours", "--names names no colours")),
        (
            MaskReading(names=["sky", "cat"], unknown="background"),
            ("--unknown=background", "no class called background"),
        ),
        (MaskReading(kind="colors"), ("--kind=colors", "ids, colours, labelme, supervisely")),
        (MaskReading(kind="labelme"), ("has no mask", ".json")),
        (MaskReading(names=["cat"]), ("1 class (cat)", "expected 2 to 255")),
    ],
)
def test_options_that_contradict_each_other(tmp_path, reading, parts):
    refused(tmp_path, plain(tmp_path), *parts, reading=reading)


def is_cat(i):
    return (drawn(i) == 1).astype(np.uint8)


DEPTHS = {  # How a tool with 1, 8 or 16 bits stores an antialiased cat, whose edge is 127 and whose inside is 128.
    "a": lambda i: Image.fromarray(is_cat(i) * 255).convert("1"),
    "b": lambda i: is_cat(i) * 128 + (drawn(i) == 2).astype(np.uint8) * 127,
    "c": lambda i: (is_cat(i) * 128 + (drawn(i) == 2) * 127).astype(np.uint16) * 257,
    "d": lambda i: is_cat(i) * 255,
    "e": lambda i: is_cat(i),
}


def test_threshold_of_every_depth(tmp_path):
    source = plain(tmp_path, lambda i: list(DEPTHS.values())[i](i))
    load(tmp_path, source, MaskReading(binary="cat", threshold=128))
    check(tmp_path, labels=is_cat)


@pytest.mark.parametrize(
    ("dtype", "top", "white"), [(np.uint8, 1, 255), (np.uint16, 1, 65535), (np.uint16, 255, 65535)]
)
def test_threshold_that_nothing_reaches(tmp_path, dtype, top, white):
    source = plain(tmp_path, lambda i: is_cat(i).astype(dtype) * top if i == 2 else is_cat(i) * 255)
    parts = (f"c.png holds numbers up to {top}, where white is {white}", "--threshold=128")
    refused(tmp_path, source, *parts, reading=MaskReading(binary="cat", threshold=128))


def test_black_and_white_of_several_depths(tmp_path):
    forms = (
        lambda i: Image.fromarray(is_cat(i) * 255).convert("1"),
        lambda i: is_cat(i) * 255,
        lambda i: is_cat(i).astype(np.uint16) * 65535,
    )
    load(tmp_path, plain(tmp_path, lambda i: forms[i % 3](i)), MaskReading(binary="cat"))
    check(tmp_path, labels=is_cat)


def test_masks_of_0_and_1_among_those_of_0_and_255(tmp_path):
    source = plain(tmp_path, lambda i: is_cat(i) * (1 if i == 2 else 255))
    message = refused(tmp_path, source, "c.png holds 0 and 1", "with 0 and 255", reading=MaskReading(binary="cat"))
    assert "--threshold" not in message


def test_a_picture_of_one_white_object(tmp_path):
    source = mask_exports.cvat(tmp_path)
    white = (drawn(0) == 1).astype(np.uint8) * 255
    save(tmp_path / "cvat/SegmentationObject/a.png", np.repeat(white[..., None], 3, axis=2))
    load(tmp_path, source)
    np.testing.assert_array_equal(read_example(tmp_path / "out", "a", 3).instances, white // 255)


@pytest.mark.parametrize("export", [mask_exports.cvat, mask_exports.labelme, mask_exports.supervisely])
def test_without_objects(tmp_path, export):
    summary = load(tmp_path, export(tmp_path), MaskReading(objects=False))
    assert not summary.has_objects
    assert not (tmp_path / "out/SegmentationObject").exists()
    cat = class_names(tmp_path / "out").index("cat")
    check(tmp_path, labels=lambda i: np.array([0, cat, 3 - cat], np.uint8)[drawn(i)])
