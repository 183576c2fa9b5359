"""Tests that a page shows every picture under its title with its classes, and hatches ignored pixels."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.visualization import contact_sheet, voc_palette
from deconvnet_jax.visualization.panel import GAP

NAMES = ("background", "cat", "dog")


def found(page, picture):
    """Returns whether the picture is somewhere on the page."""
    windows = np.lib.stride_tricks.sliding_window_view(page, picture.shape)[:, :, 0]
    return bool((windows == picture).all((2, 3, 4)).any())


def test_all_pictures_are_there(rng):
    images = list(rng.integers(0, 256, (7, 20, 24, 3), np.uint8))
    labels = [np.zeros((20, 24), np.uint8)] * 7
    page = contact_sheet(images, labels, list("abcdefg"), NAMES, columns=3)
    assert page.dtype == np.uint8
    for image in images:
        assert found(page, image)
    below = contact_sheet(images, labels, list("abcdefg"), NAMES, columns=1)
    assert below.shape[0] > 2 * page.shape[0]


def test_classes_and_ignored_pixels_show(rng):
    image = rng.integers(0, 256, (40, 40, 3), np.uint8)
    label = np.zeros((40, 40), np.uint8)
    label[:20] = 2
    label[20:, 20:] = 255
    page = contact_sheet([image], [label], ["1"], NAMES)
    color = voc_palette()[2]
    assert (page == color).all(-1).sum() > 50  # The square of the legend.
    row = GAP + 40 + GAP  # The legend begins at the right of it.
    hatch = (page == (255, 64, 255)).all(-1)
    assert 40 < hatch[:, :row].sum() < 60  # An eighth of 400 pixels.
    key = page[:, row:]
    assert hatch[:, row:].any()  # The swatch of ignored pixels looks like those in the picture,
    for of_map in (voc_palette()[255], voc_palette()[0]):  # and neither it nor background has the colour of a mask.
        assert (key == of_map).all(-1).sum() < 20
    assert found(page, image[21:, :19])  # The background is unchanged.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "per picture; got 0 pictures, 1 label maps and 1 titles"),
        ({"titles": ["a", "b"]}, "got 1 pictures, 1 label maps and 2 titles"),
        ({"columns": 0}, "columns=0"),
        ({"labels": [np.full((8, 8), 9, np.uint8)]}, "class id 9 has no name"),
        ({"labels": [np.zeros((8, 9), np.uint8)]}, "8x9"),
    ],
)
def test_unusable_arguments(changes, message):
    arguments = {
        "images": [np.zeros((8, 8, 3), np.uint8)],
        "labels": [np.zeros((8, 8), np.uint8)],
        "titles": ["a"],
        "class_names": NAMES,
    }
    with pytest.raises(InputError, match=message):
        contact_sheet(**arguments | changes)
