"""Settings that need more memory than the machine has, noticed before any work."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import ml_collections

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import count_parameters, network_from_config
from deconvnet_jax.training import init_variables, local_batch_size

GIB = 2**30
FIRST_CHANNELS = 64  # of conv1_1, whose output has the size of the crop
STATE_BYTES = 8  # per parameter: its value and its momentum, float32
PIXEL_BYTES = 4  # of a crop on the host: RGB and its mask


def device_memory() -> int:
    """Returns the bytes of memory of one of this process's devices; of a CPU, those of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or host_memory()


def host_memory() -> int:
    """Returns the bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(config: ml_collections.ConfigDict) -> None:
    """Checks lower bounds of what a training keeps in memory; what passes may still be too large.

    Args:
      config: whose settings are each in range.

    Raises:
      InputError: if the state of the network, the first layer's output or one batch of crops cannot fit.
    """
    model, side = config.model, config.data.crop_size
    net = network_from_config({**model.to_dict(), "num_classes": model.num_classes or 2})
    parameters = count_parameters(jax.eval_shape(partial(init_variables, net), 0))
    _check(
        f"config.model.width={model.width:g} with config.model.fc_features={model.fc_features}: {parameters:,} "
        "parameters and their momentum need",
        parameters * STATE_BYTES,
        device_memory(),
        "lower them",
    )
    share = config.batch_size // jax.device_count()
    at_once = min(config.micro_batch or share, share)
    _check(
        f"config.data.crop_size={side} with {at_once} crops per device at once: the output of the first layer needs",
        int(at_once * side**2 * FIRST_CHANNELS * model.width) * jnp.dtype(model.dtype).itemsize,
        device_memory(),
        "lower config.data.crop_size, or give a smaller config.micro_batch",
    )
    _check(
        f"config.batch_size={config.batch_size} with config.data.crop_size={side}: the crops of one step need",
        local_batch_size(config.batch_size) * side**2 * PIXEL_BYTES,
        host_memory(),
        "lower config.batch_size",
    )


def _check(what: str, needed: int, there: int, remedy: str) -> None:
    if needed > there:
        raise InputError(f"{what} {needed / GIB:,.1f} GiB, but there are {there / GIB:,.1f} GiB; {remedy}")
