"""Tests shapes, initialisation and dropout of FCN-8s; tests/weights/test_fcn8s.py compares its outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.models import FCN8s, count_parameters
from deconvnet_jax.models.fcn8s import bilinear_init

NET = FCN8s(num_classes=3, width=1 / 32, fc_features=8)


def test_number_of_parameters():
    """Adds VGG-16 up to fc7 (134,260,544), the score layers and the three upsamplings, counted by hand."""
    net = FCN8s()
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    scores = 21 * (4096 + 512 + 256 + 3)
    assert count_parameters(variables) == 134_260_544 + scores + 21 * 21 * (16 + 16 + 256) + 21


@pytest.mark.parametrize("size", [(32, 64), (33, 47), (1, 100)])
def test_any_size(size):
    shapes = jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert jax.eval_shape(NET.apply, shapes, jnp.zeros((2, *size, 3))).shape == (2, *size, 3)


@pytest.mark.parametrize(("k", "stride"), [(4, 2), (16, 8)])
def test_upsampling_starts_as_bilinear_interpolation(k, stride):
    """Interpolating a linear ramp gives a linear ramp."""
    kernel = bilinear_init(jax.random.key(0), (k, k, 1, 1))
    rows, columns = np.mgrid[:6, :5]
    plane = jnp.asarray(3.0 * rows - 2 * columns + 1, jnp.float32)[None, :, :, None]
    y = jax.lax.conv_transpose(plane, kernel, (stride, stride), "VALID")[0, :, :, 0]
    at = [(np.arange(size) - (k - 1) / 2) / stride for size in y.shape]  # Positions in the small map.
    expected = 3 * at[0][:, None] - 2 * at[1] + 1
    inside = [(a >= 0) & (a <= size - 1) for a, size in zip(at, (6, 5), strict=True)]
    inside = np.ix_(*inside)
    np.testing.assert_allclose(np.asarray(y)[inside], expected[inside], atol=1e-4)


def test_dropout_in_training_only(rng):
    images = jnp.asarray(rng.uniform(-100, 100, (1, 40, 40, 3)), jnp.float32)
    variables = NET.init(jax.random.key(0), images)
    scores = variables["params"]["score-fr"]["kernel"]
    variables["params"]["score-fr"]["kernel"] = jnp.asarray(rng.standard_normal(scores.shape), jnp.float32)
    np.testing.assert_array_equal(NET.apply(variables, images), NET.apply(variables, images))
    dropped = [NET.apply(variables, images, train=True, rngs={"dropout": jax.random.key(i)}) for i in range(2)]
    assert not np.array_equal(*dropped)
