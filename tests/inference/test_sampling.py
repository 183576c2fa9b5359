"""Score maps back in the image: exact on linear functions of place, for any box and size."""

import numpy as np
import pytest

from deconvnet_jax.inference import sample_scores


def linear_map(box, size):
    """Score map whose channels are x, y and x - 2y, in pixels of the image, at the centres of its cells."""
    x0, y0, x1, y1 = box
    xs = x0 + (np.arange(size[1]) + 0.5) * (x1 - x0) / size[1]
    ys = y0 + (np.arange(size[0]) + 0.5) * (y1 - y0) / size[0]
    x, y = np.meshgrid(xs, ys)
    return np.stack([x, y, x - 2 * y], -1).astype(np.float32)


def assert_linear(result, margin):
    height, width, _ = result.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inner = (slice(margin, height - margin), slice(margin, width - margin))
    np.testing.assert_allclose(result[inner], np.stack([x, y, x - 2 * y], -1)[inner], atol=1e-3)


@pytest.mark.parametrize("size", [(224, 224), (17, 31)])
@pytest.mark.parametrize("image", [(375, 500), (333, 127), (224, 224), (61, 60)])
def test_linear_functions_are_exact(rng, size, image):
    box = np.array([0, 0, image[1], image[0]]) + rng.uniform(-40, 0, 4) * (1, 1, -1, -1)
    result = sample_scores(linear_map(box, size), box, *image)
    assert result.dtype == np.float32
    assert result.shape == (*image, 3)
    assert_linear(result, margin=image[0] // size[0] + image[1] // size[1] + 1)


def test_same_size_is_identity(rng):
    scores = rng.normal(size=(70, 90, 2)).astype(np.float32)
    np.testing.assert_array_equal(sample_scores(scores, np.array([0, 0, 90, 70]), 70, 90), scores)


def test_the_outermost_values_go_on():
    scores = np.array([[[1.0], [3.0]]], np.float32)
    result = sample_scores(scores, np.array([2, 0, 4, 1]), 2, 6)
    np.testing.assert_array_equal(result[..., 0], [[1, 1, 1, 3, 3, 3]] * 2)
