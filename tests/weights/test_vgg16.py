"""Tests the network whose encoder has VGG-16's weights."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet
from deconvnet_jax.training import init_variables
from deconvnet_jax.weights import keep_vgg16_features, load_vgg16
from deconvnet_jax.weights.vgg16_layers import CONVOLUTIONS, KERAS_NAMES

NET = DeconvNet(num_classes=3, width=1 / 32, fc_features=8)
FC = ("fc6", "fc7")


@pytest.fixture(scope="module")
def variables():
    return init_variables(NET, seed=0)


def vgg_arrays(variables, rng):
    return {
        f"{KERAS_NAMES[name]}/{part}": rng.standard_normal(variables["params"][name][part].shape)
        for name in CONVOLUTIONS
        for part in ("kernel", "bias")
    }


def test_all_13_convolutions_are_replaced_and_nothing_else(tmp_path, rng, variables):
    arrays = vgg_arrays(variables, rng)
    np.savez(tmp_path / "vgg.npz", **{name: value.astype(np.float16) for name, value in arrays.items()})
    loaded = load_vgg16(tmp_path / "vgg.npz", variables)
    for name in CONVOLUTIONS:
        for part in ("kernel", "bias"):
            value = loaded["params"][name][part]
            assert value.dtype == np.float32
            np.testing.assert_array_equal(value, arrays[f"{KERAS_NAMES[name]}/{part}"].astype(np.float16))
    for layer in set(variables["params"]) - set(CONVOLUTIONS):
        assert loaded["params"][layer] is variables["params"][layer]
    assert loaded["batch_stats"] is variables["batch_stats"]


def fc_arrays(rng, features=8, channels=16):
    """Returns dense layers in Keras's shapes, for a network with [7, 7, 16, 8] and [1, 1, 8, 8]."""
    shapes = {"fc1": (49 * channels, features), "fc2": (features, features)}
    return {
        **{f"{name}/kernel": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()},
        **{f"{name}/bias": rng.standard_normal(features).astype(np.float32) for name in shapes},
    }


def test_fc6_and_fc7_are_taken_where_both_fit(tmp_path, rng, variables):
    arrays, path = vgg_arrays(variables, rng) | fc_arrays(rng), tmp_path / "vgg.npz"
    np.savez(path, **arrays)
    loaded = load_vgg16(path, variables)
    x = rng.standard_normal((2, 7, 7, 16))
    for ours, keras, flat in (("fc6", "fc1", x.reshape(2, -1)), ("fc7", "fc2", x[:, 0, 0, :8])):
        layer = loaded["params"][ours]
        assert layer["kernel"].shape == variables["params"][ours]["kernel"].shape
        found = flat @ np.asarray(layer["kernel"]).reshape(-1, 8) + layer["bias"]
        np.testing.assert_allclose(found, flat @ arrays[f"{keras}/kernel"] + arrays[f"{keras}/bias"], atol=1e-4)
    others = set(variables["params"]) - {*CONVOLUTIONS, *FC}
    assert all(loaded["params"][layer] is variables["params"][layer] for layer in others)


def test_fc6_and_fc7_stay_where_one_does_not_fit(tmp_path, rng, variables):
    path, fitting = tmp_path / "vgg.npz", fc_arrays(rng)
    one = {name: value for name, value in fitting.items() if name.startswith("fc1")}
    for arrays in (one, fc_arrays(rng, features=9)):
        np.savez(path, **vgg_arrays(variables, rng), **arrays)
        loaded = load_vgg16(path, variables)
        for layer in ("fc6", "fc7"):
            assert loaded["params"][layer] is variables["params"][layer]
        assert loaded["params"]["conv1_1"] is not variables["params"]["conv1_1"]


def test_a_network_of_another_width(tmp_path, rng, variables):
    arrays = vgg_arrays(variables, rng)
    wide = {"block1_conv1/kernel": np.zeros((3, 3, 3, 64)), "block1_conv1/bias": np.zeros(64)}
    np.savez(tmp_path / "vgg.npz", **{**arrays, **wide, "block1_conv2/kernel": np.zeros((3, 3, 64, 2))})
    with pytest.raises(
        InputError,
        match=r"kernel of conv1_1 in .* has shape \(3, 3, 3, 64\), but the network needs \(3, 3, 3, 2\); .*width=1\.0",
    ):
        load_vgg16(tmp_path / "vgg.npz", variables)


def test_the_network_starts_with_vgg16s_features(rng):
    """Convolutions and ReLUs alone give the same as the network with normalisation, up to one factor per layer."""
    net = DeconvNet(num_classes=3, width=1 / 16, fc_features=8, fc_window=1)
    variables = jax.device_get(init_variables(net, seed=1))
    for name, layer in variables["params"].items():
        if re.fullmatch(r"conv\d_\d", name):  # draws biases with an effect, and kernels that change the scale
            layer["kernel"] = layer["kernel"] * rng.uniform(0.2, 5)
            layer["bias"] = rng.normal(0, 5, layer["bias"].shape).astype(np.float32)
    images = rng.uniform(-120, 130, (4, 64, 64, 3)).astype(np.float32)
    kept = jax.jit(keep_vgg16_features)(variables, images)

    expected = plain_vgg16(variables["params"], images)
    for train in (True, False):
        collections = ["batch_stats", "intermediates"]
        _, state = jax.jit(partial(net.apply, train=train, mutable=collections, capture_intermediates=True))(
            kept, images
        )
        for name, values in expected.items():
            found = state["intermediates"][name]["__call__"][0]
            if isinstance(found, tuple):  # The last normalisation of a block also pools.
                (found, _), (n, h, w, c) = found, values.shape
                values = values.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
            found = np.maximum(found, 0)
            factor = np.linalg.norm(values) / np.linalg.norm(found)
            np.testing.assert_allclose(found * factor, values, atol=1e-3 * values.max())


def plain_vgg16(params, images):
    """Returns {name of the normalisation: VGG-16's map in its place}, from convolutions, biases and ReLUs."""
    x, outputs = jnp.asarray(images), {}
    for name in CONVOLUTIONS:
        if name.endswith("_1") and name != "conv1_1":
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        layer = params[name]
        x = lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = outputs[name.replace("conv", "bn")] = nn.relu(x + layer["bias"])
    return jax.device_get(outputs)


def test_real_weights_see_edges(real_data):
    """ImageNet's first layer responds strongly to an edge, and only with its bias to a uniform grey."""
    net = DeconvNet(num_classes=3, decoder_width=1 / 32, fc_features=8)
    shapes = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    loaded = load_vgg16(real_data / "vgg16/vgg16_imagenet_conv_hwio_bgr_f16.npz", zeros)
    kernel = np.asarray(loaded["params"]["conv1_1"]["kernel"])
    assert sum(leaf.size for name in CONVOLUTIONS for leaf in loaded["params"][name].values()) == 14_714_688
    flat = np.abs(kernel.sum((0, 1, 2)))
    edge = np.abs((kernel * np.array([-1, 0, 1])[None, :, None, None]).sum((0, 1, 2)))
    assert (edge > flat).mean() > 0.3
