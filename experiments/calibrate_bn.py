"""Re-estimates the batch-norm statistics of a trained network, and folds them into its weights if asked.

Usage:
    python -m experiments.calibrate_bn --checkpoint=DIR --output=DIR [--batches=500] [--fold=none|scale|convolutions]

Example:
    python -m experiments.calibrate_bn --checkpoint=runs/demo --output=runs/demo_calibrated --batches=50

This is the original's step "make BN layers testable" (BN_make_INFERENCE_script.py). It averages means and variances
over many batches, in place of the running statistics of the training. An imported stage_*_train_result needs this step
before it can predict; other networks may gain from it. The result is a new checkpoint, which voc_eval and predict take.

The crops are those of the training run. --config, --split, --voc_root and --data_dir choose other data.

--fold=scale has the form of the authors' DeconvNet_trainval_inference.caffemodel. --fold=convolutions leaves a network
without batch normalisation. Both give the same outputs as --fold=none, and the result is for inference only.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("Config that names the data. Default: the data of the training run.")
    cli.define_checkpoint()
    cli.define_path("output", None, "New folder for the calibrated checkpoint.", in_bucket=True)
    flags.DEFINE_integer(
        "batches",
        500,
        "Number of batches over which statistics are re-estimated. 0 keeps those of the checkpoint.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "batch_size", 28, "Crops per batch, rounded up to a multiple of the number of devices.", lower_bound=2
    )
    flags.DEFINE_enum(
        "fold",
        "none",
        ("none", "scale", "convolutions"),
        "Where the statistics go: `none` keeps them apart, `scale` folds them into scale and shift, `convolutions` "
        "into kernels and biases.",
    )
    cli.define_data("train_split", "take crops from")
    flags.mark_flag_as_required("output")


def main(argv: Sequence[str]) -> None:
    """Runs one calibration."""
    from .tasks.calibrate_bn import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run), overrides=cli.data_flags("train_split"))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
