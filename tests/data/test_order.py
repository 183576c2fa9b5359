"""Every window once an epoch, windows of an image near each other, and the same order for the same seed."""

import pickle

import numpy as np
import pytest

from deconvnet_jax.data.order import BLOCK, WindowOrder, epoch_order


@pytest.mark.parametrize("handful", [1, 3, 8])
def test_every_window_once_an_epoch(rng, handful):
    images = np.sort(rng.integers(0, 40, 1000))
    orders = [epoch_order(images, seed, epoch, handful) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({order.tobytes() for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], epoch_order(images, 0, 0, handful))


@pytest.mark.parametrize(("handful", "most"), [(1, 1.0), (8, 0.2)])
def test_handfuls_save_decodes(rng, handful, most):
    """Counts how often an image must be decoded if as many stay in memory as a block has."""
    images = np.repeat(np.arange(4000), 16)
    order = images[epoch_order(images, 0, 0, handful)]
    decodes, kept = 0, {}
    for position, image in enumerate(order.tolist()):
        decodes += image not in kept
        kept.pop(image, None)
        kept[image] = position
        if len(kept) > 2 * BLOCK:
            kept.pop(next(iter(kept)))
    assert decodes / len(order) < most
    assert decodes / len(order) > most / 2


def test_a_batch_shows_many_images():
    images = np.repeat(np.arange(4000), 16)
    order = images[epoch_order(images, 3, 0, 8)]
    distinct = [len(set(order[start : start + 64].tolist())) for start in range(0, len(order), 64)]
    assert np.mean(distinct) > 58  # 60 of a block of 512 images, had each as many windows as it likes
    starts = [np.flatnonzero(order == image)[0] for image in (0, 1, 2, 3)]
    assert np.ptp(starts) > 64


def test_positions_run_through_the_epochs(rng):
    images = np.sort(rng.integers(0, 9, 30))
    order = WindowOrder(images, seed=5, handful=2)
    expected = np.concatenate([epoch_order(images, 5, epoch, 2) for epoch in range(3)])
    assert [order[position] for position in range(90)] == expected.tolist()
    jumps = rng.integers(0, 90, 50)
    assert [order[int(position)] for position in jumps] == expected[jumps].tolist()
    copied = pickle.loads(pickle.dumps(order))
    assert copied[77] == expected[77]
