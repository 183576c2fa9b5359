"""Trains the edge network of the object proposals on BSDS500, and scores it.

Usage:
    python -m experiments.train_edges --bsds_root=FOLDER --output=FILE.npz [--steps=N]

Example:
    python -m experiments.train_edges --bsds_root=BSR/BSDS500/data --output=edge_network.npz

The data is BSDS500 as downloaded (images/ and groundTruth/), or a folder with {train,val,test}/NAME.jpg and
NAME_boundaries.png, whose pixels are 255 times the share of people who drew a boundary there.

The program trains on the splits train and val, and scores on test. This takes about 20 minutes on two CPU cores. The
last line of stdout is one JSON object with the scores. The weights that come with this project,
deconvnet_jax/proposals/edge_network.npz, were made by this command with its defaults.
"""

import json
from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("bsds_root", None, "Folder of BSDS500, with images/ and groundTruth/.")
    cli.define_old_name("data_dir", "bsds_root")
    cli.define_path("output", None, "File for the weights, .npz.")
    flags.DEFINE_integer(
        "steps", 3000, "Number of training steps. 0 only scores the weights in --output.", lower_bound=0
    )
    flags.DEFINE_integer("batch_size", 8, "Crops per step, of 256x256 pixels.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 2e-3, "Highest learning rate of the schedule.", lower_bound=0.0)
    flags.DEFINE_integer("seed", 0, "Seed of initial weights, crops and augmentation.", lower_bound=0)
    flags.DEFINE_list("train_splits", ["train", "val"], "Splits to train on.")
    flags.DEFINE_string("eval_split", "test", "The split to score.")
    cli.define_old_name("test_split", "eval_split")
    flags.mark_flags_as_required(["bsds_root", "output"])


def main(argv: Sequence[str]) -> None:
    """Trains and scores."""
    from .tasks.train_edges import run

    cli.no_arguments(argv)
    print(json.dumps(run(**cli.arguments_of(run))))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
