"""Tests the layers of DeconvNet against the paper's table, Flax and PyTorch."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from torch_deconvnet import to_torch, torch_forward

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet, count_parameters, network_from_config
from deconvnet_jax.models.deconvnet import smooth_init
from deconvnet_jax.models.layers import gaussian_init
from deconvnet_jax.ops import max_unpool

ROOT = Path(__file__).parents[2]
SMALL = {"num_classes": 5, "width": 1 / 16, "fc_features": 32}

# Kernel shapes [h, w, in, out] by layer, from the paper's configuration table and the original's
# model/DeconvNet/DeconvNet_inference_deploy.prototxt.
KERNELS = {
    "conv1_1": (3, 3, 3, 64),
    "conv1_2": (3, 3, 64, 64),
    "conv2_1": (3, 3, 64, 128),
    "conv2_2": (3, 3, 128, 128),
    "conv3_1": (3, 3, 128, 256),
    "conv3_2": (3, 3, 256, 256),
    "conv3_3": (3, 3, 256, 256),
    "conv4_1": (3, 3, 256, 512),
    "conv4_2": (3, 3, 512, 512),
    "conv4_3": (3, 3, 512, 512),
    "conv5_1": (3, 3, 512, 512),
    "conv5_2": (3, 3, 512, 512),
    "conv5_3": (3, 3, 512, 512),
    "fc6": (7, 7, 512, 4096),
    "fc7": (1, 1, 4096, 4096),
    "fc6-deconv": (7, 7, 4096, 512),
    "deconv5_1": (3, 3, 512, 512),
    "deconv5_2": (3, 3, 512, 512),
    "deconv5_3": (3, 3, 512, 512),
    "deconv4_1": (3, 3, 512, 512),
    "deconv4_2": (3, 3, 512, 512),
    "deconv4_3": (3, 3, 512, 256),
    "deconv3_1": (3, 3, 256, 256),
    "deconv3_2": (3, 3, 256, 256),
    "deconv3_3": (3, 3, 256, 128),
    "deconv2_1": (3, 3, 128, 128),
    "deconv2_2": (3, 3, 128, 64),
    "deconv1_1": (3, 3, 64, 64),
    "deconv1_2": (3, 3, 64, 64),
    "seg-score-voc": (1, 1, 64, 21),
}


def bn_name(layer):
    special = {"fc6": "bnfc6", "fc7": "bnfc7", "fc6-deconv": "fc6-deconv-bn"}
    return special.get(layer) or layer.replace("deconv", "debn").replace("conv", "bn")


def abstract_variables(net, size=224):
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


def randomized(variables, rng):
    """Returns random variables in a range in which activations neither vanish nor explode."""

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return jnp.asarray(rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]) / 2), jnp.float32)
        low, high = (0.5, 1.5) if path[-1].key in ("scale", "var") else (-0.3, 0.3)
        return jnp.asarray(rng.uniform(low, high, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


def test_every_layer_and_the_number_of_parameters():
    variables = abstract_variables(DeconvNet(num_classes=21))
    params = variables["params"]
    assert count_parameters(variables) == 251_805_653
    assert set(params) == {*KERNELS, *(bn_name(layer) for layer in KERNELS if layer != "seg-score-voc")}
    for layer, shape in KERNELS.items():
        assert params[layer]["kernel"].shape == shape, layer
        assert params[layer]["bias"].shape == shape[-1:], layer
        if layer != "seg-score-voc":
            bn = bn_name(layer)
            assert {part: leaf.shape for part, leaf in params[bn].items()} == {"scale": shape[-1:], "bias": shape[-1:]}
            statistics = variables["batch_stats"][bn]
            assert {part: leaf.shape for part, leaf in statistics.items()} == {"mean": shape[-1:], "var": shape[-1:]}
    encoder = sum(np.prod(KERNELS[k]) for k in KERNELS if k.startswith(("conv", "fc6", "fc7")) and k != "fc6-deconv")
    assert encoder == 134_248_128
    assert sum(np.prod(KERNELS[k]) for k in KERNELS if "deconv" in k) == 117_506_048


@pytest.mark.parametrize("size", [(224, 224), (224, 320)])
def test_output_shape_at_two_resolutions(size):
    net = DeconvNet(**SMALL)
    logits = jax.eval_shape(net.apply, abstract_variables(net), jnp.zeros((2, *size, 3)))
    assert logits.shape == (2, *size, 5)
    assert logits.dtype == jnp.float32


MULTIPLES = r"multiples of 32 and at least 224, got .* for example to 224x2"


@pytest.mark.parametrize(
    ("size", "message"), [((192, 224), MULTIPLES), ((224, 225), MULTIPLES), ((0, 224), "expected at least one pixel")]
)
def test_other_sizes_are_refused_with_the_next_ones_that_fit(size, message):
    with pytest.raises(InputError, match=message):
        DeconvNet(**SMALL).init(jax.random.key(0), jnp.zeros((1, *size, 3)))


def test_initialisation_and_loss_of_the_full_network_before_training(rng):
    """The encoder suits batch normalisation, the rest equals the original, and all classes are equally likely."""
    net = DeconvNet(num_classes=21, fc_features=256)
    images = jnp.asarray(rng.uniform(-120, 150, (2, 224, 224, 3)), jnp.float32)
    variables = jax.jit(net.init)(jax.random.key(1), images)
    assert np.std(variables["params"]["deconv4_1"]["kernel"]) == pytest.approx(0.01, rel=0.01)
    assert np.std(variables["params"]["fc6"]["kernel"]) == pytest.approx(0.01, rel=0.01)
    np.testing.assert_array_equal(variables["params"]["bn3_1"]["bias"], np.float32(0.001))
    logits, _ = jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)
    labels = rng.integers(0, 21, (2, 224, 224))
    loss = -np.mean(np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), labels[..., None], -1))
    assert loss == pytest.approx(np.log(21), rel=0.05)


def test_batch_statistics_are_running_averages_and_used_only_at_test_time(rng):
    net = DeconvNet(**SMALL, bn_momentum=0.75)
    images = jnp.asarray(rng.uniform(-120, 150, (2, 224, 224, 3)), jnp.float32)
    variables = randomized(abstract_variables(net), rng)
    train = jax.jit(partial(net.apply, train=True, mutable=["batch_stats"]))
    _, updates = train(variables, images)
    kernel, bias = variables["params"]["conv1_1"]["kernel"], variables["params"]["conv1_1"]["bias"]
    conv = (
        jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
    )
    before, after = variables["batch_stats"]["bn1_1"], updates["batch_stats"]["bn1_1"]
    np.testing.assert_allclose(after["mean"], 0.75 * before["mean"] + 0.25 * conv.mean((0, 1, 2)), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(after["var"], 0.75 * before["var"] + 0.25 * conv.var((0, 1, 2)), rtol=1e-3)
    apply = jax.jit(net.apply)
    both, alone = apply(variables, images), apply(variables, images[:1])
    # Compares averages: where two values of a window are almost equal, rounding may move a single switch.
    assert np.abs(both[:1] - alone).mean() < 1e-4 * np.abs(alone).mean()


def test_bfloat16_computes_in_bfloat16_with_float32_outside(rng):
    images = jnp.asarray(rng.uniform(-120, 150, (1, 224, 224, 3)), jnp.float32)
    net32, net16 = DeconvNet(**SMALL), network_from_config({**SMALL, "dtype": "bfloat16"})
    variables = randomized(abstract_variables(net16), rng)
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract_variables(net16))} == {jnp.dtype(jnp.float32)}
    exact, coarse = (jax.jit(net.apply)(variables, images) for net in (net32, net16))
    assert coarse.dtype == jnp.float32
    error = np.abs(coarse - exact).mean() / np.abs(exact).mean()
    assert 1e-4 < error < 0.7  # Rounding flips switches; unrelated outputs would give about 1.4.


def test_whole_network_equals_pytorch_with_gradients(rng):
    """Uses float64, so that rounding flips no switch and the tolerance is tight; other tests compare float32."""
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    with jax.enable_x64(True):
        net = DeconvNet(**SMALL, dtype=jnp.float64)
        variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), randomized(abstract_variables(net), rng))
        images = rng.uniform(-120, 150, (3, 224, 224, 3)).astype(np.float32)
        upstream = rng.standard_normal((3, 224, 224, 5)).astype(np.float32)

        expected, leaves = torch_forward(torch, variables, to_torch(torch, images).double(), net.bn_epsilon)
        expected.backward(to_torch(torch, upstream).double())

        def forward(params):
            return net.apply({**variables, "params": params}, jnp.asarray(images), train=True, mutable=["batch_stats"])[
                0
            ]

        logits, vjp = jax.vjp(jax.jit(forward), variables["params"])
        gradients = vjp(jnp.asarray(upstream))[0]
    assert relative_error(logits, expected.detach().numpy().transpose(0, 2, 3, 1)) < 1e-6
    assert set(leaves) == {(layer, part) for layer, parts in gradients.items() for part in parts}
    for (layer, part), tensor in leaves.items():
        if part == "bias" and "bn" not in layer and layer != "seg-score-voc":
            continue  # Zero up to rounding, because batch normalisation removes it.
        assert relative_error(gradients[layer][part], tensor.grad.numpy()) < 1e-5, f"{layer}/{part}"


def relative_error(x, reference):
    return np.linalg.norm(np.asarray(x, np.float64) - reference) / np.linalg.norm(reference)


def test_smooth_init_turns_channels_and_interpolates(rng):
    kernel = np.asarray(smooth_init(jax.random.key(int(rng.integers(2**31))), (3, 3, 24, 16)))
    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 6
    channels = kernel[1, 1] / binomial[1, 1]
    np.testing.assert_allclose(kernel, binomial[:, :, None, None] * channels, atol=1e-6)
    np.testing.assert_allclose(channels.T @ channels, np.eye(16), atol=1e-5)


def test_smooth_init_hands_on_what_unpooling_scatters(rng):
    """Unpools a constant map to random places and measures how constant a new layer's output is."""
    values = np.broadcast_to(rng.normal(size=64), (1, 16, 16, 64)).astype(np.float32)
    rows, columns = np.mgrid[:16, :16] * 2
    within = rng.integers(0, 2, (2, 1, 16, 16, 64))
    places = (rows[..., None] + within[0]) * 32 + columns[..., None] + within[1]
    scattered = max_unpool(jnp.asarray(values), jnp.asarray(places, jnp.int32), output_size=(32, 32))

    def signal_to_noise(init):
        kernel = init(jax.random.key(int(rng.integers(2**31))), (3, 3, 64, 32))
        y = jax.lax.conv_general_dilated(scattered, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        y = np.asarray(y)[:, 2:-2, 2:-2]
        return y.mean((0, 1, 2)).var() / y.var((0, 1, 2)).mean()

    assert signal_to_noise(gaussian_init) < 0.5
    assert signal_to_noise(smooth_init) > 1.5


def test_smooth_network_starts_with_shifted_normalisation_in_the_decoder_only():
    net = DeconvNet(num_classes=3, width=1 / 32, fc_features=8, fc_window=1, decoder_init="smooth")
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    for name, layer in params.items():
        if "bn" in name:
            expected = 0.001 if name[:3] in ("bn1", "bn2", "bn3", "bn4", "bn5") else 1.0
            np.testing.assert_allclose(layer["bias"], expected)


def test_an_unknown_decoder_init_is_refused():
    with pytest.raises(InputError, match="decoder_init='bilinear': expected gaussian or smooth"):
        abstract_variables(DeconvNet(num_classes=3, decoder_init="bilinear"))


@pytest.mark.parametrize("unpooling", ["corner", "nearest"])
def test_other_unpoolings_put_values_elsewhere(rng, unpooling):
    """The values are the same in every mode; only their places differ."""
    x = jnp.asarray(rng.standard_normal((2, 3, 5, 4)), jnp.float32)
    nowhere = jnp.full(x.shape, -1)  # The places that pooling found must not matter.
    found = np.asarray(DeconvNet(**SMALL, unpooling=unpooling)._unpool(x, nowhere, (6, 10)))
    expected = np.zeros((2, 6, 10, 4), np.float32)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)) if unpooling == "nearest" else ((0, 0),):
        expected[:, row::2, column::2] = x
    np.testing.assert_array_equal(found, expected)


