"""Checks, without JAX, that the files which a config needs are named and exist; a program can do it first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from deconvnet_jax.checkpoint_places import checkpoint_directory, has_checkpoint
from deconvnet_jax.errors import InputError
from deconvnet_jax.file_kinds import GET_VGG16
from deconvnet_jax.files import in_bucket, looked_in, user_path


def check_training(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Checks the files of a training: its data and, for a new run, the weights that it starts from.

    A run that resumes does not need the weights any more. Files in buckets are not checked here. Settings of a wrong
    type are ignored, because the check of all settings reports them.

    Args:
      config: Config of the training, with or without a section `stage1`.
      workdir: Folder of the run.

    Raises:
      InputError: for the first file that does not exist, or for frozen layers without a file of weights.
    """
    first = config.get("stage1")
    if isinstance(first, ml_collections.ConfigDict):
        _check_start(first, workdir / "stage1")
        check_data(first)
    else:
        _check_start(config, workdir)
    check_data(config)


def _check_start(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Checks the weights that a stage starts from, unless the stage resumes."""
    start, vgg16 = _path(config, "init_from"), _path(config, "init.vgg16")
    both = start is not None and (vgg16 is not None or _value(config, "init.keep_features"))
    if both or has_checkpoint(workdir / "checkpoints"):
        return  # Two sources exclude each other, which is reported later.
    if _value(config, "init_from") is None and _value(config, "init.vgg16") is None:
        _check_random_start(config)
    if start is not None:
        checkpoint_directory(start)
    # A TensorFlow checkpoint NAME is stored as NAME.index and more; the reader says what to do with it.
    if vgg16 is not None and not vgg16.with_name(f"{vgg16.name}.index").exists():
        _check_exists("init.vgg16", vgg16, f"correct the name, or {GET_VGG16}")


def _check_random_start(config: ml_collections.ConfigDict) -> None:
    """Raises InputError if layers would keep random weights; FCN-8s' upsampling starts as interpolation instead."""
    prefixes = _value(config, "optimizer.freeze")
    names = [each for each in prefixes if isinstance(each, str)] if isinstance(prefixes, (list, tuple)) else []
    frozen = [each for each in names if not each.startswith("upsample")]
    if frozen:
        raise InputError(
            f"config.optimizer.freeze would keep the layers {', '.join(frozen)} at random weights; give trained ones "
            f"with --config.init.vgg16=FILE ({GET_VGG16}) or --config.init_from=FOLDER"
        )


def check_data(config: ml_collections.ConfigDict) -> None:
    """Checks the data of a config: its folder, and the files of windows and proposals that it uses.

    Args:
      config: A config with a section `data`.

    Raises:
      InputError: for the first file or folder that does not exist.
    """
    root, windows, proposals = (_path(config, f"data.{key}") for key in ("voc_root", "window_list", "proposals"))
    if root is not None and _value(config, "data.dataset") == "voc_layout":
        _check_exists("data.voc_root", root, "give the folder that holds JPEGImages, SegmentationClass and ImageSets")
    if windows is not None:
        _check_exists("data.window_list", windows)
    elif proposals is not None and "proposal" in (_value(config, "data.windows") or ()):
        _check_exists("data.proposals", proposals)


def check_prediction(
    checkpoint: Path, config: ml_collections.ConfigDict | None, changes: Mapping[str, Any] | None
) -> None:
    """Checks the checkpoint of a prediction, and that of a second network.

    Args:
      checkpoint: Folder of the checkpoint.
      config: Config whose section `inference` may name a second network; None if none is given.
      changes: Settings that --config.KEY=VALUE gives, by their keys.

    Raises:
      InputError: if a folder on a disk has no checkpoint.
    """
    key = "inference.ensemble_checkpoint"
    second = (changes or {}).get(key) or (_value(config, key) if config is not None else None)
    for folder in (checkpoint, user_path(second, key, in_bucket=True) if isinstance(second, str) and second else None):
        if folder is not None and not in_bucket(folder):
            checkpoint_directory(folder)


def _value(config: ml_collections.ConfigDict, key: str) -> Any:
    """Returns the value of a setting; None if the config does not have it."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, ml_collections.ConfigDict) else None
    return value


def _path(config: ml_collections.ConfigDict, key: str) -> Path | None:
    """Returns the path that a setting names; None for no path, a value of a wrong type and an address in a bucket."""
    value = _value(config, key)
    if not isinstance(value, str):
        return None
    path = user_path(value, f"config.{key}", in_bucket=True)
    return None if in_bucket(path) else path


def _check_exists(key: str, path: Path, remedy: str = "correct the name") -> None:
    if not path.exists():
        raise InputError(f"config.{key}={path}: no such file or folder{looked_in(path)}; {remedy}")
