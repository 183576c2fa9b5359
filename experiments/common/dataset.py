"""From a config to data: which data set, which split, which windows of it, and batches of crops."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import tensorflow_datasets as tfds

from deconvnet_jax import data
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.images import image_digests
from deconvnet_jax.processes import say
from experiments.common import cli
from experiments.configs import default, settings


def data_config(
    config: ml_collections.ConfigDict | None,
    trained_with: dict[str, Any],
    overrides: dict[str, str],
    changes: dict[str, Any] | None = None,
) -> ml_collections.ConfigDict:
    """The config that names the data: the given one, or else the defaults with the data of the training run.

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
            config = _with_data_of(trained_with)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"the checkpoint's config is damaged ({' '.join(str(error).split())[:99]}); name data: --config=FILE"
            ) from error
        config.update_from_flattened_dict(changes or {})
    config = config.copy_and_resolve_references()
    config.data.update(overrides)
    if "voc_root" in overrides and "dataset" not in overrides:
        config.data.dataset = "voc_layout"
    return config


def _with_data_of(trained_with: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the defaults with the data of a training run, as far as its settings still exist."""
    config = default.get_config()
    saved = {key: value for key, value in trained_with.get("data", {}).items() if value is not None}
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
    config.data.update({key: value for key, value in known.items() if key in config.data})
    config.seed = trained_with.get("seed", config.seed)  # of the order of crops
    return config


def resolve_data(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy of the config with absolute paths and the number of classes filled in.

    Raises:
      InputError: if no data is named, or it has another number of classes than `config.model.num_classes`.
    """
    check_dataset(config)
    config = settings.with_absolute_paths(config)
    config.data.data_dir = config.data.data_dir or default_data_dir()
    found = len(class_names(config))
    if config.model.num_classes not in (None, found):
        raise InputError(
            f"config.model.num_classes={config.model.num_classes}, but {described(config)} has {found} classes"
            f"{_CLASSES_HINT if config.data.dataset == 'voc_layout' else ''}; leave the key out or correct it"
        )
    config.model.num_classes = found
    return config


_CLASSES_HINT = " (classes.txt, or VOC's 21 without it)"


def check_dataset(config: ml_collections.ConfigDict) -> None:
    """Raises InputError unless the settings are in range and name data."""
    settings.check_config(config)
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
    """The data's name for messages: its folder, or the data set."""
    return config.data.voc_root or config.data.dataset


def class_names(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """The classes of the config's data, in the order of their ids."""
    if config.data.dataset == "voc_layout":
        return data.class_names(config.data.voc_root)
    return data.VOC_CLASSES if config.data.dataset == "voc2012" else data.CAMVID_CLASSES


def open_dataset(config: ml_collections.ConfigDict) -> tfds.core.DatasetBuilder:
    """The config's data, ready to read; a folder in the VOC layout is checked and packed first.

    Raises:
      InputError: for data that is not prepared, or a folder that cannot be used.
    """
    if config.data.dataset == "voc_layout":
        return packed_folder(config.data.voc_root, config.data.data_dir)
    prepare = data.prepare_voc2012 if config.data.dataset == "voc2012" else data.prepare_camvid
    return prepare(None, config.data.data_dir)


def packed_folder(voc_root: str | Path, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """`data.prepare_voc_layout` with a progress bar while it checks and packs."""
    with cli.ProgressBar("checking and packing") as bar:
        return data.prepare_voc_layout(voc_root, data_dir, bar.update, lambda text: say(f"warning: {text}"))


def proposals_file(builder: tfds.core.DatasetBuilder, part: str) -> Path:
    """Where experiments.prepare_data keeps the proposals of a stored split (`data.split_parts`)."""
    return Path(builder.data_path) / "proposals" / f"{part}.npz"


def windows_of(
    config: ml_collections.ConfigDict, builder: tfds.core.DatasetBuilder, source: data.Source
) -> data.Windows:
    """What the config says to train on, rare classes not yet repeated.

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
) -> Sequence[Any]:
    """The proposals of every image of the source, boxes [n, 4].

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
            f"no proposals of the split '{split}' yet; compute them: python -m experiments.prepare_data "
            f"--dataset={config.data.dataset} {root}--data_dir={config.data.data_dir} --proposals={split}"
        )
    return packed_proposals(builder, split)


def packed_proposals(builder: tfds.core.DatasetBuilder, split: str) -> list[Any]:
    """The boxes [n, 4] of every image of a split, from the files that experiments.prepare_data made."""
    boxes = []
    for part in data.split_parts(builder, split):
        images = data.open_split(builder, part)
        boxes += data.read_proposals(proposals_file(builder, part), [images.name(i) for i in range(len(images))])
    return boxes


def batches_of(
    config: ml_collections.ConfigDict, source: data.Source, windows: data.Windows, batch_size: int
) -> data.TrainingBatches:
    """Batches of augmented crops as the config says, of this process.

    Args:
      config: the experiment's.
      source: the images.
      windows: of these; rare classes are repeated here.
      batch_size: crops a batch, of this process.
    """
    names = [field.name for field in dataclasses.fields(data.CropSettings)]
    return data.training_batches(
        source,
        data.repeat_rare(windows, config.data.balance, config.seed),
        data.CropSettings(**{name: config.data[name] for name in names}),
        batch_size=batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def prepare_scenes(data_dir: Path, train: int, val: int, seed: int) -> tfds.core.DatasetBuilder:
    """Draws the scenes into data_dir/scenes and packs them under data_dir/tfds."""
    with cli.ProgressBar("drawing scenes") as bar:
        data.write_scenes(data_dir / "scenes", train, val, seed, bar.update)
    return packed_folder(data_dir / "scenes", data_dir / "tfds")


def compute(
    builder: tfds.core.DatasetBuilder, part: str, method: str, forest: str | None, processes: int | None
) -> None:
    """The proposals of a stored split; says where they are."""
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
    print(f"proposals: {path}")
