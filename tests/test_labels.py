"""Tests label maps: ids of few and of many classes, VOC's colours, files, and sorted palettes."""

import cv2
import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import Palettes, check_ignore_label, ignored_id, label_type, save_label_png, voc_palette

CLASSES = ("background", "a", "b", "c")
LABEL = np.repeat(np.uint8([0, 1, 2, 255]), 5).reshape(4, 5)
VOC_COLOURS = voc_palette().ravel().tolist()


def test_published_colors():
    palette = voc_palette()
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    published = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    published |= {15: (192, 128, 128), 20: (0, 64, 128), 21: (128, 64, 128), 255: (224, 224, 192)}
    for class_id, color in published.items():
        assert tuple(palette[class_id]) == color
    assert len(np.unique(palette, axis=0)) == 256
    np.testing.assert_array_equal(voc_palette(21), palette[:21])


def test_equals_the_palette_in_voc_files(real_data):
    path = next((real_data / "voc2012_val_masks/SegmentationClass").glob("*.png"))
    stored = np.array(Image.open(path).getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(stored, voc_palette(len(stored)))


def test_label_png(tmp_path, rng):
    labels = rng.integers(0, 256, (37, 53)).astype(np.uint8)
    save_label_png(tmp_path / "labels.png", labels)
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), voc_palette()[labels])


def test_two_ids_only(tmp_path):
    labels = np.array([[0, 0], [0, 15]], np.uint8)  # Two ids would fit into a PNG of fewer bits.
    save_label_png(tmp_path / "labels.png", labels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), labels)


@pytest.mark.parametrize("labels", [np.zeros((2, 2), int), np.zeros((2, 2, 1), np.uint8), np.zeros((0, 2), np.uint8)])
def test_other_arrays(tmp_path, labels):
    with pytest.raises(InputError, match=r"expected a label map, uint8 \[H, W\]"):
        save_label_png(tmp_path / "labels.png", labels)


def test_jpeg_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"labels\.jpg does not end in \.png; label maps are stored as PNG"):
        save_label_png(tmp_path / "labels.jpg", np.zeros((2, 2), np.uint8))


def test_labels_of_many_classes(tmp_path, rng):
    labels = rng.integers(0, 459, (37, 53)).astype(np.uint16)
    labels[0, 0] = 65535
    save_label_png(tmp_path / "labels.png", labels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), labels)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_UNCHANGED), labels)


def test_colors_of_many_classes():
    palette = voc_palette(1000)
    assert len(np.unique(palette, axis=0)) == 1000
    np.testing.assert_array_equal(palette[:256], voc_palette())


@pytest.mark.parametrize(("largest", "dtype"), [(255, "uint8"), (256, "uint16"), (400, "uint16")])
def test_the_remedy_keeps_the_ids(tmp_path, largest, dtype):
    with pytest.raises(InputError, match=rf"convert ids with labels\.astype\(np\.{dtype}\)"):
        save_label_png(tmp_path / "labels.png", np.full((2, 2), largest))


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [(1, np.uint8), (21, np.uint8), (255, np.uint8), (256, np.uint16), (459, np.uint16), (65_535, np.uint16)],
)
def test_every_class_and_the_ignored_id_fit(classes, dtype):
    assert label_type(classes) is dtype
    ids = np.arange(classes)
    np.testing.assert_array_equal(ids.astype(label_type(classes)), ids)
    assert ignored_id(classes) >= classes
    check_ignore_label(classes, ignored_id(classes))


def test_too_many_classes():
    with pytest.raises(InputError, match="65536 classes: label maps hold at most 65,535"):
        label_type(65_536)


def test_255_is_a_class_of_many():
    check_ignore_label(255, 255)
    check_ignore_label(459, 0)
    with pytest.raises(InputError, match=r"id of a class, because there are 256 .* give ignore_label=65535"):
        check_ignore_label(256, 255)


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
    (warning,) = warnings(save(tmp_path / "one.png", LABEL, swapped(VOC_COLOURS, 1, 2)))
    assert "class id 1 has the colour of VOC's id 2 in the palette of" in warning


@pytest.mark.parametrize(
    "palette", [VOC_COLOURS, [255, 255, 255, 9, 9, 9, 200, 0, 0], [0, 0, 0, 192, 128, 128, 128, 128, 192], None]
)
def test_usual_palettes(tmp_path, palette):
    """No warning for VOC's palette, one of three colours, VOC's colours of person and bus for own classes, or greys."""
    label = np.where(LABEL == 255, 0, LABEL)
    one, other = save(tmp_path / "one.png", label, palette), save(tmp_path / "other.png", label * 0, palette)
    assert not warnings(one, other, save(tmp_path / "grey.png", label))


def test_colours_of_ids_that_do_not_occur_and_of_ignored_pixels(tmp_path):
    white = [*VOC_COLOURS]
    white[-3:] = [255, 255, 255]
    masks = [save(tmp_path / "a.png", LABEL, VOC_COLOURS), save(tmp_path / "b.png", LABEL, white)]
    masks += [save(tmp_path / "c.png", LABEL * 0, swapped(VOC_COLOURS, 1, 2))]
    assert not warnings(*masks)