def test_an_unknown_unpooling(rng):
    with pytest.raises(InputError, match="unpooling='mean': expected indices or corner or nearest"):
        abstract_variables(DeconvNet(**SMALL, unpooling="mean"))


def test_without_batch_normalisation_it_can_learn_too(rng):
    """Gradients reach every layer, and there are no statistics."""
    net = DeconvNet(**SMALL, batch_norm=False)
    images = jnp.asarray(rng.standard_normal((2, 224, 224, 3)) * 50, jnp.float32)
    variables = randomized(abstract_variables(net), rng)
    assert set(variables) == {"params"}
    gradient = jax.grad(lambda params: (net.apply({"params": params}, images, train=True) ** 2).mean())
    gradients = jax.jit(gradient)(variables["params"])
    assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients)) > 0


@pytest.mark.parametrize(("dtype", "kept", "without"), [("float32", 46, 209), ("bfloat16", 24, 105)])
def test_rematerialisation_keeps_what_the_documentation_says(monkeypatch, dtype, kept, without):
    """Checks the MB kept for the backward pass per 224x224 image, from the shapes that accelerators keep."""
    monkeypatch.setattr(lax, "platform_dependent", lambda *arguments, default, **_: default(*arguments))

    count = 11  # Divides no kernel size, so it marks the batch axis.

    def residuals(remat):
        net = DeconvNet(21, remat=remat, dtype=jnp.dtype(dtype))
        images = jax.ShapeDtypeStruct((count, 224, 224, 3), jnp.float32)

        def forward(params, statistics, images):
            return net.apply({"params": params, "batch_stats": statistics}, images, train=True, mutable=["batch_stats"])

        def backward(params, statistics, images):
            return jax.vjp(partial(forward, statistics=statistics, images=images), params, has_aux=True)[1]

        leaves = jax.tree.leaves(jax.eval_shape(backward, variables["params"], variables["batch_stats"], images))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if leaf.size % count == 0) / count

    variables = jax.eval_shape(
        DeconvNet(21).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    )
    megabytes = [round(residuals(remat) / 1e6) for remat in (True, False)]
    assert megabytes == [kept, without]
    for text in (DeconvNet.__doc__, (ROOT / "docs/training.md").read_text()):
        assert f"{kept} MB instead of {without} MB" in " ".join(text.split())
