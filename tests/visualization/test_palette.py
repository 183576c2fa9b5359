"""VOC's colours, and label maps that survive being stored."""

import cv2
import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.visualization import save_label_png, voc_palette


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
    labels = np.array([[0, 0], [0, 15]], np.uint8)  # few enough for a PNG of fewer bits
    save_label_png(tmp_path / "labels.png", labels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "labels.png")), labels)


@pytest.mark.parametrize("labels", [np.zeros((2, 2), int), np.zeros((2, 2, 1), np.uint8), np.zeros((0, 2), np.uint8)])
def test_other_arrays(tmp_path, labels):
    with pytest.raises(InputError, match=r"expected a label map, uint8 \[H, W\]"):
        save_label_png(tmp_path / "labels.png", labels)


def test_jpeg_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"labels\.jpg: label maps are stored as PNG"):
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
