"""What the paper claims, as small experiments on the embedded scenes, each with several seeds.

    python -m experiments.claims NAME --workdir=DIR [--seeds=3] [--steps=1200]

"unpooling": values go to where the maxima came from, to the corner of each window, or to all of it. "batch_norm": with
and without. "stages": objects first and proposals then, against either alone, for the same number of steps.
"proposals": how many are shown, their maximum against their mean, and proposals against the whole image, by the size of
objects. "crf": the fully connected CRF behind it.

The network is that of experiments/configs/demo.py, trained for so many steps on 500 scenes, and scored on 60 others. A
seed decides initial weights, crops and their order; the scenes stay. Trainings and scores that DIR has already are used
again, also by other experiments. Writes DIR/NAME.json and DIR/NAME.png, and prints mean and range over the seeds.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("workdir", None, "folder for data, trainings and results")
    flags.DEFINE_integer("seeds", 3, "trainings of each kind, with seeds 0, 1, ...", lower_bound=1)
    flags.DEFINE_integer("steps", 1200, "of a training", lower_bound=20)
    flags.mark_flag_as_required("workdir")


def main(argv: Sequence[str]) -> None:
    """Runs one experiment."""
    from .tasks.claims import run_one

    run_one(argv[1:], **cli.arguments_of(run_one))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
