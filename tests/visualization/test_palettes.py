"""Tests the colours of classes: VOC's, and those that colour-blind people can tell apart."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.visualization import (
    PALETTES,
    class_legend,
    contact_sheet,
    overlay,
    painted,
    result_panel,
    voc_palette,
)
from deconvnet_jax.visualization.palettes import OKABE_ITO
from experiments.common import cli

SQUARE = (32, 32)
# What people without red or green cones see: Vienot, Brettel, Mollon, "Digital video colourmaps for checking the
# legibility of displays by dichromats", Color Research and Application 24 (1999). For linear RGB.
DICHROMATS = {
    "protanopia": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranopia": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


def seen(colors, matrix):
    """Returns colours in CIELAB as dichromats see them."""
    linear = (np.asarray(colors) / 255) ** 2.2 @ np.transpose(matrix)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(linear, 0) @ to_xyz.T / [0.9505, 1, 1.089]).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def least_distance(colors):
    return np.min([np.linalg.norm(a - b) for i, a in enumerate(colors) for b in colors[:i]])


@pytest.mark.parametrize("kind", DICHROMATS)
def test_dichromats_can_tell_the_colours_apart(kind):
    """Some of VOC's 20 classes differ by less than 2 units, which is hardly visible."""
    assert least_distance(seen(OKABE_ITO, DICHROMATS[kind])) > 15
    assert least_distance(seen(voc_palette()[1:21], DICHROMATS[kind])) < 2


def test_forty_two_classes_differ_and_further_ones_repeat():
    squares = [painted(np.full(SQUARE, i, np.uint8), "colour_blind") for i in range(44)]
    assert len({square.tobytes() for square in squares}) == 43
    np.testing.assert_array_equal(squares[43], squares[1])
    assert (squares[0] == 0).all()
    for i in range(1, 43):
        fill = (squares[i] == OKABE_ITO[(i - 1) % 7]).all(-1)
        assert 0.4 < fill.mean() <= 1
        assert fill.all() == (i < 8)
        assert (squares[i][~fill] % 255 == 0).all()  # Lines are black or white.


def test_ignored_pixels_have_vocs_colour():
    for labels, class_255 in ((np.full(SQUARE, 255, np.uint8), False), (np.full(SQUARE, 255, np.uint16), True)):
        cream = (painted(labels, "colour_blind") == (224, 224, 192)).all()
        assert cream != class_255
    assert (painted(np.full(SQUARE, 65_535, np.uint16), "colour_blind") == (224, 224, 192)).all()


def test_lines_are_wider_in_large_pictures():
    small, large = (painted(np.full((side, side), 8, np.uint8), "colour_blind") for side in (400, 2560))
    np.testing.assert_array_equal(small[0].repeat(4, 0), large[0][:1600])


def test_vocs_palette():
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(painted(labels, "voc"), voc_palette()[labels])


def test_pictures_take_a_palette(rng):
    """All pictures show a class as the legend does."""
    image, labels, names = rng.integers(0, 256, (300, 300, 3), np.uint8), np.full((300, 300), 3, np.uint8), list("abcd")
    green = (0, 158, 115)
    for picture in (
        overlay(image, labels, alpha=1, palette="colour_blind"),
        result_panel(image, labels, names, palette="colour_blind"),
        contact_sheet([image], [labels], ["1"], names, palette="colour_blind"),
        class_legend([3], names, 100, palette="colour_blind"),
    ):
        assert (picture == green).all(-1).sum() > 50
        assert not (picture == voc_palette()[3]).all(-1).any()


def test_unknown_palettes_are_named():
    with pytest.raises(InputError, match=r"palette='vok': expected one of voc, colour_blind; did you mean voc\?"):
        painted(np.zeros((2, 2), np.uint8), "vok")


def test_programs_take_all_palettes(monkeypatch):
    defined = []
    monkeypatch.setattr(cli.flags, "DEFINE_enum", lambda *arguments: defined.append(arguments))
    cli.define_palette()
    assert defined[0][:3] == ("palette", "voc", list(PALETTES))
