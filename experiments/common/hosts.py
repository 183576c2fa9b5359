"""Several processes as one program: `jax.distributed` from flags, or from the environment that a cluster provides.

Found by themselves: Cloud TPU pods, SLURM (srun), Open MPI (mpirun) and indexed jobs of Kubernetes (with the package
`kubernetes`), as far as `jax.distributed.initialize` knows them; JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
JAX_PROCESS_ID; and anywhere else the flags --coordinator, --num_processes and --process_id.
"""

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from absl import flags

from deconvnet_jax.errors import InputError

_TIMEOUT = 300  # seconds that processes wait for each other at the start


def define_flags() -> None:
    """The command line of programs that run in several processes."""
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
    """Joins the other processes, if there are any; before anything else uses JAX.

    Raises:
      InputError: for incomplete flags, or if the processes do not find each other.
    """
    import jax

    arguments = settings(values, environment)
    if arguments is None:
        return
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=_TIMEOUT)
    except (ValueError, TypeError, KeyError, IndexError) as error:  # what tells how many there are is partly set
        if values.distributed == "on" or arguments or in_cluster(environment):
            raise InputError(
                f"the other processes are not known ({_reason(error)}); give --coordinator=HOST:PORT, --num_processes "
                "and --process_id, or --distributed=off for one process alone"
            ) from error
    except RuntimeError as error:
        raise InputError(
            f"the processes did not find each other ({_reason(error)}); all of them must be started with "
            "the same --coordinator and --num_processes, and the first one must be reachable from the others"
        ) from error


def settings(values: flags.FlagValues, environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Arguments for `jax.distributed.initialize`, those that it finds out itself left out; None for one process alone.

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
            return {**known, "local_device_ids": []}  # all; JAX would take the first and leave the rest to nobody
        return known
    if on_tpu(environment) and not known:
        return {}
    if known:
        raise InputError(
            "--coordinator, --num_processes and --process_id go together where no cluster tells the rest; "
            f"only {', '.join(known)} given"
        )
    return None


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether this is one of several processes of a cluster's job."""
    return (
        (_number(environment, "SLURM_STEP_NUM_TASKS") or 1) > 1
        or (_number(environment, "OMPI_COMM_WORLD_SIZE") or 1) > 1
        or bool(environment.get("KUBERNETES_SERVICE_HOST") and environment.get("JOB_COMPLETION_INDEX"))
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    )


def alone_on_its_host(environment: Mapping[str, str]) -> bool:
    """Whether SLURM or Open MPI started one process on each host, which then has all of its accelerators."""
    hosts, processes = (environment.get(f"SLURM_STEP_NUM_{name}") for name in ("NODES", "TASKS"))
    if processes:
        return hosts == processes
    return environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def on_tpu(environment: Mapping[str, str]) -> bool:
    """Whether this may be a TPU host; JAX itself knows then whether it is one of several."""
    return environment.get("JAX_PLATFORMS", "tpu") == "tpu" and importlib.util.find_spec("libtpu") is not None


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """Returns a variable's number; None if it is not set, or empty as job scripts leave it.

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
    """Returns an error's first line; of a missing variable, its name."""
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: {text}"
