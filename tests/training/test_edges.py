"""Training of the edge network: targets, augmentation, repeatability, and that it learns."""

import jax
import numpy as np
import pytest

from deconvnet_jax.data.bsds500 import BoundaryExample
from deconvnet_jax.models import EdgeNetwork
from deconvnet_jax.training.edges import augmented_batches, edge_loss, near_share, train_edge_network


@pytest.fixture
def examples(rng):
    """Squares of other colours, and their outlines."""
    found = []
    for i in range(4):
        image = np.full((120, 160, 3), rng.integers(30, 90, 3), np.uint8)
        share = np.zeros((120, 160), np.float32)
        top, left = rng.integers(15, 50, 2)
        bottom, right = top + rng.integers(30, 60), left + rng.integers(30, 90)
        image[top:bottom, left:right] = rng.integers(150, 250, 3)
        share[top - 1 : bottom + 1, left - 1 : right + 1] = 1
        share[top:bottom, left:right] = 0
        found.append(BoundaryExample(str(i), image, share))
    return found


def test_a_boundary_is_where_somebody_drew_within_a_pixel():
    share = np.zeros((9, 9), np.float32)
    share[:, 4] = 0.6
    near = near_share(share)
    np.testing.assert_allclose(near[4, 3:6], 0.6, rtol=1e-6)
    np.testing.assert_allclose(near[4, [2, 6]], 0, atol=1e-6)
    assert near_share(np.ones((5, 5), np.float32)).max() == 1


def test_augmentation_keeps_image_and_target_together(examples):
    batches = list(augmented_batches(examples, 6, 8, seed=3))
    again = list(augmented_batches(examples, 6, 8, seed=3))
    for (images, targets), (others, their_targets) in zip(batches, again, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(targets, their_targets)
        assert images.shape == (8, 256, 256, 3)
        assert images.dtype == np.uint8
        assert targets.shape == (8, 256, 256)
        assert targets.max() <= 1 + 1e-6
    images, targets = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    grey = images.astype(np.float32).mean(axis=-1)
    change = np.maximum(np.abs(np.diff(grey, axis=1))[:, :, :-1], np.abs(np.diff(grey, axis=2))[:, :-1])
    inside = targets[:, :-1, :-1]
    assert change[inside > 0.8].mean() > 8 * change[inside == 0].mean()
    assert (targets < 0).any()  # beyond the image: does not count


def test_loss(rng):
    net = EdgeNetwork()
    images = rng.integers(0, 256, (2, 32, 32, 3), np.uint8)
    params = jax.jit(net.init)(jax.random.key(0), images)["params"]
    targets = rng.uniform(-0.5, 1, (2, 32, 32)).astype(np.float32)
    logits = np.asarray(jax.jit(net.apply)({"params": params}, images), np.float64)
    share = 1 / (1 + np.exp(-logits))
    losses = -targets * np.log(share) - (1 - targets) * np.log(1 - share)
    loss_of = jax.jit(edge_loss, static_argnums=1)
    np.testing.assert_allclose(loss_of(params, net, images, targets), losses[targets >= 0].mean(), rtol=1e-4)
    assert loss_of(params, net, images, np.full_like(targets, -1)) == 0


def train(examples, steps):
    losses = []
    params = train_edge_network(examples, steps=steps, batch_size=4, seed=1, progress=lambda *seen: losses.append(seen))
    assert [seen[:2] for seen in losses] == [(i + 1, steps) for i in range(steps)]
    return params, [loss for _, _, loss in losses]


def test_it_learns(examples):
    _, losses = train(examples, 40)
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:5])


def test_it_repeats_itself(examples):
    (params, losses), (again, their_losses) = train(examples, 3), train(examples, 3)
    assert losses == their_losses
    jax.tree.map(np.testing.assert_array_equal, params, again)
