"""Tests layers and their gradients against PyTorch, Flax and the original."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from deconvnet_jax.models.layers import BatchNormRelu, Conv3x3, FullConv, FullDeconv, ScoreConv, gaussian_init
from deconvnet_jax.ops import pool_windows


def to_torch(torch, x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def relative_error(x, reference):
    return np.linalg.norm(np.asarray(x, np.float64) - reference) / np.linalg.norm(reference)


@pytest.mark.parametrize("shape", [(3, 1, 1, 6), (2, 2, 3, 6)])
def test_full_deconv_equals_flax_with_gradients(rng, shape):
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    ours, theirs = FullDeconv(4, 7), nn.ConvTranspose(4, (7, 7), padding="VALID")
    variables = {"params": {"kernel": rng.standard_normal((7, 7, 6, 4)), "bias": rng.standard_normal(4)}}
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), variables)
    y, vjp = jax.vjp(ours.apply, variables, x)
    expected, expected_vjp = jax.vjp(theirs.apply, variables, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    upstream = jnp.asarray(rng.standard_normal(y.shape), jnp.float32)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), vjp(upstream), expected_vjp(upstream)
    )


# Each case is (layer, its input, PyTorch's function of (functional, input, kernel as we store it, bias)).
LAYERS = {
    "conv3x3": (
        Conv3x3(6, gaussian_init),
        (2, 14, 14, 8),
        lambda f, x, k, b: f.conv2d(x, k.permute(3, 2, 0, 1), b, padding=1),
    ),
    "deconv3x3": (
        Conv3x3(6, gaussian_init),
        (2, 14, 14, 8),
        lambda f, x, k, b: f.conv_transpose2d(x, k.permute(2, 3, 0, 1).flip(2, 3), b, padding=1),
    ),
    "scores": (ScoreConv(5), (2, 9, 8, 6), lambda f, x, k, b: f.conv2d(x, k.permute(3, 2, 0, 1), b)),
    "fc6": (FullConv(6, 7), (3, 7, 7, 8), lambda f, x, k, b: f.conv2d(x, k.permute(3, 2, 0, 1), b)),
    "fc6 on a larger map": (FullConv(6, 7), (2, 9, 8, 8), lambda f, x, k, b: f.conv2d(x, k.permute(3, 2, 0, 1), b)),
    "fc6-deconv": (
        FullDeconv(6, 7),
        (3, 1, 1, 8),
        lambda f, x, k, b: f.conv_transpose2d(x, k.permute(2, 3, 0, 1).flip(2, 3), b),
    ),
    "fc6-deconv of a larger map": (
        FullDeconv(6, 7),
        (2, 2, 3, 8),
        lambda f, x, k, b: f.conv_transpose2d(x, k.permute(2, 3, 0, 1).flip(2, 3), b),
    ),
}


@pytest.mark.accelerator
@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_pytorch_in_float32_with_gradients(rng, name):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    layer, shape, reference = LAYERS[name]
    x = rng.standard_normal(shape).astype(np.float32)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    params = {part: rng.standard_normal(leaf.shape).astype(np.float32) for part, leaf in shapes.items()}
    y, vjp = jax.vjp(lambda x, params: layer.apply({"params": params}, x), x, params)
    upstream = rng.standard_normal(y.shape).astype(np.float32)
    dx, dparams = vjp(upstream)

    tx = to_torch(torch, x).requires_grad_()
    kernel, bias = (torch.tensor(params[part], requires_grad=True) for part in ("kernel", "bias"))
    expected = reference(torch.nn.functional, tx, kernel, bias)
    expected.backward(to_torch(torch, upstream))
    assert relative_error(y, expected.detach().numpy().transpose(0, 2, 3, 1)) < 1e-5
    assert relative_error(dx, tx.grad.numpy().transpose(0, 2, 3, 1)) < 1e-5
    assert relative_error(dparams["kernel"], kernel.grad.numpy()) < 1e-5
    assert relative_error(dparams["bias"], bias.grad.numpy()) < 1e-5


@pytest.mark.parametrize("layer", [Conv3x3(6, gaussian_init), ScoreConv(5)])
def test_spare_channels_change_nothing(rng, monkeypatch, layer):
    """Runs the form for GPUs, which pads channels with zeros, on the CPU."""
    x = jnp.asarray(rng.standard_normal((2, 6, 5, 3)), jnp.float32)
    params = jax.tree.map(
        lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype), layer.init(jax.random.key(0), x)
    )

    def results():
        y, vjp = jax.vjp(layer.apply, params, x)
        return y, vjp(jnp.cos(y))

    expected = results()
    taken = []

    def on_gpu(*arguments, default, cuda=None, **_):
        taken.append(cuda)
        return (cuda or default)(*arguments)

    monkeypatch.setattr(lax, "platform_dependent", on_gpu)
    found = results()
    assert any(taken)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


@pytest.mark.accelerator
def test_gradients_in_bfloat16_are_added_up_in_float32(rng):
    """Sums over fc6-deconv's 49 places; rounding after each place would give four times the error."""
    x, kernel = rng.standard_normal((8, 1, 1, 64)), rng.standard_normal((7, 7, 64, 64))
    upstream = rng.standard_normal((8, 7, 7, 64))
    layer = FullDeconv(64, 7, dtype=jnp.bfloat16)
    params = {"kernel": np.float32(kernel), "bias": np.zeros(64, np.float32)}
    coarse = [jnp.asarray(array, jnp.bfloat16) for array in (x, upstream)]
    _, vjp = jax.vjp(lambda x: layer.apply({"params": params}, x), coarse[0])
    exact = [np.asarray(array, np.float64) for array in (*coarse, jnp.asarray(kernel, jnp.bfloat16))]
    expected = np.einsum("nijo,ijco->nc", exact[1][:, ::-1, ::-1], exact[2])
    assert relative_error(vjp(coarse[1])[0][:, 0, 0], expected) < 3e-3


