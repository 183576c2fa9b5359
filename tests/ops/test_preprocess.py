import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops import normalize_images


def test_blue_comes_first_and_the_mean_is_gone():
    image = np.array([[[122, 116, 104], [0, 0, 255]]], np.uint8)  # RGB
    expected = [[[-0.00698793, -0.66876762, -0.67891434], [150.99301207, -116.66876762, -122.67891434]]]
    np.testing.assert_allclose(normalize_images(jnp.asarray(image)), expected, atol=1e-5)


def test_floats_and_grey_images_are_refused():
    with pytest.raises(InputError, match="images has dtype float32; expected uint8"):
        normalize_images(jnp.zeros((2, 2, 3), jnp.float32))
    with pytest.raises(InputError, match=r"shape \[2, 2, 1\]; expected \[..., 3\]. Repeat the grey channel"):
        normalize_images(jnp.zeros((2, 2, 1), jnp.uint8))
