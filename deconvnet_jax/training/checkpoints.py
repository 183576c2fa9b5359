"""Checkpoints of a run: one Orbax step holds variables, optimizer, data iterator and the run's description, apart.

Steps are written atomically by Orbax, in the background: a half-written one is never listed. An integrity record is
kept with them, so that a damaged step is found when it is read, and the one before it is used.
"""

import sys
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import in_bucket
from deconvnet_jax.models import Variables
from deconvnet_jax.weights import (
    RECORD,
    Checkpoints,
    StoredStep,
    finish_saving,
    integrity_record,
    write_metrics,
    writing,
)

DAMAGED = "checkpoints_damaged"  # beside the folder of checkpoints


def save_checkpoint(
    manager: Checkpoints,
    step: int,
    *,
    variables: Variables,
    optimizer: dict[str, Any],
    data: dict[str, Any],
    info: dict[str, Any],
) -> None:
    """Starts writing one step; `finish_saving` waits for it. All processes call it.

    Args:
      manager: from `weights.open_checkpoints`.
      step: number of updates done.
      variables: {"params", "batch_stats"} of the network.
      optimizer: the optimizer's state.
      data: the data iterator's state, JSON.
      info: the run's description, JSON: at least "config" (with the section "model") and "class_names".

    Raises:
      InputError: if this step, or the one before it, could not be written.
    """
    finish_saving(manager)
    if not in_bucket(manager.folder) and not manager.folder.is_dir():
        raise InputError(
            f"{manager.folder} was removed or renamed while the run wrote to it; move it back and give the same "
            "command again, or give another --workdir"
        )
    record = integrity_record({"variables": variables, "optimizer": optimizer}, {"data": data, "info": info})
    args = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables),
        optimizer=ocp.args.StandardSave(optimizer),
        data=ocp.args.JsonSave(data),
        info=ocp.args.JsonSave(info),
        **{RECORD: ocp.args.JsonSave(record)},
    )
    writing(manager, lambda: manager.save(step, args=args))


def add_metrics(manager: Checkpoints, step: int, metrics: dict[str, float]) -> None:
    """Adds the scores of a step that is saved; all processes call it.

    So that a step is on the disk before its evaluation, which takes long, begins.

    Raises:
      InputError: if they cannot be written.
    """
    finish_saving(manager)
    if jax.process_index() == 0:
        write_metrics(manager.folder / str(step), metrics)
    _wait_for_all("metrics are written")
    manager.reload()


def restore_newest(
    manager: Checkpoints, variables: Variables, optimizer: dict[str, Any]
) -> tuple[int, Variables, dict[str, Any], dict[str, Any]] | None:
    """Returns the newest step that can be read (step, variables, optimizer, data iterator state), None without any.

    Newer steps that are damaged are moved to the folder `checkpoints_damaged` beside that of the checkpoints, with a
    warning on stderr. Arrays are NumPy's: bound to no device, so that a step over any number of devices takes them.

    Args:
      manager: from `weights.open_checkpoints`.
      variables, optimizer: trees of the shapes that are expected.

    Raises:
      InputError: if there are steps, but none that can be read.
    """
    damaged: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            stored = StoredStep(manager.folder / str(step))
            stored.json("info")
            data = stored.json("data")
            arrays = [stored.arrays("variables", variables), stored.arrays("optimizer", optimizer)]
        except Exception as error:  # whatever Orbax, TensorStore and JSON make of damaged files
            damaged[step] = one_line(error)
            continue
        _set_aside(manager, damaged)
        return step, *jax.device_get(arrays), data
    if damaged:
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        raise InputError(
            f"no checkpoint in {manager.folder} can be read ({reasons}); give another --workdir to start anew"
        )
    return None


def _set_aside(manager: Checkpoints, damaged: dict[int, str]) -> None:
    if not damaged:
        return
    directory = manager.folder
    folder = directory.with_name(DAMAGED)
    if jax.process_index() == 0:
        folder.mkdir(exist_ok=True)
        for step, reason in damaged.items():
            number = sum(path.name.split("_")[0] == str(step) for path in folder.iterdir())
            target = folder / (f"{step}_{number}" if number else str(step))
            (directory / str(step)).rename(target)
            print(
                f"warning: the checkpoint of step {step} cannot be read ({reason}); moved to {target}", file=sys.stderr
            )
    _wait_for_all("damaged checkpoints are set aside")
    manager.reload()


def _wait_for_all(what: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
