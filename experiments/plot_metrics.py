"""Draws the curves of one or several training runs into one picture.

    python -m experiments.plot_metrics [--output=metrics.png] [--smooth=N] RUN...

RUN is a run's folder, or its metrics.jsonl. Four panels over steps: training loss, with a mark where the learning rate
drops; pixel accuracy of training (thin) and of evaluations (points); mean IoU of evaluations; images a second. A run
that is being written just now is drawn as far as it is.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("output", "metrics.png", "file of the picture, a PNG")
    flags.DEFINE_integer("smooth", 1, "training curves are means over so many points", lower_bound=1)
    flags.FLAGS.set_gnu_getopt(True)  # flags may also follow the runs


def main(argv: Sequence[str]) -> None:
    """Draws the runs on the command line."""
    from .tasks.plot_metrics import run

    run(argv[1:], **cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
