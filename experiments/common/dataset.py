"""Opens the data that a config names: its split, the windows to train on, and batches of crops."""

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
from deconvnet_jax.data.records import check_masks
from deconvnet_jax.data.training_windows import count_small_parts
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.images import image_digests
from deconvnet_jax.processes import first_process_first, say
from deconvnet_jax.terminal import ProgressBar

from ..configs import default
from .scripts import command

_NAMED_BY = ("dataset", "voc_root", "data_dir")  # keys of config.data that name a data set


@dataclass(frozen=True)
class TrainingData:
    """Data of a training, opened once and used by training, evaluation, calibration and `browse_data`.

    Attributes:
      config: Config of the training, with the number of classes filled in.
      class_names: Names of the classes in the order of their ids.
      builder: TFDS builder of the packed data.
      trained: Images of the training split.
      windows: Training windows on these images. Windows of rare classes are not repeated yet.
    """

    config: ml_collections.ConfigDict
    class_names: tuple[str, ...]
    builder: tfds.core.DatasetBuilder
    trained: data.DatasetSplit
    windows: data.Windows

    @cached_property
    def evaluated(self) -> data.DatasetSplit:
        """The images of the evaluation split."""
        return data.open_split(self.builder, self.config.data.eval_split)

    @cached_property
    def repeated(self) -> data.Windows:
        """The windows, with those of rare classes repeated as `config.data.balance` says."""
        return data.repeat_rare(self.windows, self.config.data.balance, self.config.seed)

    @cached_property
    def small_parts(self) -> int:
        """Number of connected parts of class masks that get no window because of `config.data.min_window`."""
        chosen = self.config.data
        of_objects = not chosen.window_list and set(chosen.windows) != {"image"}
        return count_small_parts(self.trained, chosen.min_window) if of_objects else 0

    def batches(self, batch_size: int) -> data.TrainingBatches:
        """Returns this process's stream of augmented crops; it does not end.

        Args:
          batch_size: Crops per batch in this process.
        """
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
    """Opens the data that a config trains on. With several processes, the first one packs it and the others wait.

    Args:
      config: Config of the training, checked (`settings.checked`).
      opened: Data of another stage. If both configs name the same data set, it is used again; None opens it.
      scored: Whether the evaluation split must exist.

    Returns:
      The opened data, with the number of classes filled into its config.

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
    check_masks(builder, config.data.train_split)
    return TrainingData(config, class_names(config), builder, trained, windows_of(config, builder, trained))


def data_config(
    config: ml_collections.ConfigDict | None,
    trained_with: dict[str, Any],
    overrides: dict[str, str],
    changes: dict[str, Any] | None = None,
) -> ml_collections.ConfigDict:
    """Returns a config that names data: the given one, or else the defaults with the data of the training run.

    Args:
      config: The config that --config names, or None.
      trained_with: The config in the checkpoint.
      overrides: Values for keys of the section `data`, from --split, --voc_root and --data_dir.
      changes: Settings that --config.KEY=VALUE gives. They count only if `config` is None.

    Returns:
      A copy. If `overrides` has voc_root and no dataset, its data set is "voc_layout".

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
    """Returns the defaults with the data of a training run. Settings that no longer exist are left out."""
    config = default.get_config()
    saved = {key: value for key, value in trained_with.get("data", {}).items() if value is not None}
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
    config.data.update({key: value for key, value in known.items() if key in config.data})
    config.seed = trained_with.get("seed", config.seed)  # decides the order of crops
    return config


