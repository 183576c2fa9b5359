"""Tests folded batch normalisation: equal outputs from fewer numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet, batch_norm_name, count_parameters, fold_batch_norm, fold_statistics

NET = DeconvNet(num_classes=3, width=1 / 32, fc_features=16, fc_window=1, bn_epsilon=1e-3)


def random_variables(rng, dtype):
    """Returns random variables in a range in which activations neither vanish nor explode."""

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(dtype)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.3, 0.3)
        return rng.uniform(low, high, leaf.shape).astype(dtype)

    shapes = jax.eval_shape(NET.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def test_same_outputs(rng):
    """Uses float64, so that rounding flips no switch."""
    images = rng.uniform(-3, 3, (2, 64, 64, 3)).astype(np.float32)
    with jax.enable_x64(True):
        net = NET.clone(dtype=jnp.float64)
        variables = random_variables(rng, np.float64)
        expected = jax.jit(net.apply)(variables, images)
        folded_net, folded = fold_batch_norm(net, variables)
        in_convolutions = jax.jit(folded_net.apply)(folded, images)
        in_scale = jax.jit(net.apply)(fold_statistics(net, variables), images)
    largest = np.abs(expected).max()
    assert np.std(expected) > 1e-3 * largest
    np.testing.assert_allclose(in_convolutions, expected, atol=1e-6 * largest)
    np.testing.assert_allclose(in_scale, expected, atol=1e-6 * largest)


def test_what_is_left(rng):
    variables = random_variables(rng, np.float32)
    net, folded = fold_batch_norm(NET, variables)
    assert set(folded) == {"params"}
    norms = {batch_norm_name(name) for name in folded["params"] if name != "seg-score-voc"}
    assert set(variables["params"]) == {*folded["params"], *norms}
    assert count_parameters(folded) < count_parameters(variables)
    scaled = fold_statistics(NET, variables)
    assert jax.tree.structure(scaled) == jax.tree.structure(variables)
    np.testing.assert_array_equal(scaled["batch_stats"]["bn1_1"]["mean"], 0)
    with pytest.raises(InputError, match="has no batch normalisation"):
        fold_batch_norm(net, folded)


def test_names():
    names = {"conv1_1": "bn1_1", "fc6": "bnfc6", "fc7": "bnfc7", "fc6-deconv": "fc6-deconv-bn", "deconv5_3": "debn5_3"}
    assert {name: batch_norm_name(name) for name in names} == names
