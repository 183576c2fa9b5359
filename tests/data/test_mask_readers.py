"""What marks the classes is recognised, and asked for where it cannot be."""

import numpy as np
import pytest
from mask_exports import CLASSES, COLORS, HEIGHT, NAMED, WIDTH, check, colored, drawn, load, plain, refused
from PIL import Image

from deconvnet_jax.data import MaskReading


@pytest.mark.parametrize(
    ("masks", "parts"),
    [
        (lambda i: (drawn(i) == 1).astype(np.uint8) * 255, ("the masks hold only 0 and 255", "--binary=NAME")),
        (lambda i: (drawn(i) == 1).astype(np.uint8), ("the masks hold only 0 and 1", "--binary=NAME")),
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
