"""From a config to data: which data set, which split, which windows of it, and batches of crops."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import tensorflow_datasets as tfds

from deconvnet_jax import data
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.images import image_digests
from deconvnet_jax.processes import first_process_first, say

from ..configs import default
from . import cli
from .scripts import command

_NAMED_BY = ("dataset", "voc_root", "data_dir")  # keys of config.data


@dataclass(frozen=True)
class TrainingData:
    """The data of a training, opened once; what trains, evaluates, calibrates or shows crops is handed this.

    Attributes:
      config: of the training, with the number of classes.
      class_names: in the order of their ids.
      builder: of the packed data.
      trained: images of the training split.
      windows: of these images, rare classes not yet repeated.
    """

    config: ml_collections.ConfigDict
    class_names: tuple[str, ...]
    builder: tfds.core.DatasetBuilder
    trained: data.DatasetSplit
    windows: data.Windows

    @cached_property
    def evaluated(self) -> data.DatasetSplit:
        """Images of the evaluation split."""
        return data.open_split(self.builder, self.config.data.eval_split)

    @cached_property
    def repeated(self) -> data.Windows:
        """The windows, those of rare classes repeated as the config says."""
        return data.repeat_rare(self.windows, self.config.data.balance, self.config.seed)

    def batches(self, batch_size: int) -> data.TrainingBatches:
        """Returns batches of augmented crops of this process; `batch_size` crops each."""
        return data.training_batches(
            self.trained,
            self.repeated,
            data.CropSettings(**{field.name: self.config.data[field.name] for field in fields(data.CropSettings)}),
            batch_size=batch_size,
            seed=self.config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )


def open_training_data(
    config: ml_collections.ConfigDict, opened: TrainingData | None = None, scored: bool = False
) -> TrainingData:
    """Opens what a config trains on; with several processes, the first one packs it while the others wait.

    Args:
      config: of the training, checked (`settings.checked`).
      opened: of another stage; its data set is used again if both configs name the same.
      scored: whether the evaluation split must be there.

    Raises:
      InputError: for data that cannot be used.
    """
    config = resolve_data(config)
    if opened is not None and all(config.data[key] == opened.config.data[key] for key in _NAMED_BY):
        builder = opened.builder
    else:
        builder = open_dataset(config)
    if scored:
        data.split_parts(builder, config.data.eval_split)
    trained = data.open_split(builder, config.data.train_split)
    return TrainingData(config, class_names(config), builder, trained, windows_of(config, builder, trained))


def data_config(
    config: ml_collections.ConfigDict | None,
    trained_with: dict[str, Any],
    overrides: dict[str, str],
    changes: dict[str, Any] | None = None,
) -> ml_collections.ConfigDict:
    """Returns the config that names the data: the given one, or else the defaults with the data of the training run.

    Args:
      config: that was named, or None.
      trained_with: the config in the checkpoint.
      overrides: keys of its section "data" with their values, from flags of their own.
      changes: keys (--config.KEY=VALUE) of a config that was not named.

    Raises:
      InputError: if the config in the checkpoint is damaged.
    """
    if config is None:
        try:
            chosen = _with_data_of(trained_with)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"the checkpoint's config is damaged ({' '.join(str(error).split())[:99]}); name data: --config=FILE"
            ) from error
        chosen.update_from_flattened_dict(changes or {})
    else:
        chosen = config.copy_and_resolve_references()
    chosen.data.update(overrides)
    if "voc_root" in overrides and "dataset" not in overrides:
        chosen.data.dataset = "voc_layout"
    return chosen


def _with_data_of(trained_with: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the defaults with the data of a training run, as far as its settings still exist."""
    config = default.get_config()
    saved = {key: value for key, value in trained_with.get("data", {}).items() if value is not None}
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
    config.data.update({key: value for key, value in known.items() if key in config.data})
    config.seed = trained_with.get("seed", config.seed)  # of the order of crops
    return config


