"""Trains a network: DeconvNet, or the FCN-8s of the paper's ensemble.

    python -m experiments.voc_train --config=experiments/configs/NAME.py --workdir=DIR [--config.key=value ...]

The run's folder gets config.json, checkpoints/, metrics.jsonl, tensorboard/ and pictures/; the same command continues a
run that was interrupted. On SIGTERM a run saves a checkpoint and ends with status 0, or the one that a scheduler is to
tell from a finished run (--stopped_status=75); on Ctrl-C too, with 130; a second Ctrl-C stops it at once. With
--accept_changes it goes on with other settings of learning and arithmetic than before.

On several hosts the same command is started on each of them, with a folder that all of them see: common/hosts.py.
DIR may lie in a bucket of Google Cloud, gs://BUCKET/NAME: docs/launch.md.
"""

import signal
import sys
from collections.abc import Sequence

from absl import flags

from .common import cli, failures, hosts


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("a file in experiments/configs")
    cli.define_path("workdir", None, "folder of the run", in_bucket=True)
    flags.DEFINE_boolean("accept_changes", False, "go on with changed settings of learning and arithmetic")
    flags.DEFINE_integer("stopped_status", 0, "exit status after SIGTERM", lower_bound=0, upper_bound=125)
    hosts.define_flags()
    flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    """Runs one training."""
    from deconvnet_jax.processes import say
    from deconvnet_jax.training import Preempted

    from .common.training import run

    cli.no_arguments(argv)
    hosts.initialize(flags.FLAGS)
    try:
        run(flags.FLAGS.config, flags.FLAGS.workdir, flags.FLAGS.accept_changes)
    except Preempted as stop:
        say(f"asked to stop: step {stop.step} is saved; the same command goes on from there")
        sys.exit(failures.INTERRUPTED if stop.signal == signal.SIGINT else flags.FLAGS.stopped_status)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
