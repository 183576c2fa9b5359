"""Tests that jax.vmap over the operations gives what a Python loop gives, also under jit, and for gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax import ops
from deconvnet_jax.ops.convolution import convolve
from deconvnet_jax.training import segmentation_loss

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
IMAGE = np.random.default_rng(1).integers(0, 255, (6, 7, 3)).astype(np.uint8)
CRF = {"iterations": 2, "gaussian": (2.0, 0.5), "bilateral": (4.0, 60.0, 0.5)}


def maps(rng):
    return rng.normal(size=(2, 1, 6, 6, 4)).astype(np.float32)


def pooled(rng, window=2):
    return jax.vmap(lambda x: ops.max_pool_with_indices(x, window))(maps(rng))


def unaries(rng):
    return rng.normal(size=(2, 6, 7, 3)).astype(np.float32)


def images(rng):
    return rng.integers(0, 255, (2, 6, 7, 3)).astype(np.uint8)


# Each case: the function of one example, its arguments with a batch axis in front, and whether it has a gradient.
CASES = {
    "max_pool_with_indices": (ops.max_pool_with_indices, lambda rng: [maps(rng)], True),
    "overlapping windows": (lambda x: ops.max_pool_with_indices(x, 3, 2, 1), lambda rng: [maps(rng)], True),
    "max_unpool": (lambda p, i: ops.max_unpool(p, i, (6, 6)), pooled, True),
    "max_unpool with window": (lambda p, i: ops.max_unpool(p, i, (6, 6), window=2), pooled, True),
    "pool and unpool windows": (
        lambda x: ops.unpool_windows(*ops.pool_windows(x), (6, 6)),
        lambda rng: [maps(rng)],
        True,
    ),
    "convolve": (convolve, lambda rng: [maps(rng), np.stack([KERNEL, -KERNEL])], True),
    "convolve, one kernel": (lambda x: convolve(x, KERNEL, True), lambda rng: [maps(rng)], True),
    "normalize_images": (ops.normalize_images, lambda rng: [images(rng)], False),
    "channel_sums": (ops.channel_sums, lambda rng: [maps(rng)], True),
    "sum_of_squares": (ops.sum_of_squares, lambda rng: [maps(rng)], True),
    "segmentation_loss": (
        segmentation_loss,
        lambda rng: [maps(rng), rng.integers(0, 4, (2, 1, 6, 6))],
        True,
    ),
    "dense_crf": (lambda u, i: ops.dense_crf(u, i, **CRF), lambda rng: [unaries(rng), images(rng)], True),
    "dense_crf, one image": (lambda u: ops.dense_crf(u, IMAGE, **CRF), lambda rng: [unaries(rng)], True),
    "dense_crf, exact": (
        lambda u, i: ops.dense_crf(u, i, **CRF, normalization="symmetric", method="exact"),
        lambda rng: [unaries(rng), images(rng)],
        True,
    ),
}


def values_and_gradients(function, differentiable):
    """Returns a function of the results and, if there are any, of the gradient of a sum of them."""

    def total(*arguments):
        result = function(*arguments)
        floats = [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return sum(jnp.sin(leaf).sum() for leaf in floats), result

    if not differentiable:
        return function
    return jax.value_and_grad(total, has_aux=True)


@pytest.mark.parametrize("name", CASES)
def test_equals_a_loop(rng, name):
    function, arguments, differentiable = CASES[name]
    both, batch = values_and_gradients(function, differentiable), arguments(rng)
    loop = [both(*(argument[i] for argument in batch)) for i in range(2)]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *loop)
    # Operation by operation, the CRF compiles for half a minute, and computes the same.
    transformed = [jax.jit(jax.vmap(both))] + ([] if "crf" in name else [jax.vmap(both)])
    for vmapped in transformed:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), vmapped(*batch), expected)


def test_forward_mode_and_second_derivatives_of_the_crf(rng):
    """The kernels' transposes are given: forward mode agrees with reverse mode, also for second derivatives."""
    unary, direction = jnp.asarray(unaries(rng)[0]), jnp.asarray(unaries(rng)[1])

    def loss(unary):
        return jnp.sin(ops.dense_crf(unary, IMAGE, **CRF)).sum()

    gradient, second = jax.jvp(jax.grad(loss), (unary,), (direction,))
    _, forward = jax.jvp(loss, (unary,), (direction,))
    np.testing.assert_allclose(forward, jnp.vdot(gradient, direction), rtol=1e-4)
    reverse = jax.grad(lambda unary: jnp.vdot(jax.grad(loss)(unary), direction))(unary)
    np.testing.assert_allclose(second, reverse, atol=1e-4)
