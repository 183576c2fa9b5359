"""Masks whose palette was sorted by a program are noticed; the palettes that people use are not."""

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data.palettes import Palettes
from deconvnet_jax.data.scenes import voc_palette

CLASSES = ("background", "a", "b", "c")
LABEL = np.repeat(np.uint8([0, 1, 2, 255]), 5).reshape(4, 5)


def save(path, label, palette=None):
    picture = Image.fromarray(label)
    if palette is not None:
        picture.putpalette(palette)
    picture.save(path)
    return path


def warnings(*masks):
    palettes = Palettes(CLASSES)
    for path in masks:
        palettes.add(path, np.array(Image.open(path)))
    return palettes.warnings()


def swapped(palette, i, j):
    colors = np.reshape(palette, (-1, 3)).copy()
    colors[[i, j]] = colors[[j, i]]
    return colors.ravel().tolist()


def test_the_same_id_in_two_colours(tmp_path):
    own = (np.random.default_rng(0).integers(0, 256, 768)).tolist()
    one, other = save(tmp_path / "one.png", LABEL, own), save(tmp_path / "other.png", LABEL, swapped(own, 1, 2))
    (warning,) = warnings(one, one, other)
    assert all(part in warning for part in ("class id 1 has the colour", "palette", str(one), str(other)))


def test_voc_s_colours_in_another_order(tmp_path):
    (warning,) = warnings(save(tmp_path / "one.png", LABEL, swapped(voc_palette(), 1, 2)))
    assert "class id 1 has the colour of VOC's id 2 in the palette of" in warning


@pytest.mark.parametrize(
    "palette", [voc_palette(), [255, 255, 255, 9, 9, 9, 200, 0, 0], [0, 0, 0, 192, 128, 128, 128, 128, 192], None]
)
def test_usual_palettes(tmp_path, palette):
    """VOC's, one of three colours, VOC's colours of person and bus for own classes, greys."""
    label = np.where(LABEL == 255, 0, LABEL)
    one, other = save(tmp_path / "one.png", label, palette), save(tmp_path / "other.png", label * 0, palette)
    assert not warnings(one, other, save(tmp_path / "grey.png", label))


def test_colours_of_ids_that_do_not_occur_and_of_ignored_pixels(tmp_path):
    white = voc_palette()
    white[-3:] = [255, 255, 255]
    masks = [save(tmp_path / "a.png", LABEL, voc_palette()), save(tmp_path / "b.png", LABEL, white)]
    masks += [save(tmp_path / "c.png", LABEL * 0, swapped(voc_palette(), 1, 2))]
    assert not warnings(*masks)