def resolve_data(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a copy of a checked config with the folder of packed data and the number of classes filled in.

    Raises:
      InputError: if no data is named, or it has another number of classes than `config.model.num_classes`.
    """
    check_named(config)
    config = config.copy_and_resolve_references()
    config.data.data_dir = config.data.data_dir or default_data_dir()
    found = len(class_names(config))
    if config.model.num_classes not in (None, found):
        hint = " (classes.txt, or VOC's 21 without it)" if config.data.dataset == "voc_layout" else ""
        raise InputError(
            f"config.model.num_classes={config.model.num_classes}, but {described(config)} has {found} classes{hint}; "
            "leave the key out or correct it"
        )
    config.model.num_classes = found
    return config


def check_named(config: ml_collections.ConfigDict) -> None:
    """Raises InputError unless the settings name data."""
    if config.data.dataset == "voc_layout" and not config.data.voc_root:
        raise InputError("no data: give --config.data.voc_root=FOLDER, a folder with JPEGImages and SegmentationClass")
    if config.data.dataset != "voc_layout" and config.data.voc_root:
        raise InputError(
            f"config.data.voc_root and config.data.dataset={config.data.dataset} exclude each other: leave one out"
        )


def default_data_dir() -> str:
    """Returns the folder in which TFDS keeps its copies of data sets."""
    folder = os.environ.get("TFDS_DATA_DIR", "").strip() or "~/tensorflow_datasets"
    return str(user_path(folder, "TFDS_DATA_DIR", in_bucket=True).absolute())


def described(config: ml_collections.ConfigDict) -> str:
    """Returns the data's name for messages: its folder, or the data set."""
    return config.data.voc_root or config.data.dataset


def class_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the classes of the config's data, in the order of their ids."""
    if config.data.dataset == "voc_layout":
        return data.class_names(config.data.voc_root)
    return data.downloaded(config.data.dataset).class_names


def open_dataset(config: ml_collections.ConfigDict) -> tfds.core.DatasetBuilder:
    """Returns the config's data, ready to read; the first process checks and packs a folder in the VOC layout.

    Raises:
      InputError: for data that is not prepared, or a folder that cannot be used.
    """

    def opened() -> tfds.core.DatasetBuilder:
        if config.data.dataset == "voc_layout":
            return packed_folder(config.data.voc_root, config.data.data_dir)
        return data.downloaded(config.data.dataset).prepare(None, config.data.data_dir)

    return first_process_first(opened)


def packed_folder(voc_root: str | Path, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """Runs `data.prepare_voc_layout` with a progress bar while it checks and packs."""
    with cli.ProgressBar("checking and packing") as bar:
        return data.prepare_voc_layout(voc_root, data_dir, bar.update, lambda text: say(f"warning: {text}"))


def windows_of(
    config: ml_collections.ConfigDict, builder: tfds.core.DatasetBuilder, source: data.Source
) -> data.Windows:
    """Returns the windows that the config says to train on, rare classes not yet repeated.

    Raises:
      InputError: if there is nothing to train on, or a file that it takes is missing or not usable.
    """
    chosen = config.data
    if chosen.window_list:
        return data.listed_windows(chosen.window_list, source)
    return data.training_windows(
        source,
        chosen.windows,
        image_factor=chosen.resize_size / chosen.crop_size,
        proposals=proposals_of(config, builder, source) if "proposal" in chosen.windows else None,
        min_overlap=chosen.min_overlap,
    )


def proposals_of(
    config: ml_collections.ConfigDict, builder: tfds.core.DatasetBuilder, source: data.Source
) -> Sequence[np.ndarray]:
    """Returns the proposals of every image of the source, boxes [n, 4].

    Raises:
      InputError: if they are not yet computed, or the config's file has none for an image.
    """
    split = config.data.train_split
    if config.data.proposals:
        indices = range(len(source))
        names, sizes = [source.name(i) for i in indices], [source.size(i) for i in indices]
        return data.read_proposals(config.data.proposals, names, sizes, image_digests(source))
    if not all(proposals_file(builder, part).exists() for part in data.split_parts(builder, split)):
        root = f"--voc_root={config.data.voc_root} " if config.data.voc_root else ""
        raise InputError(
            f"no proposals of the split '{split}' yet; compute them: {command('prepare_data')} "
            f"--dataset={config.data.dataset} {root}--data_dir={config.data.data_dir} --proposals={split}"
        )
    return packed_proposals(builder, split)


def proposals_file(builder: tfds.core.DatasetBuilder, part: str) -> Path:
    """Returns where `prepare_data` keeps the proposals of a stored split (`data.split_parts`)."""
    return Path(builder.data_path) / "proposals" / f"{part}.npz"


def packed_proposals(builder: tfds.core.DatasetBuilder, split: str) -> list[np.ndarray]:
    """Returns the boxes [n, 4] of every image of a split, from the files that `prepare_data` made."""
    boxes = []
    for part in data.split_parts(builder, split):
        images = data.open_split(builder, part)
        boxes += data.read_proposals(proposals_file(builder, part), [images.name(i) for i in range(len(images))])
    return boxes


def compute_packed_proposals(
    builder: tfds.core.DatasetBuilder,
    part: str,
    method: str = "network",
    forest: str | None = None,
    processes: int | None = None,
) -> Path:
    """Computes the proposals of a stored split (`data.compute_proposals`); returns their file."""
    path = proposals_file(builder, part)
    path.parent.mkdir(exist_ok=True)
    with cli.ProgressBar(f"proposals of {part}") as bar:
        data.compute_proposals(
            data.open_split(builder, part),
            path,
            method=method,
            forest=forest,
            processes=processes,
            progress=bar.update,
        )
    return path


def prepare_scenes(data_dir: Path, train: int, val: int, seed: int) -> tfds.core.DatasetBuilder:
    """Draws the scenes into data_dir/scenes and packs them under data_dir/tfds."""
    with cli.ProgressBar("drawing scenes") as bar:
        data.write_scenes(data_dir / "scenes", train, val, seed, bar.update)
    return packed_folder(data_dir / "scenes", data_dir / "tfds")
