"""Checkpoints of a run: one Orbax step holds variables, optimizer, data iterator and the run's description, apart.

Steps are written atomically by Orbax, in the background: a half-written one is never listed. Checksums of all arrays
are kept with them, so that a damaged step is found when it is read, and the one before it is used.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax
from jax.experimental import multihost_utils

from deconvnet_jax.errors import InputError
from deconvnet_jax.weights import first_line, on_this_device

DAMAGED = "checkpoints_damaged"  # beside the folder of checkpoints


def save_checkpoint(
    manager: ocp.CheckpointManager,
    step: int,
    *,
    variables: chex.ArrayTree,
    optimizer: chex.ArrayTree,
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
    args = ocp.args.Composite(
        variables=ocp.args.StandardSave(variables),
        optimizer=ocp.args.StandardSave(optimizer),
        checksums=ocp.args.JsonSave(checksums({"variables": variables, "optimizer": optimizer})),
        data=ocp.args.JsonSave(data),
        info=ocp.args.JsonSave(info),
    )
    _writing(manager, lambda: manager.save(step, args=args))


def finish_saving(manager: ocp.CheckpointManager) -> None:
    """Waits until the last step is on the disk.

    Raises:
      InputError: if it could not be written.
    """
    _writing(manager, manager.wait_until_finished)


def add_metrics(manager: ocp.CheckpointManager, step: int, metrics: dict[str, float]) -> None:
    """Adds the scores of a step that is saved, as Orbax would have written them with it; all processes call it.

    So that a step is on the disk before its evaluation, which takes long, begins.
    """
    finish_saving(manager)
    if jax.process_index() == 0:
        target = Path(manager.directory) / str(step) / "metrics"
        temporary = target.with_name("metrics.tmp")
        temporary.mkdir(exist_ok=True)
        (temporary / "metrics").write_text(json.dumps(metrics))
        temporary.rename(target)
    _wait_for_all("metrics are written")
    manager.reload()


def _writing(manager: ocp.CheckpointManager, write: Callable[[], Any]) -> None:
    try:
        write()
    except Exception as error:  # TensorStore reports a full disk as ValueError, others as what they like
        full = "No space left" in str(error) or "File too large" in str(error) or "RESOURCE_EXHAUSTED" in str(error)
        kept = manager.all_steps(read=True)
        raise InputError(
            f"a checkpoint could not be written to {manager.directory} "
            f"({'the disk is full' if full else first_line(error)}); "
            f"{f'the one of step {max(kept)} is intact' if kept else 'there is no earlier one'}: "
            "make room and give the same command again"
        ) from error


def checksums(tree: chex.ArrayTree) -> dict[str, int]:
    """The sum of the bits of every array as 32-bit words, modulo 2 ** 32, by the array's path in the tree."""
    sums = jax.device_get(jax.tree.map(lambda s: s.addressable_data(0), _word_sums(tree)))
    return {jax.tree_util.keystr(path): int(value) for path, value in jax.tree_util.tree_leaves_with_path(sums)}


@jax.jit
def _word_sums(tree: chex.ArrayTree) -> chex.ArrayTree:
    return jax.tree.map(lambda x: jnp.sum(lax.bitcast_convert_type(x, jnp.uint32)), tree)


def restore_newest(
    manager: ocp.CheckpointManager, variables: chex.ArrayTree, optimizer: chex.ArrayTree
) -> tuple[int, chex.ArrayTree, chex.ArrayTree, dict[str, Any]] | None:
    """The newest step that can be read: (step, variables, optimizer state, data iterator state); None without any.

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
            restored = _restore(manager, step, variables, optimizer)
        except Exception as error:  # whatever Orbax, TensorStore and JSON make of damaged files
            damaged[step] = first_line(error)
            continue
        _set_aside(manager, damaged)
        return step, *restored
    if damaged:
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        raise InputError(
            f"no checkpoint in {manager.directory} can be read ({reasons}); give another --workdir to start anew"
        )
    return None


def _restore(
    manager: ocp.CheckpointManager, step: int, variables: chex.ArrayTree, optimizer: chex.ArrayTree
) -> tuple[chex.ArrayTree, chex.ArrayTree, dict[str, Any]]:
    args = ocp.args.Composite(
        variables=ocp.args.StandardRestore(on_this_device(variables)),
        optimizer=ocp.args.StandardRestore(on_this_device(optimizer)),
        checksums=ocp.args.JsonRestore(),
        data=ocp.args.JsonRestore(),
    )
    items = manager.restore(step, args=args)
    arrays = jax.device_get({key: items[key] for key in ("variables", "optimizer")})
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        name = jax.tree_util.keystr(path)
        if int(np.sum(leaf.view(np.uint32), dtype=np.uint32)) != items["checksums"][name]:
            raise ValueError(f"the values of {name} are not those that were written")
    return arrays["variables"], arrays["optimizer"], items["data"]


def _set_aside(manager: ocp.CheckpointManager, damaged: dict[int, str]) -> None:
    if not damaged:
        return
    directory = Path(manager.directory)
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
