"""How inference uses several devices: one program runs on all of them, each with its image or windows.

An array that is spread holds the parts of all devices one after the other along its first axis, each of the same shape.
With `mesh=None` there is one device, JAX's default, and arrays and programs are those of that device.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import chex
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deconvnet_jax.errors import InputError

AXIS = "devices"
PARTS, WHOLE = PartitionSpec(AXIS), PartitionSpec()  # each device has its part; each has all of it


def local_mesh(devices: Sequence[jax.Device] | None) -> Mesh | None:
    """Returns the mesh of these devices, of this process; None if that is the default device alone.

    Args:
      devices: by default all of this process, or the one of `jax.default_device` where that is set.

    Raises:
      InputError: if there is no device, one is given twice, or one belongs to another process.
    """
    if devices is None and jax.config.jax_default_device is not None:
        return None
    local = jax.local_devices()
    chosen = local if devices is None else list(devices)
    if not chosen or len(set(chosen)) < len(chosen) or any(d.process_index != jax.process_index() for d in chosen):
        raise InputError(f"devices={chosen}: expected one or more different devices of jax.local_devices()")
    return None if chosen == local[:1] else Mesh(np.array(chosen), (AXIS,))


def device_count(mesh: Mesh | None) -> int:
    """Returns the number of devices."""
    return 1 if mesh is None else mesh.size


def sharding_of(mesh: Mesh | None, spec: PartitionSpec = PARTS) -> NamedSharding | None:
    """Returns how an array lies on the devices; None with one device."""
    return None if mesh is None else NamedSharding(mesh, spec)


def replicated(tree: chex.ArrayTree, mesh: Mesh | None) -> chex.ArrayTree:
    """Copies a tree to every device; with one device it stays where it is, unless that is on several."""
    if mesh is not None:
        return jax.device_put(tree, sharding_of(mesh, WHOLE))
    several = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, Array) and len(leaf.devices()) > 1]
    return jax.device_put(tree, jax.local_devices()[0]) if several else tree


def parts_of(array: Array, mesh: Mesh | None) -> list[Array]:
    """Returns the part of every device, each on its device; does not wait for them."""
    if mesh is None:
        return [array]
    shards = {shard.device: shard.data for shard in array.addressable_shards}
    return [shards[device] for device in mesh.devices.flat]


@lru_cache(maxsize=64)
def on_each(
    function: Callable[..., Any], mesh: Mesh | None, donate: tuple[int, ...] = (), **static: Any
) -> Callable[..., Any]:
    """Returns a function of spread arrays to spread arrays that runs `function` on the parts of every device.

    It is compiled once for all devices. With one device it is `function`, as it is.

    Args:
      function: of arrays to arrays, with `static` as keywords.
      mesh: of the devices.
      donate: positions of the arguments whose memory is reused, with several devices.
      **static: hashable keywords of `function`.
    """
    own = partial(function, **static)
    return own if mesh is None else jax.jit(spread(own, mesh), donate_argnums=donate)


def spread(function: Callable[..., Any], mesh: Mesh, inputs: Any = PARTS) -> Callable[..., Any]:
    """Returns `function` on the parts of every device, not jitted; `inputs` says what is spread of the arguments."""
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=PARTS, check_vma=False)
