"""Trains the small edge network from which the object proposals come, and measures it.

    python -m experiments.train_edges --data_dir=BSR/BSDS500/data --output=edge_network.npz

The data is BSDS500 as downloaded (images/ and groundTruth/), or a folder with {train,val,test}/NAME.jpg and
NAME_boundaries.png, 255 x the share of people who drew a boundary at a pixel. Trains on train and val, scores on test;
the last line of stdout is one JSON object. About 20 minutes on two CPU cores. The weights that come with this project,
deconvnet_jax/proposals/edge_network.npz, were made by this command with its defaults.
"""

import json
from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("data_dir", None, "folder of BSDS500")
    cli.define_path("output", None, "file for the weights, .npz")
    flags.DEFINE_integer("steps", 3000, "updates; 0: only score the file that is there", lower_bound=0)
    flags.DEFINE_integer("batch_size", 8, "crops of 256x256 a step", lower_bound=1)
    flags.DEFINE_float("learning_rate", 2e-3, "at its highest", lower_bound=0.0)
    flags.DEFINE_integer("seed", 0, "initial weights, crops, augmentation", lower_bound=0)
    flags.DEFINE_list("train_splits", ["train", "val"], "splits to learn from")
    flags.DEFINE_string("test_split", "test", "split to score")
    flags.mark_flags_as_required(["data_dir", "output"])


def main(argv: Sequence[str]) -> None:
    """Trains and scores."""
    from .tasks.train_edges import run

    cli.no_arguments(argv)
    print(json.dumps(run(**cli.arguments_of(run))))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
