"""Turned crops are compared with SciPy's interpolation and, for quarter turns, with NumPy's."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from deconvnet_jax.data import crop_window
from deconvnet_jax.data.windows import random_angle


def expected_crop(image, label, box, size, part, angle):
    """Returns the crop in float64, and its label, sampled at the centre of each pixel."""
    top, left, side = part
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    turn = np.deg2rad(angle)
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y  # The y axis points downwards.
    x = box[0] + (left + side / 2 + x) * (box[2] - box[0]) / size
    y = box[1] + (top + side / 2 + y) * (box[3] - box[1]) / size
    height, width = label.shape
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    planes = [
        map_coordinates(image[..., k].astype(float), [y - 0.5, x - 0.5], order=1, mode="nearest") for k in (0, 1, 2)
    ]
    nearest = label[np.floor(y).clip(0, height - 1).astype(int), np.floor(x).clip(0, width - 1).astype(int)]
    return np.where(outside[..., None], 0, np.stack(planes, -1)), np.where(outside, 255, nearest)


@pytest.mark.parametrize("angle", [-170.0, -33.3, 0.01, 7.0, 90.0])
@pytest.mark.parametrize("size", [(61, 83), (40, 40), (1, 1), (2, 50)])
def test_turned_crops_are_scipys(rng, size, angle):
    coarse = rng.integers(1, 256, (-(-size[0] // 5), -(-size[1] // 5), 3), np.uint8)
    image = np.kron(coarse, np.ones((5, 5, 1), np.uint8))[: size[0], : size[1]]
    label = rng.choice(np.array([0, 3, 7, 255], np.uint8), size)
    corner, sides = rng.uniform(-20, 20, 2), rng.uniform(20, 90, 2)
    box = np.concatenate([corner, corner + sides])
    part = (int(rng.integers(-9, 20)), int(rng.integers(-9, 20)), 32)
    crop, crop_label = crop_window(image, label, box, 48, part, angle)
    expected, expected_label = expected_crop(image, label, box, 48, part, angle)
    assert (crop.shape, crop.dtype, crop_label.shape, crop_label.dtype) == ((32, 32, 3), np.uint8, (32, 32), np.uint8)
    differs = np.abs(crop - expected)
    # Older versions of OpenCV round coordinates to 1/32 pixel.
    assert np.quantile(differs, 0.99) <= 255 / 16
    assert differs.mean() < 1
    assert (crop_label != expected_label).mean() < 0.002
    assert set(np.unique(crop_label)) <= {0, 3, 7, 255}
    np.testing.assert_array_equal(crop_window(image, None, box, 48, part, angle)[0], crop)


def test_quarter_turns_are_exact(rng):
    image, label = rng.integers(0, 256, (24, 24, 3), np.uint8), rng.integers(0, 9, (24, 24), np.uint8)
    for turns, angle in ((1, 90.0), (2, 180.0), (3, -90.0)):
        crop, crop_label = crop_window(image, label, np.array([0, 0, 24, 24]), 24, angle=angle)
        np.testing.assert_array_equal(crop_label, np.rot90(label, turns))
        np.testing.assert_allclose(crop.astype(int), np.rot90(image, turns).astype(int), atol=1)


def test_small_angles_hardly_change_the_crop(rng):
    """Guards against a shift of half a pixel between the turned and the plain crop."""
    x, y = np.meshgrid(np.arange(90), np.arange(70))
    image = np.stack([2 * x, 3 * y, x + y], -1).astype(np.uint8)
    label = (x // 10 + y // 10).astype(np.uint8)
    box = np.array([10, 5, 70, 65])
    plain, turned = (crop_window(image, label, box, 40, (4, 4, 32), angle) for angle in (0.0, 1e-6))
    assert np.abs(plain[0].astype(int) - turned[0]).max() <= 1
    assert (plain[1] != turned[1]).mean() < 0.01


def test_angles_are_drawn_evenly(rng):
    angles = np.array([random_angle(30.0, rng) for _ in range(1000)])
    assert -30 <= angles.min() < -28
    assert 28 < angles.max() <= 30
    assert 400 < (angles < 0).sum() < 600  # Six standard deviations.
    state = rng.bit_generator.state
    assert random_angle(0.0, rng) == 0
    assert rng.bit_generator.state == state  # No number is drawn, so older runs keep their crops.
