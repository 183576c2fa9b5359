"""Compares the loss with PyTorch's and with cases computed by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import balanced_class_weights, class_weights_of, segmentation_loss
from deconvnet_jax.training.loss import pixel_sums


@pytest.mark.accelerator
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_equals_pytorch_with_gradients(rng, dtype):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    logits = (rng.standard_normal((2, 9, 7, 5)) * 4).astype(np.float32)
    labels = rng.integers(0, 5, (2, 9, 7)).astype(dtype)
    labels[rng.random(labels.shape) < 0.3] = 255
    t = torch.tensor(logits.transpose(0, 3, 1, 2), requires_grad=True)
    expected = torch.nn.functional.cross_entropy(t, torch.tensor(labels.astype(np.int64)), ignore_index=255)
    expected.backward()
    loss, gradient = jax.value_and_grad(segmentation_loss)(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, t.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-7)


@pytest.mark.accelerator
def test_weighted_loss_equals_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    logits = (rng.standard_normal((2, 9, 7, 5)) * 4).astype(np.float32)
    labels = rng.integers(0, 5, (2, 9, 7))
    labels[rng.random(labels.shape) < 0.3] = 255
    weights = rng.uniform(0.1, 5, 5).astype(np.float32)
    t = torch.tensor(logits.transpose(0, 3, 1, 2), requires_grad=True)
    torch_weights = torch.tensor(weights)
    expected = torch.nn.functional.cross_entropy(t, torch.tensor(labels), weight=torch_weights, ignore_index=255)
    expected.backward()
    weighted = partial(segmentation_loss, class_weights=weights)
    loss, gradient = jax.value_and_grad(weighted)(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, t.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-7)
    assert segmentation_loss(jnp.asarray(logits), jnp.asarray(labels), class_weights=weights.tolist()) == loss


def test_balanced_class_weights():
    pixels = np.array([900, 90, 0, 10])
    np.testing.assert_allclose(balanced_class_weights(pixels, 0.0), [1, 1, 0, 1], rtol=1e-6)
    weights = balanced_class_weights(pixels, 1.0)
    np.testing.assert_allclose(weights * pixels, [1000 / 3, 1000 / 3, 0, 1000 / 3], rtol=1e-5)
    half = balanced_class_weights(pixels, 0.5)
    assert half[1] / half[0] == pytest.approx(np.sqrt(10), rel=1e-5)
    assert (half * pixels).sum() == pytest.approx(1000, rel=1e-5)
    np.testing.assert_array_equal(balanced_class_weights(np.zeros(3), 1.0), 0)


def test_class_weights_of_a_config():
    """Without class balancing, the pixels of the training data are not counted."""
    pixels = np.array([900, 90, 0, 10])
    expected = balanced_class_weights(pixels, 0.5).tolist()
    assert class_weights_of({"class_balance": 0.5}, lambda: pixels) == expected
    assert class_weights_of({"class_balance": 0.0}, lambda: pytest.fail("counted")) is None


def test_by_hand():
    logits = jnp.log(jnp.asarray([[[[1.0, 3.0], [2.0, 2.0], [9.0, 1.0]]]]))  # probabilities 1/4 3/4, 1/2 1/2, 9/10 1/10
    labels = jnp.asarray([[[1, 0, 255]]])
    assert segmentation_loss(logits, labels) == pytest.approx(-(np.log(3 / 4) + np.log(1 / 2)) / 2, rel=1e-6)
    sums = pixel_sums(logits, labels)
    assert (sums["pixels"], sums["correct"]) == (2, 2)  # with equal scores the first class is predicted
    assert pixel_sums(logits, 1 - labels.at[0, 0, 2].set(1))["correct"] == 1


def test_all_ignored_is_zero_with_zero_gradient():
    """Caffe gives NaN here."""
    labels = jnp.full((1, 4, 4), 255, jnp.uint8)
    loss, gradient = jax.value_and_grad(segmentation_loss)(jnp.ones((1, 4, 4, 3)), labels)
    assert loss == 0
    np.testing.assert_array_equal(gradient, 0)


def test_another_ignore_label_and_extreme_scores():
    logits = jnp.asarray([[[[1e4, -1e4], [0.0, 0.0]]]])
    assert segmentation_loss(logits, jnp.asarray([[[1, 0]]]), ignore_label=0) == pytest.approx(2e4)


def test_bfloat16_logits_are_summed_in_float32(rng):
    logits = jnp.asarray(rng.standard_normal((2, 64, 64, 3)), jnp.bfloat16)
    labels = jnp.asarray(rng.integers(0, 3, (2, 64, 64)))
    exact = segmentation_loss(logits.astype(jnp.float32), labels)
    assert segmentation_loss(logits, labels) == exact


def test_shapes_must_fit():
    with pytest.raises(InputError, match=r"logits has shape \[1, 4, 4, 3\]; expected \[1, 4, 5, K\], to match labels"):
        segmentation_loss(jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 4, 5), int))


def test_many_classes(rng):
    logits, labels = rng.normal(size=(1, 4, 4, 300)).astype(np.float32), np.full((1, 4, 4), 255)
    with pytest.raises(InputError, match="ignore_label=255 is also the id of a class, because there are 300"):
        segmentation_loss(logits, labels)
    wanted = -log_softmax(logits, axis=-1)[..., 255].mean()
    assert float(segmentation_loss(logits, labels, ignore_label=65535)) == pytest.approx(wanted, rel=1e-5)
