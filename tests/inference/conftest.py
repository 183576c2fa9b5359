"""Provides networks for tests of inference: two with known answers, and a narrow DeconvNet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_networks import ColorNet, SmoothNet

from deconvnet_jax.models import DeconvNet

SIZE = 32


@pytest.fixture(scope="session")
def color_net():
    return ColorNet()


@pytest.fixture(scope="session")
def smooth_net():
    """Like `narrow_net`, but continuous in its input, so that windows can be compared to the last digits."""
    net = SmoothNet()
    variables = {"params": {"kernel": np.random.default_rng(6).normal(size=(3, 3)).astype(np.float32)}}

    def network(window):
        return np.asarray(net.apply(variables, jnp.asarray(window[None], jnp.float32), train=False))[0]

    return net, variables, network


@pytest.fixture(scope="session")
def narrow_net():
    """Returns a DeconvNet with 3 classes for 32x32 windows, random variables, and both as a function of a window."""
    net = DeconvNet(num_classes=3, width=1 / 16, fc_features=8, fc_window=1, decoder_init="smooth")
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)
        return np.full(leaf.shape, {"var": 1.0, "scale": 1.0, "bias": 0.1}.get(path[-1].key, 0.0), np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    apply = jax.jit(lambda window: net.apply(variables, window))

    def network(window):
        return np.asarray(apply(window[None].astype(np.float32)))[0]

    return net, variables, network
