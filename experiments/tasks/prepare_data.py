"""Checks and packs a data set, computes its proposals and lists its training windows."""

from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from absl import flags

from deconvnet_jax import data
from deconvnet_jax.errors import InputError, counted, did_you_mean
from deconvnet_jax.files import user_path
from deconvnet_jax.images import image_digests
from deconvnet_jax.terminal import ProgressBar

from ..common import dataset
from ..common.checks import warn_of_common_images
from ..configs import default, settings

DATASETS = ("scenes", *settings.DATASETS)
_ONLY = {  # flags that only some data sets have
    "voc_root": ("voc_layout",),
    "manual_dir": tuple(data.DOWNLOADED),
    "verify": ("voc2012",),
    "seed": ("scenes",),
    "train_scenes": ("scenes",),
    "val_scenes": ("scenes",),
}


def run(values: flags.FlagValues) -> None:
    """Prepares one data set. The last lines on stdout say what was made and where.

    Args:
      values: The parsed flags of `experiments.prepare_data`.

    Raises:
      InputError: for flags or data that cannot be used.
    """
    check_flags(values)
    builder = prepare(values)
    splits = values.proposals
    if splits is None:
        splits = default_proposals(builder) if values.dataset == "voc2012" else []
    parts = checked_parts(builder, splits)
    for part in parts:
        path = dataset.compute_packed_proposals(builder, part, values.method, values.forest, values.workers)
        print(f"proposals: {path}")
    if splits:
        print(f"windows of the two stages: {write_lists(builder, splits)}")


def check_flags(values: flags.FlagValues) -> None:
    """Checks that the flags fit the data set.

    Args:
      values: The parsed flags.

    Raises:
      InputError: for an unknown data set, a missing flag, or a flag that the data set does not have.
    """
    chosen = values.dataset
    if chosen not in DATASETS:
        raise InputError(
            f"--dataset={chosen}: unknown; expected {' or '.join(DATASETS)}{did_you_mean(chosen, DATASETS)}"
        )
    for name, used_by in _ONLY.items():
        if values[name].present and chosen not in used_by:
            raise InputError(f"--{name} has no meaning for --dataset={chosen}, only for {' and '.join(used_by)}")
    if chosen == "scenes" and not values.data_dir:
        raise InputError("--dataset=scenes needs --data_dir=DIR, where it writes the scenes")
    if chosen == "voc_layout" and not values.voc_root:
        raise InputError("--dataset=voc_layout needs --voc_root=FOLDER, with JPEGImages and SegmentationClass")


def prepare(values: flags.FlagValues) -> tfds.core.DatasetBuilder:
    """Checks and packs the data set that the flags name, and prints its classes and splits."""
    # TFDS_DATA_DIR may be in a bucket, into which nothing can be packed.
    given, name = (values.data_dir, "--data_dir") if values.data_dir else (dataset.default_data_dir(), "TFDS_DATA_DIR")
    data_dir = user_path(given, name).absolute()
    if values.dataset == "scenes":
        builder = dataset.prepare_scenes(data_dir, values.train_scenes, values.val_scenes, values.seed)
    elif values.dataset == "voc_layout":
        builder = dataset.packed_folder(Path(values.voc_root).expanduser().absolute(), data_dir)
    else:
        options = {"verify": values.verify} if values.dataset in _ONLY["verify"] else {}
        with ProgressBar("checking and packing") as bar:
            builder = data.downloaded(values.dataset).prepare(values.manual_dir, data_dir, bar.update, **options)
    if {"train", "val"} <= set(data.split_counts(builder)):
        trained, scored = (data.open_split(builder, split) for split in ("train", "val"))
        warn_of_common_images(trained, range(len(trained)), scored, "train", "val")
    counts = ", ".join(f"{split} {count}" for split, count in sorted(data.split_counts(builder).items()))
    classes = counted(len((builder.info.metadata or {})["class_names"]), "class", "classes")
    print(f"{values.dataset}: {classes}, images: {counts}")
    print(f"packed in {builder.data_path}")
    return builder


def default_proposals(builder: tfds.core.DatasetBuilder) -> list[str]:
    """Returns the splits of VOC 2012 that get proposals: train_aug, or train without SBD, and val."""
    return ["train_aug" if "train_aug" in data.split_counts(builder) else "train", "val"]


def checked_parts(builder: tfds.core.DatasetBuilder, splits: Sequence[str]) -> list[str]:
    """Returns the stored splits that some splits consist of, each once.

    Args:
      builder: TFDS builder of the packed data.
      splits: Names of splits.

    Raises:
      InputError: if a split does not exist.
    """
    return list(dict.fromkeys(part for split in splits for part in data.split_parts(builder, split)))


def write_lists(builder: tfds.core.DatasetBuilder, splits: Sequence[str]) -> Path:
    """Writes the lists of windows of both stages for every split.

    Args:
      builder: TFDS builder of the packed data.
      splits: Names of splits with proposals.

    Returns:
      The folder of the lists. A list that cannot be made is left out, with a line on stdout.
    """
    folder = Path(builder.data_path) / "windows"
    folder.mkdir(exist_ok=True)
    least = default.get_config().data.min_window
    for split in splits:
        source = data.open_split(builder, split)
        names = [source.name(i) for i in range(len(source))]
        proposals, digests = dataset.packed_proposals(builder, split), image_digests(source, masks=True)
        for stage, kind in (("stage1", "instance"), ("stage2", "proposal")):
            try:
                windows = data.training_windows(source, (kind,), proposals=proposals, min_window=least)
                data.write_window_list(folder / f"{split}_{stage}.txt", windows, names, images=digests)
            except InputError as error:  # Training does not need these lists.
                print(f"no list {split}_{stage}.txt: {error}")
    return folder
