"""Describes accelerators that this machine does not have to JAX, so that programs can be compiled for them."""

import importlib.util
import os
import re
from pathlib import Path

import jax

from deconvnet_jax.errors import InputError

from .hardware import ACCELERATORS, GPUS_PER_HOST, Accelerator

TARGETS = Path(__file__).with_name("targets")
# The type of machine, for which libtpu would otherwise ask Google Cloud.
MACHINES = {"v5e": "v5litepod-8", "v5p": "v5p-8", "v6e": "v6e-8"}
EXAMPLES = "v5e:4x4, v5p:2x2x2, v6e:2x4, h100:8, h200:8, a100:16, b200:8"


def accelerator_of(topology: str) -> Accelerator:
    """Returns the accelerator of a topology such as "h100:8" or "v5e:4x4".

    Raises:
      InputError: for an unknown accelerator, or a wrong number of GPUs or grid of chips.
    """
    name, _, size = topology.partition(":")
    if name not in ACCELERATORS:
        raise InputError(f"--topology={topology}: unknown accelerator '{name}'; expected for example {EXAMPLES}")
    is_tpu = ACCELERATORS[name].platform == "tpu"
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+" if is_tpu else r"[1-9]\d*", size):
        what = "a grid of chips" if is_tpu else "a number of GPUs"
        raise InputError(f"--topology={topology}: expected {what} after the colon, for example {EXAMPLES}")
    if not is_tpu and int(size) > GPUS_PER_HOST and int(size) % GPUS_PER_HOST:
        raise InputError(f"--topology={topology}: expected 1 to 8 GPUs, or a multiple of 8 for several hosts")
    return ACCELERATORS[name]


def describe(topology: str) -> list[jax.Device]:
    """Returns the devices of a topology. `jax.jit` and `jax.pmap` can compile for them, but not run on them.

    Raises:
      InputError: for an unknown topology, or if its compiler is not installed or in use by another process.
    """
    devices = {"gpu": _gpus, "tpu": _tpus}[accelerator_of(topology).platform]
    try:
        return devices(topology)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if "lockfile" in reason:
            raise InputError(
                f"--topology={topology}: another process uses libtpu (/tmp/libtpu_lockfile); wait until it ends"
            ) from error
        raise InputError(f"--topology={topology} cannot be compiled for: {reason}") from error


def _gpus(topology: str) -> list[jax.Device]:
    from jax.experimental.topologies import get_topology_desc

    if not any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in (12, 13)):
        raise InputError(f"--topology={topology} needs XLA's compiler for GPUs: pip install -e '.[compile-gpu]'")
    name, _, size = topology.partition(":")
    inside = min(int(size), GPUS_PER_HOST)
    text = (TARGETS / f"{name}.txtpb").read_text(encoding="utf-8")
    grid = f"1x{int(size) // inside}x{inside}"  # hosts, and GPUs in each
    return list(get_topology_desc(topology_name=name, platform="cuda", topology=grid, target_config=text).devices)


def _tpus(topology: str) -> list[jax.Device]:
    from jax.experimental.topologies import get_topology_desc

    if not importlib.util.find_spec("libtpu"):
        raise InputError(f"--topology={topology} needs XLA's compiler for TPUs: pip install -e '.[compile-tpu]'")
    machine = {"TPU_ACCELERATOR_TYPE": MACHINES[topology.partition(":")[0]], "TPU_WORKER_HOSTNAMES": "localhost"}
    os.environ.update({"TPU_SKIP_MDS_QUERY": "1", **machine})
    if not list(Path("/dev").glob("accel*")) and not Path("/dev/vfio").exists():
        os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # Without chips, processes cannot disturb each other.
    return list(get_topology_desc(platform="tpu", topology_name=topology).devices)
