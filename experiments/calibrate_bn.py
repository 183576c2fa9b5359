"""Measures the statistics of a network's batch normalisation over training batches, and folds them if asked.

    python -m experiments.calibrate_bn --checkpoint=DIR --output=DIR [--batches=500] [--fold=none|scale|convolutions]

The original's step "make BN layers testable" (BN_make_INFERENCE_script.py): the mean of the means and of the variances
of many batches, instead of the running averages that training keeps. Needed before an imported stage_*_train_result
predicts; of use after any training. The crops are those of the training run, unless --config (and with it
--config.data.KEY=VALUE), --voc_root, --split or --data_dir says otherwise. Writes a new checkpoint that voc_eval and
predict take.

--fold=scale writes the statistics into scale and shift, the form of DeconvNet_trainval_inference.caffemodel;
--fold=convolutions into the kernels and biases before them, which leaves the network without batch normalisation. Both
give the same outputs and are for inference only. --batches=0 folds the statistics that the checkpoint has.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("a file in experiments/configs; default: the training run's data")
    cli.define_checkpoint()
    cli.define_path("output", None, "folder for the new checkpoint", in_bucket=True)
    flags.DEFINE_integer("batches", 500, "how many batches are measured", lower_bound=0)
    flags.DEFINE_integer("batch_size", 28, "crops a batch, rounded up to a multiple of the devices", lower_bound=2)
    flags.DEFINE_enum(
        "fold",
        "none",
        ("none", "scale", "convolutions"),
        "where the statistics go: stay apart, into scale and shift, into kernels",
    )
    cli.define_data("train_split", "measure on")
    flags.mark_flag_as_required("output")


def main(argv: Sequence[str]) -> None:
    """Runs one calibration."""
    from .tasks.calibrate_bn import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run), overrides=cli.data_flags("train_split"))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
