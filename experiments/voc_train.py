r"""Trains a network: DeconvNet, or the FCN-8s of the paper's ensemble.

Usage:
    python -m experiments.voc_train --config=NAME --workdir=DIR [--config.KEY=VALUE ...]

Example:
    python -m experiments.voc_train --config=demo --workdir=runs/demo \
        --config.data.voc_root=runs/demo/data/scenes --config.data.data_dir=runs/demo/data/tfds

The program writes into DIR: config.json, checkpoints/, metrics.jsonl, tensorboard/ and pictures/. Give the same command
to resume an interrupted run. With --accept_changes a run resumes with changed settings of learning and arithmetic.

To train on several hosts, start the same command on each of them; docs/launch.md explains how hosts find each other.

Exit status: 0 after the last step, 1 after an error. On SIGTERM or Ctrl-C the run saves a checkpoint and ends, with
--stopped_status after SIGTERM and 130 after Ctrl-C. A second Ctrl-C stops it at once. With --stopped_status=75 a
scheduler can tell a stopped run from a finished one.
"""

import signal
import sys
from collections.abc import Sequence

from absl import flags

from .common import cli, failures, hosts, named_files


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("Config of the training.")
    cli.define_path("workdir", None, "Folder of the run; all hosts must see it.", in_bucket=True)
    flags.DEFINE_boolean(
        "accept_changes", False, "Resume although settings of learning or arithmetic differ from those of the run."
    )
    flags.DEFINE_integer("stopped_status", 0, "Exit status after SIGTERM.", lower_bound=0, upper_bound=125)
    hosts.define_flags()
    flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    """Runs one training."""
    cli.no_arguments(argv)
    named_files.check_training(flags.FLAGS.config, flags.FLAGS.workdir)

    from deconvnet_jax.processes import say
    from deconvnet_jax.training import Preempted

    from .common.training import run

    hosts.initialize(flags.FLAGS)
    try:
        run(flags.FLAGS.config, flags.FLAGS.workdir, flags.FLAGS.accept_changes)
    except Preempted as stop:
        say(f"stopped as asked: step {stop.step} is saved; give the same command to resume")
        sys.exit(failures.INTERRUPTED if stop.signal == signal.SIGINT else flags.FLAGS.stopped_status)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
