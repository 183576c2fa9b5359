"""Tests that checksums of arrays are equal on host and devices, and differ after any change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.weights import integrity
from deconvnet_jax.weights.integrity import array_sums, check_arrays, check_record, integrity_record


@pytest.mark.parametrize("shape", [(), (7,), (3, 1, 5), (300, 700), (0, 4)])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool", "bfloat16"])
def test_hosts_and_devices_find_the_same_sums(rng, shape, dtype):
    values = np.asarray(
        jnp.asarray(rng.integers(-9, 9, shape) if dtype != "bool" else rng.integers(0, 2, shape), dtype)
    )
    found = integrity._device_sums({"a": values})["a"]
    assert array_sums(values) == {"": int(found)}


def test_a_bit_and_an_exchange_change_the_sum(rng):
    values = rng.standard_normal((300, 400)).astype(np.float32)
    before = array_sums(values)
    flipped, exchanged = values.copy(), values.copy()
    flipped.view(np.uint32)[3, 4] ^= 1 << 30
    exchanged[[3, 5]] = exchanged[[5, 3]]
    others = (flipped, exchanged, np.ascontiguousarray(values.T).reshape(300, 400), values[::-1])
    assert all(array_sums(other) != before for other in others)


def test_replicated_arrays_are_summed_as_one(rng):
    values = rng.standard_normal((8, 6)).astype(np.float32)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
    for spec in (jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("x")):
        placed = jax.device_put(values, jax.sharding.NamedSharding(mesh, spec))
        assert array_sums(placed) == array_sums(values)


def test_a_record_names_the_array_and_cannot_be_changed(rng):
    tree = {"a": rng.standard_normal(5).astype(np.float32)}
    record = integrity_record({"variables": tree}, {"data": {"next_index": 110}})
    check_record(record)
    check_arrays(record, "variables", tree)
    with pytest.raises(ValueError, match=r"the values of \['a'\] are not those that were written"):
        check_arrays(record, "variables", {"a": tree["a"] + 1})
    record["arrays"]["variables"]["['a']"] += 1
    with pytest.raises(ValueError, match="its integrity record is damaged"):
        check_record(record)
