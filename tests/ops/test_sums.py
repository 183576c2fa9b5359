"""Sums beside NumPy's in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.ops import channel_sums, sum_of_squares

SHAPES = [(2, 24, 16, 5), (3, 7, 11, 2), (13, 4), (1, 1, 1, 6), (9,)]


@pytest.mark.parametrize("shape", SHAPES)
def test_channel_sums(rng, shape):
    x = rng.normal(1, 3, shape)
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(jax.jit(channel_sums)(x.astype(np.float32)), x.sum(axes), rtol=1e-5, atol=1e-4)
    in_bfloat16 = jnp.asarray(x, jnp.bfloat16)
    expected = np.asarray(in_bfloat16, np.float64).sum(axes)
    np.testing.assert_allclose(channel_sums(in_bfloat16), expected, rtol=1e-5, atol=1e-4)


def test_sum_of_squares_of_a_tree(rng):
    tree = {str(shape): rng.normal(0, 3, shape) for shape in [*SHAPES, ()]}
    found = jax.jit(sum_of_squares)(jax.tree.map(np.float32, tree))
    assert found == pytest.approx(sum((leaf**2).sum() for leaf in tree.values()), rel=1e-5)
    assert found.dtype == jnp.float32
    assert sum_of_squares({}) == 0


def test_infinite_and_no_numbers_show(rng):
    x = rng.standard_normal((16, 3)).astype(np.float32)
    for value in (np.inf, np.nan):
        x[5, 1] = value
        assert not np.isfinite(sum_of_squares([x]))
        assert np.isfinite(np.asarray(channel_sums(x))).tolist() == [True, False, True]


def test_batched_over_other_axes(rng):
    x = rng.standard_normal((4, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(jax.vmap(channel_sums)(x), x.sum(1), rtol=1e-5, atol=1e-5)
