"""The folder that a program writes its results to."""

from pathlib import Path

from deconvnet_jax.errors import InputError


def output_folder(path: str | Path) -> Path:
    """The folder `path`, made if there is none.

    Raises:
      InputError: if that is a file, or cannot be made.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output={path} cannot be a folder ({error.strerror}); name another") from error
    return folder
