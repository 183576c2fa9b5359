"""Saves and restores a run: each Orbax step holds variables, optimizer, data iterator and description as items.

Averages of the variables, if the run keeps any, are one more item, so that programs can read them alone.

Orbax writes a step atomically and in the background, so that a half-written step is never listed. Each step has an
integrity record: a damaged step is noticed when it is read, and the step before it is used instead.
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
    AVERAGES,
    RECORD,
    Checkpoints,
    StoredStep,
    finish_saving,
    integrity_record,
    write_metrics,
    writing,
)

DAMAGED = "checkpoints_damaged"  # name of a folder next to the folder of checkpoints


def save_checkpoint(
    manager: Checkpoints,
    step: int,
    *,
    variables: Variables,
    optimizer: dict[str, Any],
    data: dict[str, Any],
    info: dict[str, Any],
) -> None:
    """Starts to write one step; `weights.finish_saving` waits until it is complete. All processes must call it.

    Waits for the step before it, and returns as soon as the arrays are copied to the host.

    Args:
      manager: the open checkpoints, from `weights.open_checkpoints`.
      step: the number of updates done; names the step's folder.
      variables: {"params", "batch_stats"} of the network, on the host or replicated on all devices.
      optimizer: the optimizer's state as a dict of trees of arrays; on the host or replicated. An entry "averages", a
        tree like `variables`, becomes a separate item, which `weights.load_checkpoint` prefers to the variables.
      data: the data iterator's state, a JSON object.
      info: the run's description, a JSON object with at least "config" (with the section "model") and "class_names".

    Raises:
      InputError: if this step or the one before it could not be written, or the folder has disappeared.
    """
    finish_saving(manager)
    if not in_bucket(manager.folder) and not manager.folder.is_dir():
        raise InputError(
            f"{manager.folder} was removed or renamed while the run wrote to it; move it back and run the same "
            "command again, or use another --workdir"
        )
    arrays, texts = _array_items(variables, optimizer), {"data": data, "info": info}
    texts[RECORD] = integrity_record(arrays, texts)
    args = ocp.args.Composite(
        **{name: ocp.args.StandardSave(tree) for name, tree in arrays.items()},
        **{name: ocp.args.JsonSave(value) for name, value in texts.items()},
    )
    writing(manager, lambda: manager.save(step, args=args))


def add_metrics(manager: Checkpoints, step: int, metrics: dict[str, float]) -> None:
    """Adds the scores of an evaluation to a step that is already saved. All processes must call it.

    Scores are added later so that the step is on the disk before its evaluation starts, which takes long.

    Args:
      manager: the open checkpoints, from `weights.open_checkpoints`.
      step: a step that `save_checkpoint` has started to write; waits until it is complete.
      metrics: the scores by name; "mean_iou" decides which step counts as the best.

    Raises:
      InputError: if the step or its scores cannot be written.
    """
    finish_saving(manager)
    if jax.process_index() == 0:
        write_metrics(manager.folder / str(step), metrics)
    _wait_for_all("metrics are written")
    manager.reload()


def restore_newest(
    manager: Checkpoints, variables: Variables, optimizer: dict[str, Any]
) -> tuple[int, Variables, dict[str, Any], dict[str, Any]] | None:
    """Returns the newest step that can be read.

    Newer steps that are damaged are moved to the folder `checkpoints_damaged` next to the folder of checkpoints, with
    a warning on stderr.

    Args:
      manager: the open checkpoints, from `weights.open_checkpoints`.
      variables: a tree of arrays with the expected structure, shapes and dtypes; its values are not used.
      optimizer: the same for the optimizer's state, with "averages" if the step has them.

    Returns:
      The step, the variables, the optimizer's state and the data iterator's state, or None if there are no steps. The
      arrays are NumPy arrays: they are on no device, so that a step on any number of devices can take them.

    Raises:
      InputError: if there are steps, but none of them can be read.
    """
    damaged: dict[int, str] = {}
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            stored = StoredStep(manager.folder / str(step))
            stored.json("info")
            data = stored.json("data")
            items = _array_items(variables, optimizer)
            arrays = jax.device_get({name: stored.arrays(name, shapes) for name, shapes in items.items()})
        except Exception as error:  # damaged files make Orbax, TensorStore and JSON raise almost anything
            damaged[step] = one_line(error)
            continue
        _set_aside(manager, damaged)
        found = arrays["optimizer"]
        if AVERAGES in arrays:
            found = {**found, AVERAGES: arrays[AVERAGES]}
        return step, arrays["variables"], found, data
    if damaged:
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        raise InputError(
            f"no checkpoint in {manager.folder} can be read ({reasons}); use another --workdir to start a new run"
        )
    return None


def _array_items(variables: Variables, optimizer: dict[str, Any]) -> dict[str, Any]:
    """Returns {item: tree of arrays} of a step; the averages are an item beside the rest of the optimizer's state."""
    if AVERAGES not in optimizer:
        return {"variables": variables, "optimizer": optimizer}
    rest = {name: tree for name, tree in optimizer.items() if name != AVERAGES}
    return {"variables": variables, "optimizer": rest, AVERAGES: optimizer[AVERAGES]}


def _set_aside(manager: Checkpoints, damaged: dict[int, str]) -> None:
    """Moves damaged steps, {step: reason}, out of the folder of checkpoints; adds a number to a name that exists."""
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
                f"warning: the checkpoint of step {step} cannot be read ({reason}); it was moved to {target}",
                file=sys.stderr,
            )
    _wait_for_all("damaged checkpoints are set aside")
    manager.reload()


def _wait_for_all(what: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
