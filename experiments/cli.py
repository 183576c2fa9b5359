"""What the programs in this folder share: start-up, errors as one clear line, settings completed from the data."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import tensorflow_datasets as tfds
from absl import app, flags, logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deconvnet_jax import data
from deconvnet_jax.errors import InputError
from experiments.configs import default


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs an absl program; bad input becomes one line on stderr and exit status 1."""

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.ERROR)  # Orbax and TFDS log what progress bars and our own lines say better
        try:
            main(argv)
        except InputError as error:
            sys.exit(f"error: {error}")
        except OSError as error:  # a full disk, a file that others took away: says which and why
            sys.exit(f"error: {error}")

    def parse(argv: list[str]) -> list[str]:
        try:
            arguments = flags.FLAGS(argv)
            if "config" in flags.FLAGS:  # a file that could not be loaded is an error only when it is looked into
                getattr(flags.FLAGS.config, "to_dict", None)
            return arguments
        except (
            flags.Error,
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            OSError,
            ImportError,
            SyntaxError,
        ) as error:
            # ml_collections reports a misspelt key by one of several exceptions, some of several lines.
            sys.exit(f"error: {' '.join(str(error).split())} (see --help)")

    app.run(guarded, flags_parser=parse)


def no_arguments(argv: Sequence[str]) -> None:
    """Raises InputError for words on the command line that are no flags."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument '{argv[1]}'; settings are given as --config.key=value")


def data_config(
    config: ml_collections.ConfigDict | None, trained_with: dict[str, Any], overrides: dict[str, str]
) -> ml_collections.ConfigDict:
    """The config that names the data: the given one, or else the defaults with the data of the training run."""
    if config is None:
        config = default.get_config()
        saved = {key: value for key, value in trained_with.get("data", {}).items() if value is not None}
        known = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
        overrides = {key: value for key, value in known.items() if key in config.data} | overrides
    config = config.copy_and_resolve_references()
    config.data.update(overrides)
    return config


def resolve_data(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy of the config with absolute paths and the number of classes filled in.

    Raises:
      InputError: if no data is named, or it has another number of classes than `config.model.num_classes`.
    """
    config = config.copy_and_resolve_references()
    if not config.data.voc_root:
        raise InputError("no data: give --config.data.voc_root=FOLDER, a folder with JPEGImages and SegmentationClass")
    config.data.voc_root = str(Path(config.data.voc_root).expanduser().absolute())
    data_dir = config.data.data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    config.data.data_dir = str(Path(data_dir).expanduser().absolute())
    if config.init_from:
        config.init_from = str(Path(config.init_from).expanduser().absolute())
    if config.init.vgg16:
        config.init.vgg16 = str(Path(config.init.vgg16).expanduser().absolute())
    found = len(data.class_names(config.data.voc_root))
    if config.model.num_classes not in (None, found):
        raise InputError(
            f"config.model.num_classes={config.model.num_classes}, but {config.data.voc_root} has {found} classes "
            "(classes.txt, or VOC's 21 without it); leave the key out or correct the file"
        )
    config.model.num_classes = found
    return config


def pipeline_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The arguments of `data.training_batches` that a config decides."""
    keys = ("resize_size", "crop_size", "windows", "label_mode", "mirror", "random_crop")
    return {key: config.data[key] for key in keys} | {"cache_bytes": config.data.cache_mb * 2**20}


def packed_data(voc_root: str | Path, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """`data.prepare_voc_layout` with a progress bar while it checks and packs."""
    with ProgressBar("checking and packing") as bar:
        return data.prepare_voc_layout(voc_root, data_dir, bar.update)


class ProgressBar:
    """A progress bar on stderr that appears with the first update."""

    def __init__(self, text: str):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(text, total=None)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:  # otherwise stopping would write an empty line
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Shows `done` of `total`."""
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total)
