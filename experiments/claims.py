"""Tests the paper's claims with small experiments on the synthetic scenes, each with several seeds.

Usage:
    python -m experiments.claims NAME --workdir=DIR [--seeds=3] [--steps=1200]

Example:
    python -m experiments.claims unpooling --workdir=runs/claims

NAME is one of these experiments:

- "unpooling": values go to the places of the maxima, to the corner of each window, or to the whole window.
- "batch_norm": with and without batch normalisation.
- "stages": objects and then proposals, compared with either alone for the same number of steps.
- "proposals": their number, their maximum or mean, and proposals or the whole image, by the size of objects.
- "crf": with and without the fully connected CRF.

The network is that of experiments/configs/demo.py, trained for --steps steps on 500 scenes and scored on 60 others. A
seed decides initial weights, crops and their order; the scenes are always the same. Trainings and scores that DIR has
already are not repeated, and experiments share them. Writes DIR/NAME.json and DIR/NAME.png, and prints mean and range
over the seeds.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("workdir", None, "Folder for data, trainings and results. What it already holds is used again.")
    flags.DEFINE_integer("seeds", 3, "Number of trainings of each kind, with the seeds 0, 1, ...", lower_bound=1)
    flags.DEFINE_integer("steps", 1200, "Steps per training.", lower_bound=20)
    flags.mark_flag_as_required("workdir")


def main(argv: Sequence[str]) -> None:
    """Runs one experiment."""
    from .tasks.claims import run_one

    run_one(argv[1:], **cli.arguments_of(run_one))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
