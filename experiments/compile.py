r"""Compiles a training for accelerators that this machine does not have, and predicts memory and time per step.

Usage:
    python -m experiments.compile --config=NAME --topology=TOPOLOGY [--find_batch] [--json=FILE] \
        [--config.KEY=VALUE ...]

Example:
    python -m experiments.compile --config=voc_stage1 --topology=h100:8 --config.model.dtype=bfloat16

The step is the one that voc_train would run there; for a config with two stages, that of stage 2. It is compiled from
shapes alone, without data, weights or the accelerator, in one to ten minutes on two CPU cores.

The report gives memory per device, operations and bytes per image, a lower bound of the time per step, when each
all-reduce starts and ends, and which instructions move the most bytes. docs/compile.md explains it.

TPUs need `pip install -e '.[compile-tpu]'`, GPUs `pip install -e '.[compile-gpu]'`.

Exit status: 0 if the step fits into the memory of a device; 1 if it does not, or after an error.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("Config of the training.")
    flags.DEFINE_string(
        "topology",
        None,
        "Accelerators to compile for: v5e:4x4, v5p:2x2x2 or v6e:2x4 (grids of TPU chips); h100:8, h200:8, a100:16 or "
        "b200:8 (numbers of GPUs, 8 per host).",
    )
    flags.DEFINE_boolean(
        "find_batch", False, "Find the largest batch per device that fits, with two to six more compilations."
    )
    cli.define_path("json", None, "File for the report, as one JSON object. Default: it is only printed.")
    flags.mark_flags_as_required(["config", "topology"])


def main(argv: Sequence[str]) -> None:
    """Compiles and reports."""
    from .tasks.compile import run_and_write

    cli.no_arguments(argv)
    run_and_write(**cli.arguments_of(run_and_write))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
