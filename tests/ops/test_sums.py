"""Tests sums against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.ops import channel_sums, sum_of_squares

SHAPES = [(2, 24, 16, 5), (3, 7, 11, 2), (13, 4), (1, 1, 1, 6), (9,), (8, 49, 3), (1027, 2), (0, 3), (3, 0, 2), (4, 0)]


@pytest.mark.parametrize("shape", SHAPES)
def test_channel_sums(rng, shape):
    x = rng.normal(1, 3, shape)
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(jax.jit(channel_sums)(x.astype(np.float32)), x.sum(axes), rtol=1e-5, atol=1e-4)
    in_bfloat16 = jnp.asarray(x, jnp.bfloat16)
    expected = np.asarray(in_bfloat16, np.float64).sum(axes)
    np.testing.assert_allclose(channel_sums(in_bfloat16), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.accelerator
def test_sum_of_squares_of_a_tree(rng):
    tree = {str(shape): rng.normal(0, 3, shape) for shape in [*SHAPES, ()]}
    found = jax.jit(sum_of_squares)(jax.tree.map(np.float32, tree))
    assert found == pytest.approx(sum((leaf**2).sum() for leaf in tree.values()), rel=1e-5)
    assert found.dtype == jnp.float32
    assert sum_of_squares({}) == 0
    assert sum_of_squares([3.0, np.ones(2, np.float32)]) == 11


@pytest.mark.accelerator
@pytest.mark.parametrize("count", [401_408, 401_407, 100_352])  # Rows of conv1_2 for 8 and 2 crops, and an odd number.
def test_many_rows_are_added_up_as_in_float64(rng, count):
    """Adding row after row would give errors of 5e-4 for equal numbers and 7e-6 for squares."""
    equal = np.full((count, 2), 0.1, np.float32)
    np.testing.assert_allclose(jax.jit(channel_sums)(equal), equal.sum(0, np.float64), rtol=2e-6)
    assert sum_of_squares(equal) == pytest.approx(np.square(equal, dtype=np.float64).sum(), rel=2e-6)
    x = rng.normal(1, 3, (count, 8)).astype(np.float32)
    mean, of_squares = jax.jit(lambda x: jnp.stack([channel_sums(x), channel_sums(x * x)]) / len(x))(x)
    np.testing.assert_allclose(of_squares - mean * mean, x.var(0, np.float64), rtol=1e-6)
    assert sum_of_squares(x) == pytest.approx(np.square(x, dtype=np.float64).sum(), rel=1e-6)


def test_wider_numbers_stay_wide(rng):
    x = rng.standard_normal((1024, 3))
    with jax.enable_x64(True):
        np.testing.assert_allclose(channel_sums(x), x.sum(0), rtol=1e-12, atol=1e-12)
        assert sum_of_squares([x, np.float32(2)]) == pytest.approx((x * x).sum() + 4, rel=1e-14)


@pytest.mark.accelerator
@pytest.mark.parametrize("count", [1024, 49])
def test_gradients(rng, count):
    x = rng.standard_normal((2, count, 3)).astype(np.float32)
    np.testing.assert_allclose(jax.vmap(jax.grad(sum_of_squares))(x), 2 * x, rtol=1e-6)
    gradient = jax.grad(lambda x: (channel_sums(x) ** 2).sum())(x)
    np.testing.assert_allclose(gradient, np.broadcast_to(2 * x.sum((0, 1)), x.shape), rtol=1e-4, atol=1e-3)


def test_infinite_and_no_numbers_show(rng):
    x = rng.standard_normal((128, 3)).astype(np.float32)
    for value in (np.inf, np.nan):
        x[5, 1] = value
        assert not np.isfinite(sum_of_squares([x]))
        assert np.isfinite(np.asarray(channel_sums(x))).tolist() == [True, False, True]


@pytest.mark.parametrize("count", [16, 1024])
def test_batched_over_other_axes(rng, count):
    x = rng.standard_normal((4, count, 3)).astype(np.float32)
    np.testing.assert_allclose(jax.vmap(channel_sums)(x), x.sum(1), rtol=1e-5, atol=1e-4)
