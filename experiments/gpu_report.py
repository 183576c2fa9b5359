"""Tests and measures this project on a GPU in nine minutes: correctness, speed and repeatability.

Usage:
    python -m experiments.gpu_report --output=FOLDER [--minutes=M] [--width=W] [--allow_cpu]

Example:
    python -m experiments.gpu_report --output=runs/gpu_report

Each part gets a share of the time. The environment comes first. Then four parts run at the same time, because they do
not measure speed: the tests marked `accelerator`; two runs of the same training, compared bit for bit, with and without
XLA's deterministic ops; and the compiler's prediction for a step. The other parts run one after the other: training
steps, inference, the CRF, the forward pass, unpooling and the input pipeline, each compared with another library
(`experiments.benchmark`).

If a part fails or takes too long, the report says so and the other parts still run. After every part, FOLDER holds
report.md and report.json with all results so far. The output of part NAME is in NAME.log.

For a rehearsal without a GPU, with a narrow network: --width=0.125 --allow_cpu.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("output", "runs/gpu_report", "New folder for report.md, report.json and logs.")
    flags.DEFINE_float("minutes", 8.8, "Time that all parts may take together, in minutes.", lower_bound=1)
    flags.DEFINE_float(
        "width", 1.0, "Factor on the width of all layers. The numbers of the full network need the default."
    )
    flags.DEFINE_bool("allow_cpu", False, "Measure the CPU if there is no GPU.")


def main(argv: Sequence[str]) -> None:
    """Runs all parts and writes the report."""
    from .tasks.gpu_report import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
