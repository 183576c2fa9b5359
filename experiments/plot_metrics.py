"""Draws the metrics of one or several training runs into one picture.

Usage:
    python -m experiments.plot_metrics [--output=metrics.png] [--smooth=N] RUN...

Example:
    python -m experiments.plot_metrics --output=demo.png --smooth=5 runs/demo

RUN is the folder of a training run, or its metrics.jsonl; also gs://BUCKET/NAME. A run may still be training.

The picture has four panels with the step on the x-axis: training loss, with a mark where the learning rate drops; pixel
accuracy of training (thin line) and of evaluations (points); mean IoU of evaluations; throughput in images/s. The
program prints the file's name, and for each run its last step, its last loss and its best mean IoU.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("output", "metrics.png", "PNG file for the picture.")
    flags.DEFINE_integer("smooth", 1, "Number of points in the running mean of training curves.", lower_bound=1)
    flags.FLAGS.set_gnu_getopt(True)  # so that flags may also follow the runs


def main(argv: Sequence[str]) -> None:
    """Draws the runs on the command line."""
    from .tasks.plot_metrics import run

    run(argv[1:], **cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
