"""Tests which input a first layer expects, with the published layers and with narrow random ones."""

import warnings

import numpy as np
import pytest

from deconvnet_jax.ops.preprocess import MEAN_BGR
from deconvnet_jax.weights.vgg16_input import (
    TORCH_MEAN,
    TORCH_STD,
    Input,
    _published,
    first_kernel_for_bgr,
    for_caffe_input,
    published_input,
)


@pytest.fixture
def caffe(rng):
    """Returns a layer with the responses and the size of Caffe's."""
    kernel = rng.normal(0, 0.2, (3, 3, 3, 64))
    return kernel + (_published()["caffe_steps"] - kernel.sum((0, 1))) / 9, rng.normal(0, 0.6, 64)


def as_torchvision(kernel, bias):
    """Returns the layer that gives the same for torchvision's input as the given one for Caffe's."""
    flipped = kernel[:, :, ::-1]
    std, mean = 255 * np.array(TORCH_STD), 255 * np.array(TORCH_MEAN)
    return flipped * std[:, None], bias - (np.array(MEAN_BGR[::-1]) - mean) @ flipped.sum((0, 1))


def converted(kernel, bias, sees_caffe=False, hint=""):
    return for_caffe_input(kernel, bias, sees_caffe=sees_caffe, hint=hint, source="vgg.pth")


def test_the_real_layer_is_known(real_data):
    with np.load(real_data / "vgg16/vgg16_imagenet_conv_hwio_bgr_f16.npz") as file:
        kernel, bias = file["block1_conv1/kernel"].astype(np.float64), file["block1_conv1/bias"]
    np.testing.assert_allclose(kernel.sum((0, 1)), _published()["caffe_steps"], atol=2e-3)
    assert published_input(kernel, bias) == (Input.CAFFE, None)
    assert published_input(kernel[:, :, ::-1], bias) == (Input.CAFFE_RGB, None)
    assert published_input(*as_torchvision(kernel, bias)) == (Input.TORCHVISION, None)


@pytest.mark.parametrize("sees_caffe", [True, False])
@pytest.mark.parametrize("trained", [0.0, 0.03])
def test_caffes_layer_in_every_form(caffe, rng, sees_caffe, trained):
    """Caffe's layer is recognised under any names, in both orders of channels and after training, without warning."""
    kernel, bias = caffe
    kernel = kernel + rng.normal(0, trained, kernel.shape)
    forms = {
        "as it is": (kernel, bias),
        "RGB": (kernel[:, :, ::-1], bias),
        "torchvision's input": as_torchvision(kernel, bias),
    }
    for name, form in forms.items():
        found = converted(*form, sees_caffe=sees_caffe)
        np.testing.assert_allclose(found[0], kernel, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(found[1], bias, atol=1e-6, err_msg=name)


def test_caffes_layer_for_values_in_0_to_1(caffe):
    for order in (slice(None), slice(None, None, -1)):
        with pytest.warns(
            UserWarning, match=r"vgg\.pth is Caffe's times 255, 255, 255 per channel, so it expects another range"
        ):
            found = converted(255 * caffe[0][:, :, order], caffe[1])
        np.testing.assert_allclose(found[0], caffe[0], atol=1e-6)


def test_torchvisions_layer(rng):
    """torchvision's layer is recognised by its bias, because both kernels have about the same size."""
    kernel, bias = rng.normal(0, 0.28, (3, 3, 3, 64)), _published()["torchvision_bias"]
    assert published_input(kernel, bias) == (Input.TORCHVISION, None)
    found = converted(kernel, bias + rng.normal(0, 0.02, 64))
    np.testing.assert_allclose(found[0], first_kernel_for_bgr(kernel, bias)[0])


def narrow(rng, kernel=1.0, bias=1.0, width=4):
    return rng.normal(0, kernel, (3, 3, 3, width)), rng.normal(0, bias, width)


@pytest.mark.parametrize("width", [1, 4, 64])
def test_an_unknown_layer_under_torchvisions_names_warns(rng, width):
    layer = narrow(rng, width=width)
    layer[1][:] = np.where(np.abs(layer[1]) < 0.5, 1, layer[1])
    with pytest.warns(UserWarning, match=r"no published network .* torchvision's input .* under Caffe's names"):
        found = converted(*layer)
    np.testing.assert_array_equal(found[0], first_kernel_for_bgr(*layer)[0])
    with pytest.warns(
        UserWarning, match=r"assumed to expect Caffe's input .*, because it says so\. .* torchvision's names"
    ):
        found = converted(*layer, hint="it says so")
    np.testing.assert_array_equal(found[0], layer[0])
    with warnings.catch_warnings(action="error"):
        found = converted(*layer, sees_caffe=True)
    np.testing.assert_array_equal(found[0], layer[0])


def test_layers_that_can_only_have_one_of_the_inputs(rng):
    large, small = narrow(rng, kernel=58), narrow(rng, kernel=0.005)
    with warnings.catch_warnings(action="error"):
        np.testing.assert_array_equal(converted(*large)[0], first_kernel_for_bgr(*large)[0])
    with pytest.warns(UserWarning, match="assumed to expect Caffe's input"):
        np.testing.assert_array_equal(converted(*small)[0], small[0])
    with pytest.warns(UserWarning, match="assumed to expect Caffe's input"):
        np.testing.assert_array_equal(converted(*large, sees_caffe=True)[0], large[0])
    with pytest.warns(UserWarning, match="assumed to expect torchvision's input"):
        converted(*large, hint="it says so")


def test_a_layer_of_zeros_needs_no_warning():
    for sees_caffe in (True, False):
        converted(np.zeros((3, 3, 3, 4)), np.ones(4), sees_caffe=sees_caffe)
    converted(np.ones((3, 3, 3, 4)), np.zeros(4), sees_caffe=True)
