"""Compiles a config's training step and proposal batch for accelerators that are not there; says what to expect.

    python -m experiments.compile --config=experiments/configs/voc_stage1.py --topology=h100:8 [--find_batch]
        [--json=FILE] [--config.key=value ...]

The step is the very one that voc_train would run there; of a config with a stage 1, it is that of stage 2. It is
compiled from shapes alone: without data, weights or the accelerator, in one to ten minutes on two cores. The report
tells memory per device, operations and bytes per image, a bound of the step's time, when each all-reduce starts and
ends, and which instructions move the most bytes; docs/performance.md explains it. --find_batch compiles a few batches
more and names the largest that fits.

Topologies: v5e:4x4, v5p:2x2x2, v6e:2x4 (grids of TPU chips), h100:8, h200:8, a100:16, b200:8 (GPUs, hosts of 8). TPUs
need pip install -e '.[compile-tpu]', GPUs pip install -e '.[compile-gpu]'.

Exit status: 1 if the step does not fit into a device's memory.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("a file in experiments/configs")
    flags.DEFINE_string("topology", None, "accelerators to compile for, e.g. v5e:4x4, h100:8")
    flags.DEFINE_boolean("find_batch", False, "find the largest batch per device that fits; two to six compilations")
    cli.define_path("json", None, "file for the report as JSON")
    flags.mark_flags_as_required(["config", "topology"])


def main(argv: Sequence[str]) -> None:
    """Compiles and reports."""
    from .tasks.compile import run_and_write

    cli.no_arguments(argv)
    run_and_write(**cli.arguments_of(run_and_write))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