@pytest.mark.parametrize("case", ["deconv_k3p1", "deconv_k7_from_1x1"])
def test_deconvolutions_equal_caffe(real_data, case):
    """Compares with the original's own layer, whose kernel is [in, out, h, w]."""
    with np.load(real_data / "caffe_reference/unit_layers.npz") as file:
        x, blob, bias, expected = (file[f"{case}/{name}"] for name in ("in0", "param0", "param1", "out.l:0"))
    kernel = blob.transpose(2, 3, 0, 1)[::-1, ::-1]
    layer = Conv3x3(kernel.shape[-1], gaussian_init) if len(kernel) == 3 else FullDeconv(kernel.shape[-1], 7)
    y = layer.apply({"params": {"kernel": kernel, "bias": bias.ravel()}}, x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(y, expected.transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


NORM = {"momentum": 0.75, "epsilon": 1e-3, "bias_init": nn.initializers.constant(0.1)}


def random_norm(rng, channels):
    params = {"scale": rng.normal(1, 0.3, channels), "bias": rng.normal(0, 0.5, channels)}
    statistics = {"mean": rng.normal(0, 1, channels), "var": rng.uniform(0.5, 2, channels)}
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), {"params": params, "batch_stats": statistics})


@pytest.mark.accelerator
@pytest.mark.parametrize("shape", [(4, 16, 12, 5), (3, 7, 11, 3), (6, 1, 1, 8)])
def test_batch_norm_relu_equals_pytorch_with_gradients(rng, shape):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    layer, variables = BatchNormRelu(**NORM), random_norm(rng, shape[-1])
    x = rng.normal(0.7, 2, shape).astype(np.float32)
    statistics = variables["batch_stats"]

    def forward(x, params):
        return layer.apply({"params": params, "batch_stats": statistics}, x, True, mutable=["batch_stats"])

    y, vjp, updates = jax.vjp(forward, x, variables["params"], has_aux=True)
    upstream = rng.standard_normal(shape).astype(np.float32)
    dx, dparams = vjp(upstream)

    tx = to_torch(torch, x).double().requires_grad_()
    scale, bias = (torch.tensor(variables["params"][part], requires_grad=True) for part in ("scale", "bias"))
    normal = torch.nn.functional.batch_norm(tx, None, None, scale.double(), bias.double(), training=True, eps=1e-3)
    expected = normal.relu()
    expected.backward(to_torch(torch, upstream).double())
    assert 0.1 < (np.asarray(y) > 0).mean() < 0.95
    assert relative_error(y, expected.detach().numpy().transpose(0, 2, 3, 1)) < 1e-5
    assert relative_error(dx, tx.grad.numpy().transpose(0, 2, 3, 1)) < 1e-5
    assert relative_error(dparams["scale"], scale.grad.numpy()) < 1e-5
    assert relative_error(dparams["bias"], bias.grad.numpy()) < 1e-5
    of_batch = {"mean": x.mean((0, 1, 2), np.float64), "var": x.var((0, 1, 2), np.float64)}
    for part, value in of_batch.items():
        np.testing.assert_allclose(updates["batch_stats"][part], 0.75 * statistics[part] + 0.25 * value, rtol=1e-5)


