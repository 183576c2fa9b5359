"""How a batch is divided over four devices."""

import jax
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training.parallel import (
    AXIS_NAME,
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
