"""The folder of a run: its resolved config, and the refusal to continue it with another one."""

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

# What a resumed run may change. Each entry is a whole key, or a section with a dot at its end. A change of any other
# setting is refused.
#
# HARMLESS settings may change between two starts: they do not change what the steps already done have computed.
HARMLESS = (
    "num_steps",
    "log_every",
    "eval_every",
    "eval_images",
    "checkpoint_every",
    "profile",
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
    "data.data_dir",
    "data.cache_mb",
    "data.read_threads",
    "data.workers",
)
# ACCEPTABLE settings change the steps to come, and the saved state still fits. They need --accept_changes.
ACCEPTABLE = ("optimizer.", "micro_batch", "bn_group", "caffe_gradients", "all_reduce_dtype", "class_balance")
ACCEPTABLE += ("model.dtype", "model.bn_momentum", "data.eval_split", "data.voc_root")
ACCEPTABLE += ("inference.mode", "inference.aggregation", "inference.flip", "inference.max_side")  # of evaluations
# Settings that are newer than some runs, with the value that those runs used. Each new setting belongs here, unless it
# is harmless: a run from before it resumes only with this value.
SINCE = {"data.zoom": [1.0, 1.0], "data.inside_image": False, "model.unpooling": "indices", "model.batch_norm": True}


GROUP_SIZE = "bn_group"  # in a checkpoint's description: crops that share batch statistics


@contextlib.contextmanager
def locked_workdir(workdir: Path) -> Iterator[None]:
    """Holds the lock of a run's folder; with several processes the first one does.

    Raises:
      InputError: if another program writes to the folder.
    """
    with locked(workdir, f"--workdir={workdir}") if jax.process_index() == 0 else contextlib.nullcontext():
        yield


def claim_workdir(workdir: str | Path, config: Mapping[str, Any], accept_changes: bool = False) -> Path:
    """Creates the folder and writes `config.json`, or checks that the run in it has the same config.

    The config of a run is that of its newest checkpoint; without one, that in `config.json`. With several processes
    the first one writes.

    Args:
      workdir: the run's folder.
      config: nested dict of JSON values, all of them resolved.
      accept_changes: resume with changed settings of learning and arithmetic (`ACCEPTABLE`), too.

    Returns:
      The folder.

    Raises:
      InputError: if the folder holds a run with another config (the differing keys are named), or is a file.
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
                f"--workdir={workdir}: cannot be written ({error.strerror}); give another folder"
            ) from error
        write_text(path, json.dumps(config, indent=2) + "\n")
    return workdir


def _stored_config(path: Path, info: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the config of the run in a folder, flat, or None if there is no run.

    Args:
      path: of config.json.
      info: the newest checkpoint's description.
      new: the config of this start, flat: changes of acceptable settings that config.json has, too, were accepted.
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
            print(f"warning: {path} cannot be read ({damage}); written again, no step is saved yet", file=sys.stderr)
        return written
    if written is None and jax.process_index() == 0:
        print(f"warning: {path} cannot be read ({damage}); the newest checkpoint has the config", file=sys.stderr)
    accepted = [key for key in new if _listed(key, ACCEPTABLE) and written and written.get(key) == new[key]]
    return {**flatten(info["config"]), **{key: new[key] for key in accepted}}


def _check_same(workdir: Path, old: dict[str, Any], new: dict[str, Any], accept_changes: bool) -> None:
    old = {**{key: value for key, value in SINCE.items() if key in new}, **old}
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and not _listed(key, HARMLESS)]
    refused = [key for key in changed if not (accept_changes and _listed(key, ACCEPTABLE))]
    changes = "; ".join(f"{key} is {old.get(key)!r} there and {new.get(key)!r} now" for key in refused or changed)
    if refused:
        remedies = ["another --workdir to start anew"]
        if "bn_group" in refused and "bn_group" in old:
            remedies.insert(0, f"--config.bn_group={old['bn_group']} to keep the groups for batch statistics")
        if all(_listed(key, ACCEPTABLE) for key in refused):
            remedies.append("or --accept_changes to go on with it")
        raise InputError(f"--workdir={workdir} belongs to another config: {changes}; give {', '.join(remedies)}")
    if changed and jax.process_index() == 0:
        print(f"going on with another config: {changes}", file=sys.stderr)


def _listed(key: str, entries: tuple[str, ...]) -> bool:
    """Returns whether a key, or its section, is one of the entries."""
    return any(key == entry or (entry.endswith(".") and key.startswith(entry)) for entry in entries)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
