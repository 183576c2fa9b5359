"""How a step is spread over devices: `jax.pmap`, the state replicated, the batch divided and sent ahead of time."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import compiler_options
from deconvnet_jax.training.early_sums import COMPILER_OPTIONS

AXIS_NAME = "devices"


class BatchIterator(Protocol):
    """An endless iterator over batches whose position can be saved and restored."""

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch: "image" uint8 RGB [B, S, S, 3] and "label" uint8 [B, S, S]."""
        ...

    def get_state(self) -> dict[str, Any]:
        """The position, as JSON."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position."""


class BatchLayout(NamedTuple):
    """The parts of a device's share of a batch, in the order of its crops: micro-batches, and in each the groups.

    A group is a run of consecutive crops of the global batch, whatever the number of devices, unless it needs several
    devices that each have several micro-batches: then it is made of the crops that they compute at the same time.

    Attributes:
      micro_batches: computed one after the other, their gradients added up.
      groups: of a micro-batch, with batch statistics each.
      devices_a_group: consecutive devices that make up a group; 1 unless a group is larger than a micro-batch.
      devices: all that the batch is divided over.
    """

    micro_batches: int = 1
    groups: int = 1
    devices_a_group: int = 1
    devices: int = 1

    @property
    def device_groups(self) -> tuple[tuple[int, ...], ...]:
        """The devices of every group, if groups are larger than a micro-batch."""
        size = self.devices_a_group
        return tuple(tuple(range(first, first + size)) for first in range(0, self.devices, size))

    @property
    def total_groups(self) -> int:
        """Groups in the global batch."""
        return self.micro_batches * self.groups * self.devices // self.devices_a_group


