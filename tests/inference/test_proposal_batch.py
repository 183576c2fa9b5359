"""Compares the proposal batch with a NumPy loop over single windows."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_proposals import aggregate, crop, released

from deconvnet_jax.data import crop_window
from deconvnet_jax.inference import (
    InferenceSettings,
    Scorer,
    canvas_scores,
    crop_windows,
    device_image,
    empty_canvas,
    fold_scores,
    padded_size,
    sample_scores,
)
from deconvnet_jax.ops import MEAN_BGR

SIZE = 32


def random_image(rng, height, width):
    return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def random_boxes(rng, height, width, count):
    """Returns boxes of any size: within the image, across its borders, around it, and outside."""
    sides = rng.uniform(6, 1.5 * max(height, width), (count, 2))
    centres = rng.uniform(-0.2, 1.2, (count, 2)) * (width, height)
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    special = [[-10, -10, width + 10, height + 10], [-40, -30, -5, -2], [width + 1, 0, width + 30, 20], [3, 4, 4, 6]]
    return np.concatenate([boxes, special]).astype(np.float32)


def score(net, variables, image, boxes, num_classes=3, **settings):
    scorer = Scorer(net, variables, num_classes, SIZE, InferenceSettings(**settings))
    height, width = image.shape[:2]
    return np.asarray(scorer.score(device_image(image), boxes))[:height, :width]


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.accelerator
@pytest.mark.parametrize(("aggregation", "flip"), [("max", False), ("mean", False), ("max", True)])
def test_equals_a_loop_in_numpy(rng, smooth_net, aggregation, flip):
    net, variables, network = smooth_net
    image = random_image(rng, 70, 93)
    boxes = random_boxes(rng, 70, 93, 9)
    expected, count = aggregate(image, boxes, network, SIZE, aggregation, flip)
    found = score(net, variables, image, boxes, aggregation=aggregation, flip=flip, batch_size=4)
    assert np.ptp(expected) > 0
    assert count.max() > 3
    assert_close(found, expected)


@pytest.mark.accelerator
def test_a_deconvnet_equals_the_loop(rng, narrow_net):
    """Up to two windows may differ, because rounding chooses between equal maxima; black areas have many."""
    net, variables, network = narrow_net
    image = random_image(rng, 70, 93)
    corners = rng.uniform((0, 0), (60, 40), (8, 2))
    deviations = []
    for box in np.concatenate([corners, corners + rng.uniform(12, 30, (8, 1))], axis=1).astype(np.float32):
        expected, count = aggregate(image, box[None], network, SIZE, "max")
        found = score(net, variables, image, box[None], batch_size=4)
        assert 100 < count.sum() < 1000
        deviations.append(np.abs(found - expected).max() / np.abs(expected).max())
    assert (np.array(deviations) < 1e-4).sum() >= 6, deviations


def test_uncovered_pixels_are_zero(rng, smooth_net):
    net, variables, network = smooth_net
    image = random_image(rng, 70, 93)
    boxes = np.array([[5, 5, 20, 20], [30, 10, 60, 50]], np.float32)
    expected, count = aggregate(image, boxes, network, SIZE, "max")
    found = score(net, variables, image, boxes, batch_size=4)
    assert (found[count == 0] == 0).all()
    assert (count == 0).any()
    assert_close(found, expected)
    assert (score(net, variables, image, np.zeros((0, 4), np.float32), batch_size=4) == 0).all()


def test_released_equals_the_original_loop(rng, smooth_net):
    """Padded canvas, MATLAB's resizing, maximum with 0 and the shift by one pixel are as in the released script."""
    net, variables, network = smooth_net
    image = random_image(rng, 80, 110)
    corners = rng.integers(-30, 60, (7, 2))
    sides = np.array([SIZE // 2, 20, SIZE, 47, 80, 131, 25])[:, None]  # smaller and larger than the score map
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    expected = released(image, boxes, network, SIZE, 3)
    found = score(net, variables, image, boxes, mode="released", batch_size=4)
    assert (expected == 0).any()
    assert (expected > 0).any()
    assert_close(found, expected)


@pytest.mark.parametrize("antialias", [False, True])
def test_crops_do_not_see_the_padding(rng, antialias):
    """Pixels of the buffer beyond the image have no effect."""
    image = np.zeros((256, 256, 3), np.uint8)
    image[:60, :80] = random_image(rng, 60, 80)
    garbage = image.copy()
    garbage[60:], garbage[:, 80:] = 255, 255
    boxes = jnp.array([[50, 40, 100, 90], [-20, -20, 120, 120]], jnp.float32)
    one, other = (
        crop_windows(jnp.asarray(array), jnp.array([60, 80]), boxes, SIZE, antialias=antialias)
        for array in (image, garbage)
    )
    np.testing.assert_array_equal(one, other)


def test_crops_are_those_of_training(rng):
    """The tolerance is for `data.crop_window`, which OpenCV computes in integers."""
    image = random_image(rng, 70, 93).astype(float)
    image = np.clip(image.repeat(2, 0).repeat(2, 1)[:70, :93], 0, 255).astype(np.uint8)
    boxes = random_boxes(rng, 70, 93, 6)
    padded, extent = device_image(image)
    found = np.asarray(crop_windows(padded, extent, jnp.asarray(boxes), SIZE))
    for box, window in zip(boxes, found, strict=True):
        np.testing.assert_allclose(window, crop(image, box, SIZE), atol=5e-3)
        trained = crop_window(image, None, box.astype(float), SIZE)[0][..., ::-1] - np.array(MEAN_BGR)
        # OpenCV interpolates in 32 steps between two pixels.
        differs = np.abs(window - trained).max(axis=2) > 255 / 32 + 1
        # The last bit decides whether a row or column on the image's border is inside.
        assert differs.mean() <= 4 / SIZE


def test_outside_may_be_the_mean(rng):
    image = random_image(rng, 20, 30)
    padded, extent = device_image(image)
    box = jnp.array([[0, 0, 40, 40]], jnp.float32)
    window = np.asarray(crop_windows(padded, extent, box, 40, outside="mean"))[0]
    np.testing.assert_allclose(window[:20, :30], image[..., ::-1] - np.float32(MEAN_BGR), atol=1e-3)
    assert (window[20:] == 0).all()
    assert (window[:, 30:] == 0).all()


def test_boxes_that_only_fill_the_batch_do_nothing(rng):
    scores = jnp.asarray(rng.normal(size=(3, 8, 8, 2)), jnp.float32)
    boxes = jnp.array([[0, 0, 9, 9], [4, 4, 20, 20], [0, 0, 0, 0]], jnp.float32)

    def folded(valid):
        canvas = fold_scores(empty_canvas(32, 32, 2, "max"), scores, boxes, jnp.array(valid))
        return np.asarray(canvas_scores(canvas, "max"))

    alone = fold_scores(empty_canvas(32, 32, 2, "max"), scores[:1], boxes[:1], jnp.ones(1, bool))
    np.testing.assert_allclose(folded([True, False, False]), canvas_scores(alone, "max"), rtol=1e-5, atol=1e-6)
    assert np.isfinite(folded([True, True, True])).all()  # a box without area shows nothing
    assert (folded([False, False, False]) == 0).all()


def test_another_image_of_the_bucket_compiles_nothing(rng, narrow_net):
    """More proposals and other image sizes compile nothing either; JAX's caches count the programs."""
    net, variables, _ = narrow_net

    def programs(height, width, count):
        score(net, variables, random_image(rng, height, width), random_boxes(rng, height, width, count), batch_size=4)
        return np.array([crop_windows._cache_size(), fold_scores._cache_size()])

    first = programs(60, 80, 5)
    assert (programs(100, 61, 50) == first).all()
    assert (programs(256, 200, 17) == first).all()
    assert (programs(60, 257, 5) > first).all()  # the next padded size


def test_one_batch_can_be_jitted_as_a_whole(rng, narrow_net):
    net, variables, _ = narrow_net
    image = device_image(random_image(rng, 40, 50))
    windows = [image], [jnp.asarray(random_boxes(rng, 40, 50, 0))], [jnp.ones(4, bool)]
    fold = Scorer(net, variables, 3, SIZE, InferenceSettings()).fold
    alone = fold(*windows, [empty_canvas(256, 256, 3, "max")])
    jitted = jax.jit(fold)(*windows, [empty_canvas(256, 256, 3, "max")])
    chex.assert_trees_all_close(jitted, alone, atol=1e-5)


@pytest.mark.parametrize(("size", "padded"), [((1, 1), (256, 256)), ((375, 500), (512, 512)), ((256, 257), (256, 512))])
def test_padded_sizes(size, padded):
    assert padded_size(*size) == padded


def linear_map(box, size):
    """Returns a score map with the channels x, y and x - 2y, in pixels of the image, at the centres of its cells."""
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