def test_batch_norm_relu_has_flaxs_parameters_and_its_results(rng):
    """Checkpoints of the two layers are interchangeable."""
    x = rng.normal(0.7, 2, (3, 5, 4, 6)).astype(np.float32)
    ours, theirs = BatchNormRelu(**NORM), nn.BatchNorm(**NORM)
    fresh = ours.init(jax.random.key(0), x, True)
    jax.tree.map(np.testing.assert_array_equal, fresh, theirs.init(jax.random.key(0), x, use_running_average=False))
    variables = random_norm(rng, 6)
    for train in (False, True):
        y, updates = ours.apply(variables, x, train, mutable=["batch_stats"])
        expected, expected_updates = theirs.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])
        np.testing.assert_allclose(y, nn.relu(expected), rtol=1e-5, atol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected_updates)


@pytest.mark.parametrize("train", [False, True])
def test_batch_norm_relu_with_pooling_is_one_after_the_other(rng, train):
    """Values and numbers are bit-identical; sums of gradients run over maxima only."""
    layer, variables = BatchNormRelu(**NORM), random_norm(rng, 5)
    x = jnp.asarray(rng.normal(0.7, 2, (3, 8, 6, 5)), jnp.float32)

    def together(x, params):
        (y, numbers), _ = layer.apply({**variables, "params": params}, x, train, True, mutable=["batch_stats"])
        return y, numbers

    def apart(x, params):
        y, _ = layer.apply({**variables, "params": params}, x, train, mutable=["batch_stats"])
        return pool_windows(y)

    y, vjp, numbers = jax.vjp(together, x, variables["params"], has_aux=True)
    expected, expected_vjp, expected_numbers = jax.vjp(apart, x, variables["params"], has_aux=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(numbers, expected_numbers)
    upstream = jnp.asarray(rng.standard_normal(y.shape), jnp.float32)
    found, expected = vjp(upstream), expected_vjp(upstream)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


def test_batch_norm_relu_over_devices_is_that_of_all_crops(rng):
    """Uses groups of two devices, and gradients of the sum of all devices' losses."""
    devices, size = 4, 3
    x = rng.normal(0.7, 2, (devices, size, 4, 4, 5)).astype(np.float32)
    upstream = rng.standard_normal(x.shape).astype(np.float32)
    variables = random_norm(rng, 5)
    groups = ((0, 1), (2, 3))
    apart = BatchNormRelu(**NORM, axis_name="devices", axis_groups=groups)
    alone = BatchNormRelu(**NORM)

    def gradients(layer, x, upstream):
        def loss(x, params):
            y = layer.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])[0]
            return (y * upstream).sum(), y

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(x, variables["params"])

    over_devices = jax.pmap(lambda x, upstream: gradients(apart, x, upstream), axis_name="devices")
    (dx, dparams), y = jax.tree.map(np.asarray, over_devices(x, upstream))
    for group in groups:
        of_group = [leaf[list(group)].reshape(-1, 4, 4, 5) for leaf in (x, upstream)]
        (expected_dx, expected_dparams), expected = gradients(alone, *of_group)
        np.testing.assert_allclose(y[list(group)].reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dx[list(group)].reshape(expected.shape), expected_dx, rtol=1e-3, atol=1e-5)
        for part, values in expected_dparams.items():
            np.testing.assert_allclose(dparams[part][list(group)].sum(0), values, rtol=1e-4, atol=1e-4)


@pytest.mark.accelerator
def test_batch_norm_relu_in_bfloat16_has_statistics_in_float32(rng):
    x = jnp.asarray(rng.normal(30, 1, (4, 32, 32, 3)), jnp.bfloat16)  # A bfloat16 sum of these would stop growing.
    y, updates = BatchNormRelu(**NORM, dtype=jnp.bfloat16).apply(random_norm(rng, 3), x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {np.dtype(np.float32)}
    fresh = BatchNormRelu(**{**NORM, "momentum": 0.0}).apply(random_norm(rng, 3), x, True, mutable=["batch_stats"])[1]
    np.testing.assert_allclose(fresh["batch_stats"]["mean"], np.asarray(x, np.float64).mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(fresh["batch_stats"]["var"], np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-2)
