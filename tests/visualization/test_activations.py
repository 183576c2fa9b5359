"""Tests pictures of single feature-map channels."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.visualization import activation_picture, representative_channel


def test_the_channel_that_goes_best_with_the_target(rng):
    target = rng.random((32, 48))
    small = target.reshape(8, 4, 12, 4).mean((1, 3))
    maps = np.stack(
        [rng.random((8, 12)), 3 - small, np.zeros((8, 12)), 100 * small + 7, small + rng.random((8, 12))], -1
    )
    assert representative_channel(maps, target) == 3
    assert representative_channel(maps[..., :3], target) in (0, 1)
    assert representative_channel(np.zeros((8, 12, 2)), target) == 0
    with pytest.raises(InputError, match=r"representative_channel: maps has shape \[8, 12\]; expected \[h, w, C\]"):
        representative_channel(maps[..., 0], target)


def test_every_value_is_a_square():
    picture = activation_picture(np.array([[0.0, 1.0], [2.0, 4.0]]), 40)
    assert picture.shape == (40, 40, 3)
    assert picture.dtype == np.uint8
    corners = picture[::20, ::20].reshape(4, 3).astype(int)
    np.testing.assert_array_equal(picture, picture[::20, ::20].repeat(20, 0).repeat(20, 1))
    brightness = corners.sum(1)
    assert (np.diff(brightness) > 0).all()
    assert activation_picture(np.full((3, 6), 2.5), 60).shape == (30, 60, 3)  # A constant map must not divide by 0.
