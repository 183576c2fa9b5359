"""The folder that a program writes its results to."""

import tempfile
from pathlib import Path

from deconvnet_jax.errors import InputError


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
