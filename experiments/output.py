"""The folder that a program writes its results to."""

import json
import tempfile
from pathlib import Path
from typing import Any

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import flatten

RUN_FILE = "run.json"


def output_folder(path: str | Path) -> Path:
    """The folder `path`, made if there is none.

    Raises:
      InputError: if that is empty or a file, or nothing can be written there.
    """
    if not str(path):
        raise InputError("--output is empty; name a folder")
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # better now than after the work
    except OSError as error:
        raise InputError(f"--output={path} cannot be a folder for results ({error.strerror}); name another") from error
    return folder


def claim_output(folder: Path, description: dict[str, Any]) -> None:
    """Notes in a folder whose results it holds, unless it holds others already.

    Args:
      folder: for the results.
      description: of what they come from, JSON.

    Raises:
      InputError: if the folder holds results of something else (the differing keys are named).
    """
    path = folder / RUN_FILE
    described = json.loads(json.dumps(description))
    if not path.exists():
        taken = [name for name in ("metrics.json", "results", "labels") if (folder / name).exists()]
        if taken:
            raise InputError(f"--output={folder} holds other results already ({taken[0]}); name another folder")
        path.write_text(json.dumps(described, indent=2) + "\n")
        return
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON; delete the folder or name another --output") from error
    old, new = flatten(found), flatten(described)
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if changed:
        differences = "; ".join(f"{key} is {old.get(key)!r} there and {new.get(key)!r} now" for key in changed)
        raise InputError(f"--output={folder} holds results of another evaluation: {differences}; name another folder")
