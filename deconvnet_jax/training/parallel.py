"""The one place that knows how a step is spread over devices: `jax.pmap`, state replicated, batch divided."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deconvnet_jax.models import compiler_options
from deconvnet_jax.training.early_sums import COMPILER_OPTIONS
from deconvnet_jax.training.layout import batch_layout

AXIS_NAME = "devices"


class BatchIterator(Protocol):
    """An endless iterator over batches whose position can be saved and restored."""

    def __next__(self) -> dict[str, np.ndarray]:
        """The next batch: "image" uint8 RGB [B, S, S, 3] and "label" uint8 [B, S, S]."""

    def get_state(self) -> dict[str, Any]:
        """The position, as JSON."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position."""


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
