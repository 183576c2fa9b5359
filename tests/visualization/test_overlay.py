"""Tests that overlays colour classes, draw lines between them and change nothing else."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.visualization import overlay, voc_palette

WHITE = (255, 255, 255)


@pytest.fixture
def image(rng):
    return rng.integers(0, 250, (12, 15, 3)).astype(np.uint8)  # No pixel is white.


@pytest.fixture
def labels():
    """Returns labels of two touching rectangles and an ignored stripe."""
    labels = np.zeros((12, 15), np.uint8)
    labels[2:8, 2:7], labels[2:8, 7:13], labels[10] = 3, 5, 255
    return labels


def test_background_and_ignored_pixels_stay(image, labels):
    untouched = (labels == 0) | (labels == 255)
    before = image.copy()
    np.testing.assert_array_equal(overlay(image, labels)[untouched], image[untouched])
    np.testing.assert_array_equal(image, before)


def test_inside_colors_are_blended(image, labels):
    blended = overlay(image, labels, alpha=0.25)
    for rows, columns, class_id in ((slice(3, 7), slice(3, 7), 3), (slice(3, 7), slice(8, 12), 5)):
        expected = 0.75 * image[rows, columns] + 0.25 * voc_palette()[class_id]
        assert np.abs(blended[rows, columns] - expected).max() <= 0.5


def test_contours_are_one_pixel_wide(image, labels):
    lines = (overlay(image, labels) == WHITE).all(-1)
    expected = np.zeros_like(lines)
    expected[2:8, 2:13] = True
    expected[3:7, 3:7] = expected[3:7, 8:12] = False  # Only one of the two draws their common border.
    np.testing.assert_array_equal(lines, expected)


def test_a_hole_of_one_pixel_stays(image):
    labels = np.ones(image.shape[:2], np.uint8)
    labels[5, 5] = 0
    drawn = overlay(image, labels)
    np.testing.assert_array_equal(drawn[5, 5], image[5, 5])
    assert ((drawn == WHITE).all(-1)).sum() == 4


def test_alpha_zero_leaves_contours_only(image, labels):
    drawn = overlay(image, labels, alpha=0)
    lines = (drawn == WHITE).all(-1)
    np.testing.assert_array_equal(drawn[~lines], image[~lines])


def test_one_class_everywhere_has_no_contour(image):
    labels = np.full(image.shape[:2], 1, np.uint8)
    np.testing.assert_array_equal(overlay(image, labels, alpha=1), voc_palette()[labels])


@pytest.mark.parametrize(
    ("image", "labels", "alpha", "message"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8), 0.5, "expected a colour image"),
        (np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8), 0.5, "expected uint8 values.*float64"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), int), 0.5, "expected a label map"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8), 0.5, "labels are 5x4.*the image is 4x5"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8), 60, "alpha"),
    ],
)
def test_bad_input(image, labels, alpha, message):
    with pytest.raises(InputError, match=message):
        overlay(image, labels, alpha)
