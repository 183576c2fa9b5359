"""Computes and checks the integrity record of a checkpoint: a sum per array and a digest per JSON item.

Training writes the record; every program that reads a checkpoint compares it.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_DIGEST = "sha256"  # name of the record's own digest
_KEY = 0x9E3779B9  # an odd number, so that all positions below 2 ** 32 have different keys
_MIX = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))  # shifts and factors of MurmurHash3's finalizer
_CHUNK = 2**16  # words that are summed at once, few enough for a core's cache


def integrity_record(arrays: Mapping[str, chex.ArrayTree], texts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the integrity record of a checkpoint.

    Args:
      arrays: {item: tree of arrays}, on the host or on devices.
      texts: {item: value that JSON can store}.

    Returns:
      A dictionary that JSON can store: "arrays", {item: {array: sum}}; "json", {item: digest}; and its own "sha256".
    """
    body = {
        "arrays": {item: array_sums(tree) for item, tree in arrays.items()},
        "json": {item: json_digest(value) for item, value in texts.items()},
    }
    return {**body, _DIGEST: json_digest(body)}


def check_record(record: Any) -> None:
    """Raises ValueError unless an integrity record has the digest that it was written with."""
    body = {key: value for key, value in record.items() if key != _DIGEST} if isinstance(record, dict) else None
    if body is None or record.get(_DIGEST) != json_digest(body):
        raise ValueError("its integrity record is damaged")


def check_json(record: Mapping[str, Any], item: str, value: Any) -> None:
    """Raises ValueError unless a JSON item has the digest in the record.

    Args:
      record: from `integrity_record`.
      item: the item's name.
      value: the item as it was read.
    """
    if record["json"].get(item) != json_digest(value):
        raise ValueError(f"the values of {item} are not those that were written")


def check_arrays(record: Mapping[str, Any], item: str, tree: chex.ArrayTree) -> None:
    """Raises ValueError, with the name of the first wrong array, unless all arrays have the sums in the record.

    Args:
      record: from `integrity_record`.
      item: the item's name.
      tree: the item's arrays as they were read.
    """
    expected = record["arrays"].get(item, {})
    for name, value in array_sums(tree).items():
        if expected.get(name) != value:
            raise ValueError(f"the values of {name} are not those that were written")


def json_digest(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, which does not depend on the order of keys or on spacing."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(value)), sort_keys=True).encode()).hexdigest()


def array_sums(tree: chex.ArrayTree) -> dict[str, int]:
    """Returns a checksum of every array.

    The checksum is the sum of mix(word + key * position) modulo 2 ** 32. The function mix is one to one, so a single
    changed word always changes the sum. Swapped words and other damage change it with a probability of 1 - 2 ** -32.

    Args:
      tree: arrays of any shape and dtype. Arrays on accelerators, and arrays that are sharded over processes, are
        summed on their devices; in that case all processes must call this function.

    Returns:
      {path of the array in the tree: sum}, 0 to 2 ** 32 - 1.
    """
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    if all(map(_is_on_host, leaves.values())):
        with ThreadPoolExecutor() as pool:
            return dict(zip(leaves, pool.map(_host_sum, leaves.values()), strict=True))
    sums = jax.device_get({name: total.addressable_data(0) for name, total in _device_sums(leaves).items()})
    return {name: int(total) for name, total in sums.items()}


def _is_on_host(leaf: Any) -> bool:
    """Returns whether this process can read an array without copying it from an accelerator."""
    if not isinstance(leaf, Array):
        return True
    return leaf.is_fully_addressable and next(iter(leaf.devices())).platform == "cpu"


def _words(leaf: Any) -> np.ndarray:
    """Returns the bits of an array as uint32 [n]; each value of fewer than 32 bits becomes one word."""
    values = np.ascontiguousarray(leaf, jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype)).reshape(-1)
    return values.view(f"uint{8 * min(values.itemsize, 4)}").astype(np.uint32, copy=False)


def _host_sum(leaf: Any) -> int:
    """Returns the checksum of an array on the host."""
    words = _words(leaf)
    keys = np.arange(min(_CHUNK, words.size), dtype=np.uint32) * np.uint32(_KEY)
    mixed, shifted = np.empty_like(keys), np.empty_like(keys)
    total = 0
    for start in range(0, words.size, _CHUNK):
        size = min(_CHUNK, words.size - start)
        mix, moved = mixed[:size], shifted[:size]
        np.add(words[start : start + size], keys[:size], out=mix)
        mix += np.uint32(start * _KEY % 2**32)
        for shift, factor in _MIX:
            mix ^= np.right_shift(mix, np.uint32(shift), out=moved)
            mix *= np.uint32(factor)
        mix ^= np.right_shift(mix, np.uint32(16), out=moved)
        total += int(mix.sum(dtype=np.uint32))
    return total % 2**32


@jax.jit
def _device_sums(leaves: dict[str, Array]) -> dict[str, Array]:
    return {name: _device_sum(jnp.asarray(leaf)) for name, leaf in leaves.items()}


def _device_sum(values: Array) -> Array:
    """Returns the same checksum as `_host_sum`, uint32 [], computed where the array is."""
    if values.dtype == jnp.bool_:
        values = values.astype(jnp.uint8)
    bits = lax.bitcast_convert_type(values, jnp.dtype(f"uint{8 * min(values.dtype.itemsize, 4)}"))
    words, position = bits.astype(jnp.uint32), jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        position = position * jnp.uint32(size) + lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    mixed = words + position * jnp.uint32(_KEY)
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)
