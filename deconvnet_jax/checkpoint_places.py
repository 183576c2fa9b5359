"""Finds folders of checkpoints and their finished steps, without Orbax or JAX, so that it takes no time."""

import difflib
from pathlib import Path

from deconvnet_jax.errors import InputError
from deconvnet_jax.file_kinds import file_kind, wrong_kind
from deconvnet_jax.files import as_path, in_bucket, looked_in

_WRITTEN_LAST = "commit_success.txt"  # the last object that Orbax writes for a step in a bucket
_MOST_FOLDERS = 200  # folders that are looked into for the message about a missing checkpoint


def finished_steps(directory: Path) -> list[int]:
    """Returns the steps in a folder of checkpoints that are completely written, in ascending order.

    On a disk, Orbax gives a step its name only when it is complete. In a bucket, which has no renames, a step is
    complete when it has the object that Orbax writes last. A folder that does not exist has no steps.
    """
    if not directory.is_dir():
        return []
    found = [c for c in directory.iterdir() if c.name.isdecimal() and c.name.isascii()]
    last = in_bucket(directory)
    return sorted(int(c.name) for c in found if ((c / _WRITTEN_LAST).exists() if last else c.is_dir()))


def has_checkpoint(directory: str | Path) -> bool:
    """Returns whether a folder of checkpoints holds a completely written step."""
    return bool(finished_steps(as_path(directory)))


def checkpoint_directory(path: Path) -> Path:
    """Returns the folder of checkpoints that a user means by the folder of a run or by this folder itself.

    Args:
      path: the folder that the user gave, from `files.user_path`.

    Returns:
      `path` or its subfolder "checkpoints", whichever has a finished step.

    Raises:
      InputError: if neither has one. The message names a run that may be meant: beside `path` under a similar name,
        above it, or in it.
    """
    if (found := _directory(path)) is not None:
        return found
    if path.is_file():
        raise InputError(wrong_kind(path, file_kind(path), "a folder of checkpoints"))
    near = _run_near(path)
    where = "" if path.exists() else looked_in(path)
    raise InputError(
        f"no checkpoint in {path}{where and f' (looked for{where})'}; expected the 'checkpoints' folder of a training "
        f"run, with one folder per step{f'; did you mean {near}?' if near else ''}"
    )


def _directory(path: Path) -> Path | None:
    return next((directory for directory in (path / "checkpoints", path) if has_checkpoint(directory)), None)


def _run_near(path: Path) -> Path | None:
    """Returns the folder of a run beside `path` under a similar name, above it, or in it; None in a bucket."""
    if in_bucket(path):
        return None
    try:
        folders = [each for each in sorted(path.iterdir())[:_MOST_FOLDERS] if each.is_dir()] if path.is_dir() else []
        beside = {each.name: each for each in sorted(path.parent.iterdir())} if path.parent.is_dir() else {}
        similar = [beside[name] for name in difflib.get_close_matches(path.name, beside) if beside[name] != path]
        above = [each for each in (path.parent, path.parent.parent) if each.name not in ("", "checkpoints")]
        return next((each for each in (*similar, *above, *folders) if _directory(each) is not None), None)
    except OSError:  # A folder that cannot be read is not suggested.
        return None
