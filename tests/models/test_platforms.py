"""Tests that a program traced here and lowered for another platform uses the forms for that platform."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.models import DeconvNet
from deconvnet_jax.ops import channel_sums, dense_crf, sum_of_squares
from deconvnet_jax.ops.convolution import convolve
from deconvnet_jax.training import step

PLATFORMS = ("cpu", "cuda", "tpu")
CONVOLUTIONS = 26
NET = DeconvNet(
    num_classes=21, width=1 / 8, fc_features=8, fc_window=1
)  # All maps but the image have multiples of 8 channels.


@pytest.fixture(autouse=True)
def nobody_asks_for_the_backend(monkeypatch):
    def asked():
        raise AssertionError("a program must not depend on the machine that traces it")

    monkeypatch.setattr(jax, "default_backend", asked)


def lowered(function, *arguments):
    """Returns the StableHLO for each platform of a function that is traced once."""
    traced = jax.jit(lambda *arguments: function(*arguments)).trace(*arguments)
    return {name: traced.lower(lowering_platforms=(name,)).as_text() for name in PLATFORMS}


def where(texts, pattern):
    """Returns the platforms in whose program a line matches."""
    return [name for name, text in texts.items() if re.search(pattern, text)]


def network():
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(NET.init, jax.random.key(0), images), images


def forward(variables, images):
    return NET.apply(variables, images, train=False)


def gradients(variables, images):
    def loss(params):
        logits, _ = NET.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return (logits**2).sum()

    return jax.grad(loss)(variables["params"])


# Every platform also has zeros of these shapes for gradients in another form. XLA removes them.
WIDENED = [
    r"stablehlo.pad .*tensor<1x32x32x3xf32>.*tensor<1x32x32x8xf32>",
    r"stablehlo.pad .*tensor<3x3x3x8xf32>.*tensor<3x3x8x8xf32>",
    r"stablehlo.pad .*tensor<1x1x8x21xf32>.*tensor<1x1x8x32xf32>",
]


def test_a_network_and_its_gradients():
    """CPUs keep inputs of convolutions and sum by products; GPUs pad channels; TPUs run the code as written."""
    texts = lowered(gradients, *network())
    kept = {name: text.count("stablehlo.while") for name, text in texts.items()}
    assert kept == {"cpu": 2 * CONVOLUTIONS, "cuda": 0, "tpu": 0}
    for pattern in WIDENED:
        assert where(texts, pattern) == ["cuda"]
    products = {name: text.count("stablehlo.dot_general") for name, text in texts.items()}
    assert products["cpu"] > products["tpu"] == products["cuda"] + 3  # The scores and their gradients.
    convolutions = {name: text.count("stablehlo.convolution") for name, text in texts.items()}
    assert convolutions["tpu"] == 3 * CONVOLUTIONS - 1  # The image needs no gradient.
    assert convolutions["cuda"] == convolutions["tpu"] + 3


def test_an_exported_network_has_every_form():
    """A program loaded on a CPU contains none of the other platforms' forms."""
    exported = jax.export.export(jax.jit(forward), platforms=PLATFORMS)(*network())
    text = exported.mlir_module()
    assert "stablehlo.case" in text
    for pattern in WIDENED:
        assert re.search(pattern, text)
    program = jax.jit(exported.call).lower(*network()).compile().as_text()
    assert " conditional(" not in program
    assert "f32[3,3,3,8]" in program
    assert "f32[3,3,8,8]{3,2,1,0} pad" not in program
    assert "f32[1,1,8,32]" not in program


def test_micro_batches():
    """Micro-batches are a loop, but CPU programs contain them one after the other."""
    batch = {"image": jax.ShapeDtypeStruct((3, 4, 2), jnp.float32)}

    def sines(index, crops, before):
        return jnp.sin(index + crops["image"])

    def sums(groups):
        return step._sum_over(sines, groups, 3, large=())

    assert where(lowered(sums, batch), "stablehlo.while") == ["cuda", "tpu"]


def test_convolution():
    x, kernel = jnp.zeros((2, 6, 5, 3)), jnp.zeros((3, 3, 3, 4))

    def gradient_of_kernel(x, kernel):
        return jax.grad(lambda kernel: convolve(x, kernel, train=True).sum())(kernel)

    texts = lowered(gradient_of_kernel, x, kernel)
    assert where(texts, "stablehlo.while") == ["cpu"]
    assert where(texts, "stablehlo.pad .*tensor<2x6x5x8xf32>") == ["cuda"]
    assert where(texts, "tensor<3x6x5x2xf32>") == ["cpu"]  # Only this form transposes the map itself.
    texts = lowered(gradient_of_kernel, jnp.zeros((2, 6, 5, 16)), jnp.zeros((3, 3, 16, 4)))
    assert where(texts, "stablehlo.pad") == []


@pytest.mark.parametrize("function", [channel_sums, sum_of_squares, jax.vmap(channel_sums)])
def test_sums(function):
    assert where(lowered(function, jnp.zeros((2, 512, 3))), "stablehlo.dot_general") == ["cpu"]


@pytest.mark.parametrize("known", [True, False])
def test_dense_crf(rng, known):
    """Rows of 21 classes get 11 more on a CPU, with the lattice known or computed inside the program."""
    unary = rng.random((6, 8, 21), np.float32)
    image = rng.integers(0, 256, (6, 8, 3), np.uint8)
    if known:
        texts = lowered(lambda unary: dense_crf(unary, image, 2), unary)
    else:
        texts = lowered(lambda unary, image: dense_crf(unary, image, 2), unary, image)
    assert where(texts, "x32xf32>") == ["cpu"]
    exported = jax.export.export(jax.jit(lambda unary: dense_crf(unary, image, 2)), platforms=PLATFORMS)(unary)
    np.testing.assert_allclose(exported.call(unary), dense_crf(unary, image, 2), rtol=1e-5, atol=1e-6)