def batch_layout(batch_size: int, devices: int, micro_batch: int = 0, bn_group: int = 0) -> BatchLayout:
    """The layout of a batch over devices.

    Args:
      batch_size: crops of a step, over all devices.
      devices: number of them.
      micro_batch: most crops that a device computes at once; 0: its whole share.
      bn_group: crops that share batch statistics; 0: those that a device computes at once.

    Raises:
      InputError: if a number does not divide the other.
    """
    if micro_batch < 0 or bn_group < 0:
        name, value = ("micro_batch", micro_batch) if micro_batch < 0 else ("bn_group", bn_group)
        raise InputError(f"config.{name}={value}: expected 0 or more")
    if batch_size % devices or batch_size < devices:
        raise InputError(
            f"batch_size={batch_size} does not divide over {devices} devices; "
            f"give a multiple of {devices}, for example {max(1, round(batch_size / devices)) * devices}"
        )
    share = batch_size // devices
    micro = min(micro_batch or share, share)
    if share % micro:
        raise InputError(
            f"config.micro_batch={micro_batch} does not divide the {share} crops that each of {devices} devices has of "
            f"batch_size={batch_size}; give a divisor of {share}"
        )
    group = bn_group or micro
    if group <= micro and micro % group == 0:
        return BatchLayout(share // micro, micro // group, 1, devices)
    if group > micro and group % micro == 0 and devices % (group // micro) == 0:
        return BatchLayout(share // micro, 1, group // micro, devices)
    raise InputError(
        f"config.bn_group={bn_group}: a device computes {micro} crops at once (batch_size={batch_size}, "
        f"{devices} devices, config.micro_batch={micro_batch}); give a divisor of {micro}, or {micro} times a divisor "
        f"of {devices}"
    )


def group_size(config: Mapping[str, Any], devices: int) -> int:
    """Returns the crops that share batch statistics: `bn_group`, or those that a device computes at once.

    Args:
      config: of the experiment: batch_size, micro_batch, bn_group.
      devices: number of them.

    Raises:
      InputError: if a number does not divide the other.
    """
    layout = batch_layout(config["batch_size"], devices, config["micro_batch"], config["bn_group"])
    return config["batch_size"] // layout.total_groups


def data_parallel(
    step: Callable[[Any, Any], tuple[Any, Any]], devices: Sequence[jax.Device] | None = None
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """`step(state, batch)` over all devices of all processes, or over those given.

    The state is passed and returned without a device axis and its memory is reused; the batch has the device axis in
    front (`place_batch`). What the step returns must be equal on all devices: pmap does not check it, and hands out
    the first device's. The first call compiles, and takes a state from anywhere; the later ones take what the call
    before returned, and batches of another shape than the first one's are refused.
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
    """Compiles a step for devices, ahead of time: only this way pmap takes compiler options.

    Args:
      step: of a state and one device's share of a batch.
      state: on all devices, or `replicated_shapes`.
      batch: with the device axis in front, or `batch_shapes`.
      devices: may be described only (`jax.experimental.topologies`).
    """
    mapped = jax.pmap(step, axis_name=AXIS_NAME, in_axes=(None, 0), out_axes=None, donate_argnums=(0,), devices=devices)
    options = compiler_options(devices[0].platform)
    if len(devices) > 1:
        options |= COMPILER_OPTIONS.get(devices[0].device_kind, {})
    return mapped.lower(state, batch).compile(compiler_options=options)


def replicated_shapes(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """Returns what describes a tree of arrays or shapes after `replicate`."""
    return _shapes(tree, devices, PartitionSpec())


def batch_shapes(batch: Any, devices: Sequence[jax.Device]) -> Any:
    """Returns what describes a batch of arrays or shapes [devices, examples on each, ...] after `place_batch`."""
    return _shapes(batch, devices, PartitionSpec(AXIS_NAME))


def _shapes(tree: Any, devices: Sequence[jax.Device], spec: PartitionSpec) -> Any:
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS_NAME,)), spec)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def local_batch_size(global_batch_size: int) -> int:
    """Examples that this process reads for every step.

    Raises:
      InputError: if the global batch does not divide evenly over the devices.
    """
    batch_layout(global_batch_size, jax.device_count())
    return global_batch_size // jax.process_count()


def split_batch(batch: dict[str, np.ndarray], devices: int) -> dict[str, np.ndarray]:
    """[n, ...] -> [devices, n / devices, ...]."""
    return {key: value.reshape(devices, -1, *value.shape[1:]) for key, value in batch.items()}


def place_batch(batch: dict[str, np.ndarray], devices: Sequence[jax.Device] | None = None) -> dict[str, jax.Array]:
    """Starts copying this process's share of a batch to its devices; the same devices as for `data_parallel`.

    Returns:
      Arrays [devices of all processes, examples on each, ...], of which this process has its own devices' parts.
    """
    mesh = Mesh(np.array(jax.devices() if devices is None else devices), (AXIS_NAME,))
    sharding = NamedSharding(mesh, PartitionSpec(AXIS_NAME))
    with jax.transfer_guard_host_to_device("allow"):  # with several processes JAX does not see that it is asked for
        return {
            key: jax.make_array_from_process_local_data(sharding, value)
            for key, value in split_batch(batch, len(mesh.local_devices)).items()
        }


def replicate(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Copies a tree, the same in every process, to all devices; what is there already stays."""
    sharding = NamedSharding(
        Mesh(np.array(jax.devices() if devices is None else devices), (AXIS_NAME,)), PartitionSpec()
    )

    def copy(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        values = np.asarray(jax.device_get(leaf))  # what a checkpoint was restored to may be bound to one device
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(copy, tree)


def first_replica(tree: Any) -> Any:
    """A replicated tree as arrays on this process's first device, without copying."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


class PrefetchedBatches:
    """An endless iterator over batches on the devices, some of them ahead of the one given out.

    While the devices compute a step, which the host only starts, the host reads the batch after the next and sends it.
    The position is that of the batches given out, not of those read.
    """

    def __init__(self, batches: BatchIterator, ahead: int = 2):
        """
        Args:
          batches: this process's share of every batch.
          ahead: so many batches are on the devices besides the one in use.
        """
        self._batches, self._ahead = batches, ahead
        self._position = batches.get_state()
        self._waiting: deque[tuple[dict[str, jax.Array], dict[str, Any]]] = deque()

    def __next__(self) -> dict[str, jax.Array]:
        while len(self._waiting) <= self._ahead:
            # Copied: on CPU, JAX would keep the workers' shared memory, which must be free when the program ends.
            batch = place_batch({key: value.copy() for key, value in next(self._batches).items()})
            self._waiting.append((batch, self._batches.get_state()))
        batch, self._position = self._waiting.popleft()
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position after the batch given out last, as JSON."""
        return self._position

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position; what was read ahead is dropped."""
        self._waiting.clear()
        self._batches.set_state(state)
        self._position = state
