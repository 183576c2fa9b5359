"""Changes of colours are compared with Pillow's and with float64 arithmetic."""

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from deconvnet_jax.data import adjust_colors, jitter_colors

PILLOW = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_each_change_is_pillows(rng, name, factor):
    image = rng.integers(1, 256, (31, 47, 3), np.uint8)
    expected = np.asarray(PILLOW[name](Image.fromarray(image)).enhance(factor)).astype(int)
    found = adjust_colors(image, **{name: factor})
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1  # Pillow rounds the greys first, and cuts decimals off.


@pytest.mark.parametrize("hue", [-0.5, -0.1, 0.001, 0.02, 0.3, 0.5])
def test_the_hue_is_shifted_in_hsv(rng, hue):
    corners = 255 * np.array(list(np.ndindex(2, 2, 2)), np.uint8)
    image = np.concatenate([rng.integers(0, 256, (299, 3), np.uint8), corners])
    turned = []
    for color in image / 255:
        h, s, v = colorsys.rgb_to_hsv(*color)
        turned.append(colorsys.hsv_to_rgb((h + hue) % 1, s, v))
    assert np.abs(adjust_colors(image[None], hue=hue)[0] - 255 * np.array(turned)).max() < 0.51


def test_all_together_in_float64(rng):
    image = rng.integers(60, 180, (20, 30, 3), np.uint8)
    bright = image * 1.1
    grey = bright @ [0.299, 0.587, 0.114]
    contrasted = 0.8 * bright + 0.2 * grey.mean()
    expected = 1.3 * contrasted - 0.3 * (contrasted @ [0.299, 0.587, 0.114])[..., None]
    assert 0 < expected.min() < expected.max() < 255
    assert np.abs(adjust_colors(image, 1.1, 0.8, 1.3) - expected).max() < 0.6


def test_black_stays_black_and_does_not_count(rng):
    image = rng.integers(1, 256, (20, 20, 3), np.uint8)
    padded = np.zeros((30, 50, 3), np.uint8)
    padded[4:24, 9:29] = image
    for changes in ((1.2, 0.5, 1.4, 0.2), (1.0, 1.5, 1.0, 0.0)):
        expected = np.zeros_like(padded)
        expected[4:24, 9:29] = adjust_colors(image, *changes)
        np.testing.assert_array_equal(adjust_colors(padded, *changes), expected)
    assert (adjust_colors(np.zeros((2, 2, 3), np.uint8), 1.5, 0.5, 0.5, 0.5) == 0).all()


def test_without_changes_it_is_the_same_array(rng):
    image = rng.integers(0, 256, (5, 5, 3), np.uint8)
    state = rng.bit_generator.state
    assert jitter_colors(image, 0, 0, 0, 0, rng) is image
    assert rng.bit_generator.state == state  # No number is drawn, so older runs keep their crops.
    before = image.copy()
    jitter_colors(image[:, ::-1], 0.5, 0.5, 0.5, 0.5, rng)  # A mirrored crop is a view.
    np.testing.assert_array_equal(image, before)


def test_factors_are_drawn_evenly_within_their_limits(rng):
    grey = np.full((1, 1, 3), 100, np.uint8)
    found = np.array([jitter_colors(grey, 0.3, 0, 0, 0, rng)[0, 0, 0] for _ in range(400)])
    assert 70 <= found.min() < 75
    assert 125 < found.max() <= 130
    assert 140 < (found < 100).sum() < 260  # Six standard deviations.