def resolve_data(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Fills in the folder of packed data and the number of classes.

    Args:
      config: A checked config (`settings.checked`).

    Returns:
      A copy with `data.data_dir` and `model.num_classes` set.

    Raises:
      InputError: if no data is named, or `config.model.num_classes` differs from the data's number of classes.
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
    """Checks that a config names data.

    Args:
      config: A checked config.

    Raises:
      InputError: if it names none, or a folder together with a downloaded data set.
    """
    if config.data.dataset == "voc_layout" and not config.data.voc_root:
        raise InputError("no data: give --config.data.voc_root=FOLDER, a folder with JPEGImages and SegmentationClass")
    if config.data.dataset != "voc_layout" and config.data.voc_root:
        raise InputError(
            f"config.data.voc_root and config.data.dataset={config.data.dataset} exclude each other: leave one out"
        )


def default_data_dir() -> str:
    """Returns the folder for packed data as TFDS chooses it: TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    folder = os.environ.get("TFDS_DATA_DIR", "").strip() or "~/tensorflow_datasets"
    return str(user_path(folder, "TFDS_DATA_DIR", in_bucket=True).absolute())


def described(config: ml_collections.ConfigDict) -> str:
    """Returns the name of the config's data for messages: its folder, or the data set."""
    return config.data.voc_root or config.data.dataset


def class_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Returns the class names of the config's data, in the order of their ids."""
    if config.data.dataset == "voc_layout":
        return data.class_names(config.data.voc_root)
    return data.downloaded(config.data.dataset).class_names


def open_dataset(config: ml_collections.ConfigDict) -> tfds.core.DatasetBuilder:
    """Opens the config's data. The first process checks and packs a folder in the VOC layout if needed.

    Args:
      config: A config from `resolve_data`.

    Returns:
      The TFDS builder of the packed data.

    Raises:
      InputError: for a downloaded data set that is not prepared, or a folder that cannot be used.
    """

    def opened() -> tfds.core.DatasetBuilder:
        if config.data.dataset == "voc_layout":
            builder = packed_folder(config.data.voc_root, config.data.data_dir)
            say(f"{config.data.voc_root} is packed in {builder.data_path}")
            return builder
        return data.downloaded(config.data.dataset).prepare(None, config.data.data_dir)

    return first_process_first(opened)


def packed_folder(voc_root: str | Path, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """Checks and packs a folder in the VOC layout with a progress bar (`data.prepare_voc_layout`).

    Args:
      voc_root: Folder with JPEGImages, SegmentationClass and ImageSets.
      data_dir: Folder for the packed data.

    Returns:
      The TFDS builder of the packed data. Data that is packed already is used again.
    """
    with ProgressBar("checking and packing") as bar:
        return data.prepare_voc_layout(voc_root, data_dir, bar.update, lambda text: say(f"warning: {text}"))


def windows_of(
    config: ml_collections.ConfigDict, builder: tfds.core.DatasetBuilder, source: data.Source
) -> data.Windows:
    """Returns the windows to train on. Windows of rare classes are not repeated yet.

    Args:
      config: A config from `resolve_data`.
      builder: TFDS builder of its data, which knows where the proposals are.
      source: The images of the training split.

    Raises:
      InputError: if there are no windows, or a file of windows or proposals is missing or not usable.
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
        min_window=chosen.min_window,
    )


def proposals_of(
    config: ml_collections.ConfigDict, builder: tfds.core.DatasetBuilder, source: data.Source
) -> Sequence[np.ndarray]:
    """Returns the object proposals of the training images.

    Args:
      config: A config from `resolve_data`. `data.proposals` names a file; without it, those of `prepare_data` are read.
      builder: TFDS builder of its data.
      source: The images of the training split.

    Returns:
      Boxes [n, 4] of every image, as x0, y0, x1, y1 in pixels.

    Raises:
      InputError: if proposals are not computed yet, or the file has none for an image.
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
    """Returns the file in which `prepare_data` keeps proposals.

    Args:
      builder: TFDS builder of the data.
      part: Name of a stored split (`data.split_parts`).
    """
    return Path(builder.data_path) / "proposals" / f"{part}.npz"


def packed_proposals(builder: tfds.core.DatasetBuilder, split: str) -> list[np.ndarray]:
    """Returns the proposals that `prepare_data` computed for a split.

    Args:
      builder: TFDS builder of the data.
      split: Name of a split; it may consist of several stored ones.

    Returns:
      Boxes [n, 4] of every image, as x0, y0, x1, y1 in pixels, in the order of the split.
    """
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
    """Computes the proposals of a stored split with a progress bar (`data.compute_proposals`).

    Args:
      builder: TFDS builder of the data.
      part: Name of a stored split (`data.split_parts`).
      method: How proposals are found, one of `proposals.METHODS`.
      forest: Model file for the method "structured_forest"; None for the others.
      processes: Number of worker processes; None: one per CPU core.

    Returns:
      The file of proposals. If it is complete, nothing is computed.
    """
    path = proposals_file(builder, part)
    path.parent.mkdir(exist_ok=True)
    with ProgressBar(f"proposals of {part}") as bar:
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
    """Draws random scenes into data_dir/scenes and packs them under data_dir/tfds, with progress bars.

    Args:
      data_dir: Folder for both.
      train: Number of training scenes.
      val: Number of evaluation scenes.
      seed: Seed of the scenes.

    Returns:
      The TFDS builder of the packed scenes.
    """
    with ProgressBar("drawing scenes") as bar:
        data.write_scenes(data_dir / "scenes", train, val, seed, bar.update)
    return packed_folder(data_dir / "scenes", data_dir / "tfds")
