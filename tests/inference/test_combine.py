"""Ensembles by hand."""

import jax
import numpy as np

from deconvnet_jax.inference import mean_of_probabilities, product_of_positive


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
