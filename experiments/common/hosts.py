"""Joins several processes into one program: `jax.distributed` from flags or from the environment of a cluster.

`jax.distributed.initialize` finds the other processes on Cloud TPU pods, under SLURM (srun) and Open MPI (mpirun), and
in indexed jobs of Kubernetes (with the package `kubernetes`). Elsewhere they are named by the environment variables
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or by --coordinator, --num_processes and --process_id.
"""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from absl import flags

from deconvnet_jax.errors import InputError

_TIMEOUT = 300  # seconds for which processes wait for each other at the start


def define_flags() -> None:
    """Defines the flags of programs that run in several processes."""
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ["auto", "on", "off"],
        "Whether to join the other processes of the job. `auto` joins them if the environment or flags name them.",
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process. Default: the cluster's environment.")
    flags.DEFINE_integer(
        "num_processes", None, "Number of processes. Default: the cluster's environment.", lower_bound=1
    )
    flags.DEFINE_integer(
        "process_id", None, "Number of this process, from 0. Default: the cluster's environment.", lower_bound=0
    )


def initialize(values: flags.FlagValues, environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes, if there are any. It must run before anything else uses JAX.

    Args:
      values: The parsed flags of `define_flags`.
      environment: Environment variables.

    Raises:
      InputError: for incomplete flags, or if the processes do not find each other.
    """
    import jax

    arguments = settings(values, environment)
    if arguments is None:
        return
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=_TIMEOUT)
    except (ValueError, TypeError, KeyError, IndexError) as error:  # The environment is incomplete.
        if values.distributed == "on" or arguments or in_cluster(environment):
            raise InputError(
                f"the other processes are unknown ({_reason(error)}); give --coordinator=HOST:PORT, --num_processes "
                "and --process_id, or --distributed=off for one process alone"
            ) from error
    except RuntimeError as error:
        raise InputError(
            f"the processes did not find each other ({_reason(error)}); all of them must be started with "
            "the same --coordinator and --num_processes, and the first one must be reachable from the others"
        ) from error


def settings(values: flags.FlagValues, environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the arguments for `jax.distributed.initialize`, without those that it finds out itself.

    Args:
      values: The parsed flags of `define_flags`.
      environment: Environment variables.

    Returns:
      The arguments; None for one process alone.

    Raises:
      InputError: for incomplete flags.
    """
    given = {
        "coordinator_address": values.coordinator or environment.get("JAX_COORDINATOR_ADDRESS") or None,
        "num_processes": values.num_processes or _number(environment, "JAX_NUM_PROCESSES"),
        "process_id": _number(environment, "JAX_PROCESS_ID") if values.process_id is None else values.process_id,
    }
    if values.distributed == "off":
        return None
    if all(value is not None for value in given.values()):
        if not 0 <= given["process_id"] < given["num_processes"]:
            raise InputError(
                f"--process_id={given['process_id']} of --num_processes={given['num_processes']}: expected 0 to "
                f"{given['num_processes'] - 1}"
            )
        if ":" not in given["coordinator_address"]:
            raise InputError(f"--coordinator={given['coordinator_address']}: expected HOST:PORT")
        return {**given, "cluster_detection_method": "deactivate"}
    known = {key: value for key, value in given.items() if value is not None}
    if values.distributed == "on" or in_cluster(environment):
        if alone_on_its_host(environment) and "JAX_LOCAL_DEVICE_IDS" not in environment:
            return {**known, "local_device_ids": []}  # All devices; JAX would use only the first.
        return known
    if on_tpu(environment) and not known:
        return {}
    if known:
        raise InputError(
            "--coordinator, --num_processes and --process_id belong together outside of a cluster; give the others, "
            f"too (only {', '.join(known)} is given)"
        )
    return None


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Returns whether this is one of several processes of a cluster's job, by its environment variables."""
    return (
        (_number(environment, "SLURM_STEP_NUM_TASKS") or 1) > 1
        or (_number(environment, "OMPI_COMM_WORLD_SIZE") or 1) > 1
        or bool(environment.get("KUBERNETES_SERVICE_HOST") and environment.get("JOB_COMPLETION_INDEX"))
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    )


def alone_on_its_host(environment: Mapping[str, str]) -> bool:
    """Returns whether SLURM or Open MPI started one process per host, which then uses all accelerators of its host.

    Args:
      environment: Environment variables.
    """
    hosts, processes = (environment.get(f"SLURM_STEP_NUM_{name}") for name in ("NODES", "TASKS"))
    if processes:
        return hosts == processes
    return environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def on_tpu(environment: Mapping[str, str]) -> bool:
    """Returns whether this may be a TPU host. JAX then finds out whether it is one of several."""
    return environment.get("JAX_PLATFORMS", "tpu") == "tpu" and importlib.util.find_spec("libtpu") is not None


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """Returns the number in an environment variable; None if it is not set, or empty as job scripts may leave it.

    Raises:
      InputError: for other text.
    """
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise InputError(f"{name}={text}: expected a number; correct the variable, or give --distributed=off")
    return int(text)


def _reason(error: Exception) -> str:
    """Returns the first line of an error, with its type if the text alone is only a name."""
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {text}"
