"""Checks how a batch is divided over four devices, micro-batches and groups, and copied to devices ahead of time."""

import itertools

import jax
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import BatchLayout, batch_layout
from deconvnet_jax.training.parallel import (
    AXIS_NAME,
    PrefetchedBatches,
    data_parallel,
    first_replica,
    local_batch_size,
    place_batch,
    replicate,
    split_batch,
)


def test_split_batch_keeps_the_order(rng):
    images = rng.integers(0, 256, (8, 4, 4, 3), np.uint8)
    split = split_batch({"image": images}, 4)["image"]
    assert split.shape == (4, 2, 4, 4, 3)
    np.testing.assert_array_equal(split[1, 0], images[2])


@pytest.mark.parametrize("size", [4, 12, 64])
def test_a_divisible_batch_is_accepted(size):
    assert jax.device_count() == 4
    assert local_batch_size(size) == size


@pytest.mark.parametrize(("size", "remedy"), [(6, 8), (1, 4), (0, 4), (-4, 4)])
def test_another_batch_is_refused_with_one_that_fits(size, remedy):
    with pytest.raises(InputError, match=rf"batch_size={size} .* for example {remedy}$"):
        local_batch_size(size)


def test_first_replica_of_a_replicated_tree(rng):
    value = rng.normal(size=3).astype(np.float32)
    tree = {"a": jax.pmap(lambda x, _: x, in_axes=(None, 0), out_axes=None)(value, np.zeros(4))}
    one = first_replica(tree)["a"]
    assert len(one.devices()) == 1
    np.testing.assert_array_equal(one, value)


def test_place_batch_puts_each_part_on_its_device(rng):
    images = rng.integers(0, 256, (8, 2, 2, 3), np.uint8)
    placed = place_batch({"image": images})["image"]
    assert placed.shape == (4, 2, 2, 2, 3)
    for shard, device in zip(placed.addressable_shards, jax.devices(), strict=True):
        assert shard.device == device
    np.testing.assert_array_equal(np.asarray(placed).reshape(images.shape), images)
    one = place_batch({"image": images}, jax.devices()[2:3])["image"]
    assert (one.shape, one.devices()) == ((1, 8, 2, 2, 3), {jax.devices()[2]})


def test_a_placed_batch_is_not_copied_again(rng):
    step = data_parallel(lambda state, batch: (state + jax.lax.psum(batch["x"].sum(), AXIS_NAME), {}))
    state, _ = step(np.float32(0), place_batch({"x": np.ones((8, 3), np.float32)}))
    batch = place_batch({"x": rng.normal(size=(8, 3)).astype(np.float32)})
    with jax.transfer_guard("disallow"):
        state, _ = step(state, batch)
    assert float(first_replica(state)) == pytest.approx(24 + float(np.asarray(batch["x"]).sum()), rel=1e-5)


def test_what_is_on_all_devices_stays_there(rng):
    tree = replicate({"a": rng.normal(size=3)})
    assert replicate(tree)["a"] is tree["a"]
    assert len(tree["a"].devices()) == 4


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [  # batch size, devices, micro-batch, group -> micro-batches, groups, devices per group
        ((64, 1, 0, 0), (1, 1, 1)),
        ((64, 1, 8, 8), (8, 1, 1)),  # the original on one GPU
        ((64, 1, 0, 8), (1, 8, 1)),
        ((64, 2, 16, 8), (2, 2, 1)),
        ((64, 8, 8, 8), (1, 1, 1)),
        ((64, 16, 8, 8), (1, 1, 2)),  # a micro-batch is at most a device's share of 4 crops
        ((64, 64, 0, 8), (1, 1, 8)),
        ((64, 4, 0, 64), (1, 1, 4)),  # one group over all devices
        ((20, 4, 5, 0), (1, 1, 1)),
    ],
)
def test_layouts(numbers, expected):
    assert batch_layout(*numbers) == BatchLayout(*expected, numbers[1])


def test_groups_of_devices():
    layout = batch_layout(8, 4, 0, 4)
    assert layout.device_groups == ((0, 1), (2, 3))
    assert layout.total_groups == 2
    assert batch_layout(64, 1, 8, 4).total_groups == 16


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((6, 4), "batch_size=6 cannot be split evenly over 4 devices; choose a multiple of 4, for example 8"),
        ((0, 4), "batch_size=0 cannot be split evenly over 4 devices; choose a multiple of 4, for example 4"),
        ((64, 2, 5), "config.micro_batch=5 does not divide 32, the crops per device \\(batch_size=64, 2 devices\\)"),
        (
            (64, 2, 8, 3),
            "config.bn_group=3: a device computes 8 crops at once .*; choose a divisor of 8, or 8 times",
        ),
        (
            (64, 2, 8, 32),
            "config.bn_group=32: a device computes 8 crops at once",
        ),  # two devices have groups of 16 at most
        ((8, 1, -1), "config.micro_batch=-1: expected 0 or more"),
        ((8, 1, 0, -8), "config.bn_group=-8: expected 0 or more"),
    ],
)
def test_what_does_not_divide(numbers, message):
    with pytest.raises(InputError, match=message):
        batch_layout(*numbers)


class Numbered:
    """Iterator over batches whose pixels hold the number of the batch."""

    def __init__(self):
        self.read = 0

    def __next__(self):
        self.read += 1
        return {"image": np.full((4, 1), self.read - 1)}

    def get_state(self):
        return {"next_index": self.read}

    def set_state(self, state):
        self.read = state["next_index"]


def number(batch):
    assert isinstance(batch["image"], jax.Array)
    assert len(batch["image"].devices()) == jax.device_count()
    return int(np.asarray(batch["image"]).max())


def test_reads_ahead_but_counts_what_was_given_out():
    source = Numbered()
    batches = PrefetchedBatches(source, ahead=2)
    assert batches.get_state() == {"next_index": 0}
    for expected in range(5):
        assert number(next(batches)) == expected
        assert batches.get_state() == {"next_index": expected + 1}
        assert source.read == expected + 3


def test_goes_to_a_position():
    batches = PrefetchedBatches(Numbered())
    for _ in range(3):
        next(batches)
    state = batches.get_state()
    following = [number(next(batches)) for _ in range(4)]
    resumed = PrefetchedBatches(Numbered())
    number(next(resumed))
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert [number(batch) for batch in itertools.islice(iter(resumed.__next__, None), 4)] == following == [3, 4, 5, 6]
