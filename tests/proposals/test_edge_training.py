"""Tests training of the edge network: both layouts of BSDS500, targets, augmentation, repeatability, learning."""

import jax
import numpy as np
import pytest
import scipy.io
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import EdgeNetwork
from deconvnet_jax.proposals.edge_training import (
    BoundaryExample,
    augmented_batches,
    edge_loss,
    near_share,
    read_bsds500,
    train_edge_network,
)


@pytest.fixture
def examples(rng):
    """Returns images of squares on backgrounds of other colours, and their outlines."""
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
    assert (targets < 0).any()  # Pixels beyond the image do not count.


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
    params = train_edge_network(examples, steps=steps, batch_size=2, seed=1, progress=lambda *seen: losses.append(seen))
    assert [seen[:2] for seen in losses] == [(i + 1, steps) for i in range(steps)]
    return params, [loss for _, _, loss in losses]


def test_it_learns(examples):
    _, losses = train(examples, 40)
    assert np.mean(losses[-8:]) < 0.5 * np.mean(losses[:5])


def test_it_repeats_itself(examples):
    (params, losses), (again, their_losses) = train(examples, 2), train(examples, 2)
    assert losses == their_losses
    jax.tree.map(np.testing.assert_array_equal, params, again)


@pytest.fixture
def annotated(rng):
    """Returns photographs by name, with the boundaries that 4 to 9 people drew."""
    return {
        name: (rng.integers(0, 256, (21, 32, 3), np.uint8), rng.random((rng.integers(4, 10), 21, 32)) < 0.2)
        for name in ("8049", "100007")
    }


def write_official(root, annotated):
    (root / "images/train").mkdir(parents=True)
    (root / "groundTruth/train").mkdir(parents=True)
    for name, (image, people) in annotated.items():
        Image.fromarray(image).save(root / f"images/train/{name}.jpg")
        cells = np.empty((1, len(people)), object)
        for i, drawn in enumerate(people):
            cells[0, i] = {"Segmentation": np.ones(drawn.shape, np.uint16), "Boundaries": drawn.astype(np.uint8)}
        scipy.io.savemat(root / f"groundTruth/train/{name}.mat", {"groundTruth": cells})


def write_merged(root, annotated):
    (root / "train").mkdir(parents=True)
    for name, (image, people) in annotated.items():
        Image.fromarray(image).save(root / f"train/{name}.jpg")
        Image.fromarray(np.uint8(np.rint(255 * people.mean(axis=0)))).save(root / f"train/{name}_boundaries.png")


@pytest.mark.parametrize("write", [write_official, write_merged])
def test_shares(annotated, write, tmp_path):
    write(tmp_path, annotated)
    examples = read_bsds500(tmp_path, "train")
    assert [example.name for example in examples] == ["100007", "8049"]
    for example in examples:
        image, people = annotated[example.name]
        assert example.image.shape == image.shape
        assert example.share.dtype == np.float32
        np.testing.assert_allclose(example.share, people.mean(axis=0), atol=0.5 / 255 + 1e-6)


def test_unusable_folders(annotated, tmp_path):
    with pytest.raises(InputError, match="has no photographs of the split 'train'; pass the folder BSR/BSDS500/data"):
        read_bsds500(tmp_path, "train")
    official, merged = tmp_path / "official", tmp_path / "merged"
    write_official(official, annotated)
    write_merged(merged, annotated)
    with pytest.raises(InputError, match="has no photographs of the split 'val'"):
        read_bsds500(official, "val")
    truth = official / "groundTruth/train/8049.mat"
    truth.write_bytes(b"MATLAB 5.0")
    with pytest.raises(InputError, match=r"8049\.mat is not a MATLAB file with groundTruth .*; download it again"):
        read_bsds500(official, "train")
    scipy.io.savemat(truth, {"groundTruth": np.zeros((1, 3))})
    with pytest.raises(InputError, match=r"8049\.mat is no ground truth of BSDS500"):
        read_bsds500(official, "train")
    truth.unlink()
    with pytest.raises(InputError, match=rf"no file {truth} with the boundaries of the photograph of that name"):
        read_bsds500(official, "train")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(merged / "train/100007_boundaries.png")
    with pytest.raises(InputError, match=r"100007_boundaries\.png is 4x4 pixels, but 100007\.jpg is 32x21"):
        read_bsds500(merged, "train")


def test_the_real_one(real_data):
    examples = read_bsds500(real_data / "bsds500", "val")
    assert len(examples) == 100
    assert all(0 < example.share.mean() < 0.1 for example in examples)
