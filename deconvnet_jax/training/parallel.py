"""Runs a step on several devices by `jax.pmap`: the state is replicated, the batch is split and copied ahead of time.

A global batch of B crops on D devices of P processes takes these shapes:

- each process reads [B / P, ...] on its host (`local_batch_size`);
- `split_batch` makes [D / P, B / D, ...] of it, in the order of the crops;
- `place_batch` makes it a global array [D, B / D, ...], sharded along the first axis: one part per device;
- under the mapped axis `AXIS_NAME`, each device sees [B / D, ...], and the state without a device axis.

Reductions over devices are part of the step (`step.py`); this module adds none.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import compiler_options
from deconvnet_jax.training.early_sums import COMPILER_OPTIONS

AXIS_NAME = "devices"  # the mapped axis over all devices of all processes


class BatchIterator(Protocol):
    """Endless iterator over batches whose position can be saved and restored."""

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the next batch on the host: "image" uint8 RGB [B, S, S, 3] and "label" uint8 [B, S, S]."""
        ...

    def get_state(self) -> dict[str, Any]:
        """Returns the position, a JSON object."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position that `get_state` returned."""


class BatchLayout(NamedTuple):
    """How a global batch is divided over devices, micro-batches and groups that share batch statistics.

    A device's share of n crops becomes [micro_batches, groups, n / (micro_batches * groups)], in the order of the
    crops. A group consists of consecutive crops of the global batch, whatever the number of devices. There is one
    exception: a group that spans several devices, each with several micro-batches, consists of the crops that these
    devices compute at the same time.

    Attributes:
      micro_batches: micro-batches per device; computed one after the other, and their gradients are summed.
      groups: groups per micro-batch of a device; each is normalised with its own batch statistics.
      devices_a_group: consecutive devices that share a group; 1 unless a group is larger than a micro-batch.
      devices: devices that share the global batch.
    """

    micro_batches: int = 1
    groups: int = 1
    devices_a_group: int = 1
    devices: int = 1

    @property
    def device_groups(self) -> tuple[tuple[int, ...], ...]:
        """The positions on the mapped axis that share a group, for `axis_index_groups`: ((0, 1), (2, 3), ...)."""
        size = self.devices_a_group
        return tuple(tuple(range(first, first + size)) for first in range(0, self.devices, size))

    @property
    def total_groups(self) -> int:
        """The number of groups in the global batch."""
        return self.micro_batches * self.groups * self.devices // self.devices_a_group


