"""The one place that knows how a step is spread over devices: `jax.pmap`, state replicated, batch divided."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import compiler_options

AXIS_NAME = "devices"


def data_parallel(
    step: Callable[[Any, Any], tuple[Any, Any]], devices: Sequence[jax.Device] | None = None
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """`step(state, batch)` over all devices, or over those given.

    The state is passed and returned without a device axis and its memory is reused; the batch has the device axis in
    front (`split_batch`). What the step returns must be equal on all devices: pmap does not check it, and hands out
    the first device's. The first call compiles; batches of another shape than the first one's are refused.
    """
    mapped = jax.pmap(step, axis_name=AXIS_NAME, in_axes=(None, 0), out_axes=None, donate_argnums=(0,), devices=devices)
    compiled: list[jax.stages.Compiled] = []

    def run(state: Any, batch: Any) -> tuple[Any, Any]:
        if not compiled:  # ahead of time, because only this way pmap takes compiler options
            state = jax.device_get(state)  # what a checkpoint was restored to may be bound to one device
            compiled.append(mapped.lower(state, batch).compile(compiler_options=compiler_options()))
        return compiled[0](state, batch)

    return run


def local_batch_size(global_batch_size: int) -> int:
    """Examples that this process reads for every step.

    Raises:
      InputError: if the global batch does not divide evenly over the devices.
    """
    devices = jax.device_count()
    if global_batch_size % devices or global_batch_size < devices:
        raise InputError(
            f"batch_size={global_batch_size} does not divide over {devices} devices; "
            f"give a multiple of {devices}, for example {max(1, round(global_batch_size / devices)) * devices}"
        )
    return global_batch_size // jax.process_count()


def split_batch(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """[n, ...] -> [local devices, n / local devices, ...]."""
    devices = jax.local_device_count()
    return {key: value.reshape(devices, -1, *value.shape[1:]) for key, value in batch.items()}


def first_replica(tree: Any) -> Any:
    """A replicated tree as arrays on this process's first device, without copying."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
