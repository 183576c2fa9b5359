"""Checks ensembles against NumPy, and the CRF against `dense_crf`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.inference import kernels_of, mean_of_probabilities, product_of_positive, refine
from deconvnet_jax.ops import CRF_PRESETS, dense_crf


def softmax(scores):
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_mean_of_probabilities(rng):
    scores, others = (rng.normal(0, 8, (6, 7, 5)) for _ in range(2))
    found = mean_of_probabilities(np.float32(scores), np.float32(others))
    expected = (softmax(scores) + softmax(others)) / 2
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-5)
    np.testing.assert_allclose(jax.nn.softmax(found), expected, atol=1e-5)


def test_far_apart_scores_stay_finite():
    found = np.asarray(mean_of_probabilities(np.float32([[0, 2000]]), np.float32([[0, 1000]])))
    assert np.isfinite(found).all()


def test_product_of_positive():
    scores, others = np.float32([[-1, 2, 3, 0]]), np.float32([[5, -4, 2, 7]])
    np.testing.assert_array_equal(product_of_positive(scores, others), [[0, 0, 6, 0]])


@pytest.mark.parametrize("sharpness", [1.0, 4.0])
@pytest.mark.parametrize("preset", CRF_PRESETS)
def test_refine_is_the_crf_of_the_image_alone(rng, preset, sharpness):
    """The padding has no effect: the results are the labels and log probabilities of `dense_crf`."""
    height, width = 30, 41
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    scores = rng.normal(0, 3, (64, 48, 5)).astype(np.float32)
    labels, logarithms = refine(jnp.asarray(scores), kernels_of(image, preset), (height, width), preset, sharpness)
    expected = dense_crf(-jax.nn.log_softmax(sharpness * scores[:height, :width]), image, **CRF_PRESETS[preset])
    found = np.asarray(logarithms)[: height * width].reshape(height, width, 5)
    np.testing.assert_allclose(np.exp(found), expected, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(labels)[: height * width].reshape(height, width), found.argmax(-1))