def batch_layout(batch_size: int, devices: int, micro_batch: int = 0, bn_group: int = 0) -> BatchLayout:
    """Returns how a batch is divided over devices, micro-batches and groups.

    Args:
      batch_size: crops per step, over all devices.
      devices: the number of devices of all processes.
      micro_batch: crops that a device computes at once, at most; 0 for its whole share.
      bn_group: crops that share batch statistics; 0 for those that a device computes at once.

    Returns:
      The layout.

    Raises:
      InputError: if `batch_size` is no multiple of `devices`, the micro-batch does not divide a device's share, or a
        group consists neither of a part of a micro-batch nor of the micro-batches of several devices.

    Example:
      >>> batch_layout(batch_size=64, devices=2, micro_batch=16, bn_group=8)
      BatchLayout(micro_batches=2, groups=2, devices_a_group=1, devices=2)
      >>> batch_layout(batch_size=64, devices=16, bn_group=8).device_groups[:3]  # each device has 4 crops
      ((0, 1), (2, 3), (4, 5))
    """
    if micro_batch < 0 or bn_group < 0:
        name, value = ("micro_batch", micro_batch) if micro_batch < 0 else ("bn_group", bn_group)
        raise InputError(f"config.{name}={value}: expected 0 or more")
    if batch_size % devices or batch_size < devices:
        raise InputError(
            f"batch_size={batch_size} cannot be split evenly over {devices} devices; "
            f"choose a multiple of {devices}, for example {max(1, round(batch_size / devices)) * devices}"
        )
    share = batch_size // devices
    micro = min(micro_batch or share, share)
    if share % micro:
        raise InputError(
            f"config.micro_batch={micro_batch} does not divide {share}, the crops per device (batch_size={batch_size}, "
            f"{devices} devices); choose a divisor of {share}"
        )
    group = bn_group or micro
    if group <= micro and micro % group == 0:
        return BatchLayout(share // micro, micro // group, 1, devices)
    if group > micro and group % micro == 0 and devices % (group // micro) == 0:
        return BatchLayout(share // micro, 1, group // micro, devices)
    raise InputError(
        f"config.bn_group={bn_group}: a device computes {micro} crops at once (batch_size={batch_size}, "
        f"{devices} devices, config.micro_batch={micro_batch}); choose a divisor of {micro}, or {micro} times a "
        f"divisor of {devices}"
    )


def group_size(config: Mapping[str, Any], devices: int) -> int:
    """Returns the number of crops that share batch statistics: `bn_group`, or those that a device computes at once.

    Args:
      config: the experiment's settings; batch_size, micro_batch and bn_group are read.
      devices: the number of devices of all processes.

    Returns:
      The number of crops, at least 1.

    Raises:
      InputError: as `batch_layout`.
    """
    layout = batch_layout(config["batch_size"], devices, config["micro_batch"], config["bn_group"])
    return config["batch_size"] // layout.total_groups


def data_parallel(
    step: Callable[[Any, Any], tuple[Any, Any]], devices: Sequence[jax.Device] | None = None
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns a function that runs `step` on every device under the mapped axis `AXIS_NAME`.

    Args:
      step: takes the state and one device's share of a batch, and returns a new state and metrics. It must return equal
        values on all devices, so it must reduce over the axis itself. `jax.pmap` does not check this and returns the
        first device's values.
      devices: the devices; None for all devices of all processes.

    Returns:
      A function (state, batch) -> (state, metrics). The state has no device axis; its memory is donated. The batch has
      the device axis in front, [devices, crops per device, ...] (`place_batch`). States and metrics come back
      replicated, without a device axis. The first call compiles and accepts a state from anywhere, such as the host;
      later calls accept only the state that the call before returned, and batches of the same shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> def add(total, batch):
      ...     return total + jax.lax.psum(jnp.sum(batch["x"]), AXIS_NAME), {}
      >>> devices = jax.devices()
      >>> batch = place_batch({"x": np.ones((len(devices) * 3, 2), np.float32)}, devices)
      >>> batch["x"].shape == (len(devices), 3, 2)
      True
      >>> total, _ = data_parallel(add, devices)(np.float32(0), batch)
      >>> float(total) == len(devices) * 3 * 2
      True
    """
    devices = jax.devices() if devices is None else devices
    compiled: list[jax.stages.Compiled] = []

    def run(state: Any, batch: Any) -> tuple[Any, Any]:
        if not compiled:
            state = replicate(state, devices)
            compiled.append(compile_parallel(step, state, batch, devices))
        return compiled[0](state, batch)

    return run


def compile_parallel(
    step: Callable[[Any, Any], tuple[Any, Any]], state: Any, batch: Any, devices: Sequence[jax.Device]
) -> jax.stages.Compiled:
    """Compiles a step for devices ahead of time; `jax.pmap` takes compiler options only this way.

    Args:
      step: as for `data_parallel`.
      state: a tree of arrays that are replicated on all devices, or `replicated_shapes`.
      batch: {name: array [devices, crops per device, ...]}, sharded along the first axis, or `batch_shapes`.
      devices: the devices; may be described only, for a machine that is not here (`jax.experimental.topologies`).

    Returns:
      The compiled function (state, batch) -> (state, metrics). It donates the state, maps the batch's first axis, and
      returns both results without a device axis.
    """
    mapped = jax.pmap(step, axis_name=AXIS_NAME, in_axes=(None, 0), out_axes=None, donate_argnums=(0,), devices=devices)
    options = compiler_options(devices[0].platform)
    if len(devices) > 1:
        options |= COMPILER_OPTIONS.get(devices[0].device_kind, {})
    return mapped.lower(state, batch).compile(compiler_options=options)


def replicated_shapes(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Returns the shapes and shardings that a tree would have after `replicate`.

    Args:
      tree: a tree of arrays or `jax.ShapeDtypeStruct`s.
      devices: the devices.

    Returns:
      The tree with a `jax.ShapeDtypeStruct` in place of each leaf: the same shape and dtype, replicated.
    """
    return _shapes(tree, devices, PartitionSpec())


def batch_shapes(batch: Any, devices: Sequence[jax.Device]) -> Any:
    """Returns the shapes and shardings that a batch would have after `place_batch`.

    Args:
      batch: a tree of arrays or `jax.ShapeDtypeStruct`s [devices, crops per device, ...].
      devices: the devices.

    Returns:
      The tree with a `jax.ShapeDtypeStruct` in place of each leaf: the same shape and dtype, sharded along axis 0.
    """
    return _shapes(batch, devices, PartitionSpec(AXIS_NAME))


def _shapes(tree: Any, devices: Sequence[jax.Device], spec: PartitionSpec) -> Any:
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS_NAME,)), spec)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def local_batch_size(global_batch_size: int) -> int:
    """Returns the number of crops that this process reads per step.

    Raises:
      InputError: if the global batch cannot be split evenly over all devices.
    """
    batch_layout(global_batch_size, jax.device_count())
    return global_batch_size // jax.process_count()


def split_batch(batch: dict[str, np.ndarray], devices: int) -> dict[str, np.ndarray]:
    """Splits a batch over devices, in the order of the crops: device 0 gets the first ones.

    Args:
      batch: {name: array [n, ...]}.
      devices: the number of parts, a divisor of n.

    Returns:
      {name: array [devices, n / devices, ...]}, views where possible.
    """
    return {key: value.reshape(devices, -1, *value.shape[1:]) for key, value in batch.items()}


def place_batch(batch: dict[str, np.ndarray], devices: Sequence[jax.Device] | None = None) -> dict[str, jax.Array]:
    """Starts to copy this process's share of a batch to its devices; does not wait for the copies.

    Args:
      batch: {name: array [n, ...]} on the host, where n is a multiple of this process's number of devices.
      devices: the same as for `data_parallel`; None for all devices of all processes.

    Returns:
      {name: global array [devices of all processes, crops per device, ...]}, sharded along the first axis. Each
      process holds the parts of its devices.
    """
    mesh = Mesh(np.array(jax.devices() if devices is None else devices), (AXIS_NAME,))
    sharding = NamedSharding(mesh, PartitionSpec(AXIS_NAME))
    # The loop disallows implicit copies, and with several processes JAX takes this one for implicit.
    with jax.transfer_guard_host_to_device("allow"):
        return {
            key: jax.make_array_from_process_local_data(sharding, value)
            for key, value in split_batch(batch, len(mesh.local_devices)).items()
        }


def replicate(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Copies a tree to all devices; arrays that are already replicated on them are not copied.

    Args:
      tree: a tree of arrays on the host or on a device; every process must pass the same values.
      devices: the devices; None for all devices of all processes.

    Returns:
      The tree as global arrays with the same shapes; each device holds all of them.
    """
    sharding = NamedSharding(
        Mesh(np.array(jax.devices() if devices is None else devices), (AXIS_NAME,)), PartitionSpec()
    )

    def copy(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        values = np.asarray(jax.device_get(leaf))  # a restored array may be committed to one device
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(copy, tree)


def first_replica(tree: Any) -> Any:
    """Returns a replicated tree as arrays on this process's first device, without copying."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


class PrefetchedBatches:
    """Endless iterator over batches that are copied to the devices before they are needed.

    The host only launches a step. While the devices compute it, the host reads a later batch and copies it to them.
    The position counts the batches that were returned, not those that were read ahead.
    """

    def __init__(self, batches: BatchIterator, ahead: int = 2):
        """Notes the position; reads nothing yet.

        Args:
          batches: this process's share of every batch, on the host.
          ahead: the number of batches on the devices in addition to the one in use.
        """
        self._batches, self._ahead = batches, ahead
        self._position = batches.get_state()
        self._waiting: deque[tuple[dict[str, jax.Array], dict[str, Any]]] = deque()

    def __next__(self) -> dict[str, jax.Array]:
        while len(self._waiting) <= self._ahead:
            # Without the copy, JAX on a CPU would keep the workers' shared memory, which the program frees at its end.
            batch = place_batch({key: value.copy() for key, value in next(self._batches).items()})
            self._waiting.append((batch, self._batches.get_state()))
        batch, self._position = self._waiting.popleft()
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the batch that was returned last, a JSON object."""
        return self._position

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position that `get_state` returned, and drops the batches that were read ahead."""
        self._waiting.clear()
        self._batches.set_state(state)
        self._position = state
