"""Checks what a step costs by XLA's own counts: no timing, but it notices superfluous work."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deconvnet_jax.models import DeconvNet, compiler_options
from deconvnet_jax.ops import max_unpool, onednn, pooling, sum_of_squares

MACS = 32.75e9  # multiply-adds of a forward pass of 224x224, computed by hand from the table of layers
NORMS = 29  # batch normalisations: one after every layer except the scores
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="programs for other devices have other forms")
CONVOLUTIONS = 26  # 13 in the encoder and 13 in the decoder; fc6, fc7 and fc6-deconv are matrix products


def shapes(net, count=1):
    images = jax.ShapeDtypeStruct((count, 224, 224, 3), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), images), images


def gradient(net):
    def loss(params, variables, images):
        logits, _ = net.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return (logits**2).sum()

    return jax.jit(lambda variables, images: jax.grad(loss)(variables["params"], variables, images))


def test_arithmetic_of_the_full_network(monkeypatch):
    """Computing fc6-deconv as a convolution of a padded map would add 5 GMAC; the tolerance of 5 % covers other work.

    oneDNN is off, because XLA does not count the arithmetic of its calls.
    """
    monkeypatch.setattr(onednn, "has_onednn", lambda: False)
    net = DeconvNet(num_classes=21)
    variables, images = shapes(net)
    forward = jax.jit(lambda *arguments: net.apply(*arguments)).lower(variables, images).cost_analysis()["flops"]
    assert forward == pytest.approx(2 * MACS, rel=0.05)
    both = gradient(net).lower(variables, images).cost_analysis()["flops"]
    # The backward pass has two products for each product of the forward pass.
    assert both == pytest.approx(3 * 2 * MACS, rel=0.05)


@on_cpu
def test_convolutions_are_computed_once():
    """One forward, one for the gradient of the input (except the image's) and one for that of the kernel."""
    net = DeconvNet(num_classes=3, width=1 / 32, fc_features=8)
    program = (
        gradient(net).lower(*shapes(net)).compile(compiler_options=compiler_options(jax.default_backend())).as_text()
    )
    by_onednn = program.count('"__onednn$convolution"')
    assert len(re.findall(r"\bconvolution\(", program)) + by_onednn == 3 * CONVOLUTIONS - 1
    assert by_onednn == (2 * CONVOLUTIONS - 1 if onednn.has_onednn() else 0)  # all except the gradients of kernels


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile(compiler_options=compiler_options(jax.default_backend()))


def bytes_accessed(function, *arguments):
    return compiled(function, *arguments).cost_analysis()["bytes accessed"]


def test_norms_read_once(rng):
    """Squares that are written to memory before they are summed would take three times the bytes."""
    x = jnp.asarray(rng.standard_normal((4096, 512)), jnp.float32)
    assert bytes_accessed(sum_of_squares, [x]) < 1.5 * x.nbytes < bytes_accessed(lambda x: optax.tree.norm([x]), x)


@on_cpu
def test_inputs_of_convolutions_are_kept():
    """The gradients of their results are kept too. Inference, which may be exported, keeps nothing.

    Only maps that were kept are transposed for the gradients of kernels; nothing is computed again there.
    """
    net = DeconvNet(num_classes=3, width=1 / 32, fc_features=8)
    variables, images = shapes(net, 2)
    lowered = gradient(net).lower(variables, images)
    assert lowered.as_text().count("stablehlo.while") == 2 * CONVOLUTIONS
    assert lowered.as_text().count("stablehlo.optimization_barrier") == NORMS
    program = lowered.compile(compiler_options=compiler_options(jax.default_backend())).as_text()
    transposing = [part for part in program.split("\n\n") if re.search(r"transpose\(.*dimensions=\{3,1,2,0\}", part)]
    assert len(transposing) >= CONVOLUTIONS
    assert not [part for part in transposing if not part.startswith("ENTRY") and " maximum(" in part]
    forward = jax.jit(net.apply).lower(variables, images).as_text()
    assert "optimization_barrier" not in forward
    assert "while" not in forward


def test_unpooling_moves_each_value_once(rng):
    """Forward reads values and positions and writes the map; backward reads the map and positions and writes values."""
    pooled = jnp.asarray(rng.standard_normal((2, 32, 32, 16)), jnp.float32)
    indices = jnp.asarray(np.broadcast_to(np.arange(0, 64 * 64, 2).reshape(64, 32)[::2, :, None], pooled.shape))
    upstream = jnp.ones((2, 64, 64, 16))

    def unpool(pooled, indices):
        return max_unpool(pooled, indices, (64, 64), window=2)

    def backward(pooled, indices, upstream):
        return jax.vjp(partial(unpool, indices=indices), pooled)[1](upstream)[0]

    def derived(pooled, indices, upstream):  # the gradient that JAX derives
        return jax.vjp(lambda pooled: pooling._spread(pooled, indices, (64, 64), (2, 2)), pooled)[1](upstream)[0]

    least = pooled.nbytes + indices.nbytes + upstream.nbytes
    assert bytes_accessed(unpool, pooled, indices) < 1.1 * least
    assert bytes_accessed(backward, pooled, indices, upstream) < 1.1 * least
    sums = [" reduce(" in compiled(function, pooled, indices, upstream).as_text() for function in (backward, derived)]
    assert sums == [False, True]
