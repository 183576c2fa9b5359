"""Claims the folder of a run: writes its config, and refuses to resume the run with another one.

The tables below say which settings a resumed run may change. An entry is a whole key or, with a dot at its end, a
section.
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import locked, user_path, write_text
from deconvnet_jax.training.parallel import group_size
from deconvnet_jax.weights import newest_description

# HARMLESS settings may always change: they do not change what the steps already done have computed.
HARMLESS = (
    "num_steps",
    "log_every",
    "eval_every",
    "eval_images",
    "checkpoint_every",
    "profile",
    "tracker",
    "tracker_project",
    "compilation_cache",
    "remat",
    "calibrate.",
    "inference.num_proposals",
    "inference.proposals",
    "inference.enlarge",
    "inference.crf",
    "inference.crf_sharpness",
    "inference.ensemble_checkpoint",
    "inference.batch_size",
    "data.min_window",  # If it changes the windows, the saved position in the data is refused.
    "data.data_dir",
    "data.cache_mb",
    "data.read_threads",
    "data.workers",
)
# ACCEPTABLE settings change the later steps, but the saved state still fits. They may change with --accept_changes.
ACCEPTABLE = ("optimizer.", "micro_batch", "bn_group", "caffe_gradients", "all_reduce_dtype", "class_balance")
ACCEPTABLE += ("model.dtype", "model.bn_momentum", "data.eval_split", "data.voc_root")
ACCEPTABLE += ("inference.mode", "inference.aggregation", "inference.flip", "inference.max_side")  # used by evaluations
ACCEPTABLE += ("inference.scales",)
# FIXED settings of an acceptable section decide what the saved state consists of, so they never change.
FIXED = ("optimizer.name",)
# {a newer setting: the value that older runs used}. Each new setting belongs here unless it is harmless: a run from
# before the setting existed resumes only with this value.
SINCE = {"data.zoom": [1.0, 1.0], "data.inside_image": False, "model.unpooling": "indices", "model.batch_norm": True}
SINCE |= {f"data.{name}": 0.0 for name in ("rotation", "brightness", "contrast", "saturation", "hue")}
SINCE |= {"inference.scales": [1.0]}
SINCE |= {"ema_decay": 0.0, "optimizer.name": "sgd", "optimizer.b1": 0.9, "optimizer.b2": 0.999, "optimizer.eps": 1e-8}
SINCE |= {"optimizer.warmup_steps": 0, "optimizer.decay_steps": 0, "optimizer.power": 0.9, "optimizer.end_factor": 0.0}


GROUP_SIZE = "bn_group"  # key in a checkpoint's description: the number of crops that share batch statistics


@contextlib.contextmanager
def locked_workdir(workdir: Path) -> Iterator[None]:
    """Returns a context that holds the lock of a run's folder; with several processes only the first one locks it.

    Raises:
      InputError: if another program is using the folder.
    """
    with locked(workdir, f"--workdir={workdir}") if jax.process_index() == 0 else contextlib.nullcontext():
        yield


def claim_workdir(workdir: str | Path, config: Mapping[str, Any], accept_changes: bool = False) -> Path:
    """Creates the folder of a run and writes `config.json`, or checks that the run in it has the same config.

    The config of an existing run is that of its newest checkpoint or, without a checkpoint, that in `config.json`. With
    several processes all check, and only the first one writes.

    Args:
      workdir: the run's folder, which need not exist; may be gs://BUCKET/NAME.
      config: the experiment's settings: nested mappings of JSON values, without placeholders.
      accept_changes: True allows changes of the settings in `ACCEPTABLE`; those in `HARMLESS` may always change.

    Returns:
      The folder, with a leading ~ expanded; a `buckets.Address` if it is in a bucket.

    Raises:
      InputError: if the folder holds a run with another config (the message names the settings), or is a file.
    """
    workdir = user_path(workdir, "--workdir", in_bucket=True)
    config = json.loads(json.dumps(config))  # tuples become lists, as in the file
    path, new = workdir / "config.json", flatten(config)
    info = newest_description(workdir / "checkpoints")
    old = _stored_config(path, info, new)
    if info is not None and old is not None and GROUP_SIZE in info:
        old["bn_group"], new["bn_group"] = info[GROUP_SIZE], group_size(config, jax.device_count())
    if old is not None:
        _check_same(workdir, old, new, accept_changes)
    if jax.process_index() == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--workdir={workdir}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        write_text(path, json.dumps(config, indent=2) + "\n")
    return workdir


def _stored_config(path: Path, info: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the config of the run in a folder, flat, or None if there is no run.

    Args:
      path: the path of config.json.
      info: the newest checkpoint's description, or None.
      new: the config of this start, flat. If config.json already has a new value of an acceptable setting, that change
        was accepted at an earlier start.
    """
    written, damage = None, ""
    try:
        written = flatten(json.loads(path.read_bytes()))
    except FileNotFoundError:
        damage = "it is missing"
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        damage = one_line(error, 100)
    if info is None:
        if written is None and path.exists() and jax.process_index() == 0:
            print(
                f"warning: {path} cannot be read ({damage}); no step is saved yet, so it is replaced", file=sys.stderr
            )
        return written
    if written is None and jax.process_index() == 0:
        print(f"warning: {path} cannot be read ({damage}); using the config of the newest checkpoint", file=sys.stderr)
    accepted = [key for key in new if _acceptable(key) and written and written.get(key) == new[key]]
    return {**flatten(info["config"]), **{key: new[key] for key in accepted}}


def _check_same(workdir: Path, old: dict[str, Any], new: dict[str, Any], accept_changes: bool) -> None:
    old = {**{key: value for key, value in SINCE.items() if key in new}, **old}
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and not _listed(key, HARMLESS)]
    refused = [key for key in changed if not (accept_changes and _acceptable(key))]
    changes = "; ".join(f"{key} was {old.get(key)!r} and is now {new.get(key)!r}" for key in refused or changed)
    if refused:
        remedies = ["another --workdir to start a new run"]
        if "bn_group" in refused and "bn_group" in old:
            remedies.insert(0, f"--config.bn_group={old['bn_group']} to keep the groups for batch statistics")
        if all(map(_acceptable, refused)):
            remedies.append("or --accept_changes to resume with the new value")
        raise InputError(f"--workdir={workdir} holds a run with another config: {changes}; use {', '.join(remedies)}")
    if changed and jax.process_index() == 0:
        print(f"resuming with a changed config: {changes}", file=sys.stderr)


def _acceptable(key: str) -> bool:
    return _listed(key, ACCEPTABLE) and key not in FIXED


def _listed(key: str, entries: tuple[str, ...]) -> bool:
    """Returns whether a key, or its section, is one of the entries."""
    return any(key == entry or (entry.endswith(".") and key.startswith(entry)) for entry in entries)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested config as one flat dict whose keys are joined by dots.

    Args:
      config: nested mappings.
      prefix: put before every key.

    Returns:
      {key: value}; a value that is an empty mapping disappears.

    Example:
      >>> flatten({"seed": 0, "optimizer": {"momentum": 0.9}})
      {'seed': 0, 'optimizer.momentum': 0.9}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
