"""Everything worth knowing about this project on a GPU, in nine minutes: correctness, speed, repeatability.

    python -m experiments.gpu_report --output=FOLDER [--minutes=M] [--width=W] [--allow_cpu]

Every part has its share of the time. First comes the environment. Then four parts run at the same time, because they
measure no time: the tests marked `accelerator`; two runs of one training compared bit for bit, with and without XLA's
deterministic ops; the compiler's prediction for a step. The others run alone: training steps, inference, the CRF, the
forward pass, unpooling and the input pipeline, each beside its alternative (`experiments.benchmark`).

A part that fails or takes too long is reported, and the others run. After every part the folder holds report.md and
report.json with all results so far. The output of a part is in NAME.log.

--width=0.125 --allow_cpu rehearses it with a narrow network on a machine without a GPU.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """The command line."""
    cli.define_path("output", "runs/gpu_report", "new folder for report.md, report.json and logs")
    flags.DEFINE_float("minutes", 8.8, "that all parts may take together", lower_bound=1)
    flags.DEFINE_float("width", 1.0, "multiplies the width of all layers; below 1 the numbers are those of a toy")
    flags.DEFINE_bool("allow_cpu", False, "measure the CPU if there is no GPU")


def main(argv: Sequence[str]) -> None:
    """Measures and writes the report."""
    from .tasks.gpu_report import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
