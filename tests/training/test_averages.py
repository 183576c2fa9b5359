"""Compares moving averages with a loop in NumPy."""

from functools import partial

import jax
import numpy as np
import optax

from deconvnet_jax.training import create_state, update_averages


def test_averages_equal_a_loop_in_numpy(rng):
    """The decay is that of the warm-up up to step 71, and the setting after it."""
    variables = {"params": {"conv": {"kernel": rng.standard_normal((3, 2)).astype(np.float32)}}}
    variables["batch_stats"] = {"bn": {"var": rng.random(4).astype(np.float32)}}
    expected = averages = variables
    for done in range(90):
        variables = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), variables)
        decay = (1 + done) / (10 + done) if done < 71 else 0.8875
        averages = jax.jit(update_averages)(averages, variables, np.int32(done), 0.8875)
        expected = jax.tree.map(lambda old, new, d=decay: np.float64(d * old + (1 - d) * new), expected, variables)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), averages, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(averages)} == {np.dtype(np.float32)}


def test_averages_of_constant_variables_are_these():
    """The initial values are forgotten within ten steps."""
    averages, variables = (
        {"params": {"conv": {"bias": np.float32(1000)}}},
        {"params": {"conv": {"bias": np.float32(1)}}},
    )
    for done in range(10):
        averages = update_averages(averages, variables, done, 0.9999)
    assert abs(averages["params"]["conv"]["bias"] - 1) < 0.02


def test_a_state_without_averages_is_as_before(rng):
    variables = {"params": {"conv": {"kernel": rng.standard_normal(3).astype(np.float32)}}}
    plain, averaged = (create_state(variables, optax.sgd(0.1, 0.9), averaged) for averaged in (False, True))
    assert len(jax.tree.leaves(averaged)) == len(jax.tree.leaves(plain)) + 1
    assert plain.evaluated is plain.variables
    assert averaged.evaluated is averaged.averages
    copy, original = averaged.averages["params"]["conv"]["kernel"], variables["params"]["conv"]["kernel"]
    np.testing.assert_array_equal(copy, original)
    assert copy is not original
