"""The folder of a run: its resolved config, and the refusal to continue it with another one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deconvnet_jax.errors import InputError

# Keys that may change between two starts of a run: they do not change what it computes up to the steps already done.
HARMLESS = (
    "num_steps",
    "log_every",
    "eval_every",
    "eval_images",
    "checkpoint_every",
    "data.data_dir",
    "data.cache_mb",
    "data.read_threads",
    "data.workers",
)


def claim_workdir(workdir: str | Path, config: Mapping[str, Any]) -> Path:
    """Creates the folder and writes `config.json`, or checks that the run in it has the same config.

    Args:
      workdir: the run's folder.
      config: nested dict of JSON values, all of them resolved.

    Returns:
      The folder.

    Raises:
      InputError: if the folder holds a run with another config (the differing keys are named), or is a file.
    """
    workdir = Path(workdir)
    config = json.loads(json.dumps(config))  # tuples become lists, as in the file
    path = workdir / "config.json"
    if path.exists():
        _check_same(workdir, _read(path), config)
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


def _check_same(workdir: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    old, new = flatten(old), flatten(new)
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and key not in HARMLESS]
    if keys:
        changes = "; ".join(f"{key} is {old.get(key)!r} there and {new.get(key)!r} now" for key in keys)
        raise InputError(
            f"--workdir={workdir} belongs to another config: {changes}; give another --workdir to start anew"
        )


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
