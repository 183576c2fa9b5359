"""The folder of a run: its resolved config, and the refusal to continue it with another one."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path

# Keys that may change between two starts of a run: they do not change what it computes up to the steps already done.
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
    "inference.ensemble_checkpoint",
    "inference.batch_size",
    "data.data_dir",
    "data.cache_mb",
    "data.read_threads",
    "data.workers",
)
# Keys that change what comes, but with which the saved state still makes sense; accepted if the user says so.
ACCEPTABLE = ("optimizer.", "micro_batch", "bn_group", "caffe_gradients", "all_reduce_dtype", "class_balance")
ACCEPTABLE += ("model.dtype", "model.bn_momentum", "data.eval_split")
ACCEPTABLE += ("inference.mode", "inference.aggregation", "inference.flip", "inference.max_side")  # of evaluations
# Keys that older runs lack, with what those did.
SINCE = {"data.zoom": [1.0, 1.0], "data.inside_image": False, "model.unpooling": "indices", "model.batch_norm": True}


def claim_workdir(workdir: str | Path, config: Mapping[str, Any], accept_changes: bool = False) -> Path:
    """Creates the folder and writes `config.json`, or checks that the run in it has the same config.

    With several processes the first one writes.

    Args:
      workdir: the run's folder.
      config: nested dict of JSON values, all of them resolved.
      accept_changes: go on with changed settings of learning and arithmetic (`ACCEPTABLE`), too.

    Returns:
      The folder.

    Raises:
      InputError: if the folder holds a run with another config (the differing keys are named), or is a file.
    """
    workdir = user_path(workdir, "--workdir")
    config = json.loads(json.dumps(config))  # tuples become lists, as in the file
    path = workdir / "config.json"
    if path.exists():
        _check_same(workdir, _read(path), config, accept_changes)
    if jax.process_index() > 0:
        return workdir
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name("config.json.tmp")
        temporary.write_text(json.dumps(config, indent=2) + "\n")
        temporary.replace(path)  # so that the file is never half-written
    except OSError as error:
        raise InputError(f"--workdir={workdir}: cannot be written ({error.strerror}); give another folder") from error
    return workdir


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON; delete the folder or give another --workdir") from error


def _check_same(workdir: Path, old: Mapping[str, Any], new: Mapping[str, Any], accept_changes: bool) -> None:
    old, new = flatten(old), flatten(new)
    old = {**{key: value for key, value in SINCE.items() if key in new}, **old}
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and not key.startswith(HARMLESS)]
    refused = [key for key in changed if not (accept_changes and key.startswith(ACCEPTABLE))]
    changes = "; ".join(f"{key} is {old.get(key)!r} there and {new.get(key)!r} now" for key in refused or changed)
    if refused:
        remedy = "give another --workdir to start anew"
        if all(key.startswith(ACCEPTABLE) for key in refused):
            remedy += ", or --accept_changes to go on with it"
        raise InputError(f"--workdir={workdir} belongs to another config: {changes}; {remedy}")
    if changed and jax.process_index() == 0:
        print(f"going on with another config: {changes}", file=sys.stderr)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
