"""Checks the files and folders that a program writes to, before its work starts."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from deconvnet_jax.buckets import Address, check_writable
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import looked_in, not_written, user_path, write_text
from deconvnet_jax.training import flatten
from deconvnet_jax.training.workdir import SINCE

RUN_FILE = "run.json"
OLDER = {**SINCE, "averages": True}  # {a key that older notes lack: its value then}
RESULTS = ("metrics.json", "results", "labels")  # Every folder of an evaluation holds one of them.


def output_folder(path: str | Path) -> Path:
    """Returns a folder for results. It is made if it does not exist.

    Args:
      path: The folder that --output names; it may be in a bucket.

    Raises:
      InputError: if the path is empty or a file, or if nothing can be written there.
    """
    folder = user_path(path, "--output", in_bucket=True)
    try:  # Fails now rather than after the work.
        if isinstance(folder, Address):
            check_writable(folder)
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--output={path} cannot be a folder for results ({error.strerror}); name another") from error
    return folder


def output_file(path: str | Path, flag: str, suffix: str = "") -> Path:
    """Returns the path of a file after checking that it can be written.

    Args:
      path: The file, in a folder that exists.
      flag: The flag that names it, such as "--json", for messages.
      suffix: The suffix that its name must have, such as ".png"; "" for any.

    Raises:
      InputError: for another suffix, a folder in place of the file, or a folder that does not exist or is read-only.
    """
    file = user_path(path, flag)
    if not file.parent.is_dir():
        raise InputError(f"{flag}={path}: there is no folder {file.parent}{looked_in(file.parent)}; make it first")
    if (suffix and file.suffix.lower() != suffix) or file.is_dir():
        expected = f"the name of a file that ends in {suffix}" if suffix else "the name of a file"
        raise InputError(f"{flag}={path}: expected {expected}")
    with not_written(file), tempfile.TemporaryFile(dir=file.parent):
        return file


def claim_output(folder: Path, description: dict[str, Any]) -> None:
    """Notes in a folder which results it holds, in run.json. It refuses a folder with other results.

    Args:
      folder: The folder for results.
      description: What the results come from, as JSON values. "step" and "split" are those of metrics.json.

    Raises:
      InputError: if the folder holds results of something else. The message names the keys that differ.
    """
    path = folder / RUN_FILE
    new = flatten(json.loads(json.dumps(description)))
    found = _read_object(path)
    if found is None and path.exists():
        print(f"warning: {path} is damaged and is written again; results in its folder are replaced", file=sys.stderr)
        scores = _read_object(folder / "metrics.json") or {}
        found = {**new, **{key: scores[key] for key in ("step", "split") if key in scores}}
    elif found is None:
        taken = [name for name in RESULTS if (folder / name).exists()]
        if taken:
            raise InputError(f"--output={folder} holds other results already ({taken[0]}); name another folder")
        found = new
    old = {**{key: value for key, value in OLDER.items() if key in new}, **flatten(found)}
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if changed:
        differences = "; ".join(f"{key} is {old.get(key)!r} there and {new.get(key)!r} now" for key in changed)
        raise InputError(f"--output={folder} holds results of another evaluation: {differences}; name another folder")
    write_text(path, json.dumps(description, indent=2) + "\n")


def _read_object(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in a file; None if there is no file or no valid object in it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
