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
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import locked
from deconvnet_jax.models import DeconvNet, Network, fold_batch_norm, fold_statistics
from deconvnet_jax.weights import check_vacant, load_checkpoint, save_network

from .common import cli, dataset
from .common.output import output_folder
from .common.training import measure, over_devices
from .configs import settings

FOLDS = ("none", "scale", "convolutions")


def define_flags() -> None:
    """Defines the command line."""
    cli.define_config("a file in experiments/configs; default: the training run's data")
    cli.define_checkpoint()
    cli.define_path("output", None, "folder for the new checkpoint", in_bucket=True)
    flags.DEFINE_integer("batches", 500, "how many batches are measured", lower_bound=0)
    flags.DEFINE_integer("batch_size", 28, "crops a batch, rounded up to a multiple of the devices", lower_bound=2)
    flags.DEFINE_enum("fold", "none", FOLDS, "where the statistics go: stay apart, into scale and shift, into kernels")
    cli.define_data("train_split", "measure on")
    flags.mark_flag_as_required("output")


def main(argv: Sequence[str]) -> None:
    """Runs one calibration."""
    cli.no_arguments(argv)
    run(**cli.arguments_of(run), overrides=cli.data_flags("train_split"))


def run(
    checkpoint: str | Path,
    output: str | Path,
    *,
    config: ml_collections.ConfigDict | None = None,
    overrides: dict[str, str] | None = None,
    step: int | None = None,
    batches: int = 500,
    batch_size: int = 28,
    fold: str = "none",
) -> None:
    """Calibrates a checkpoint; arguments as the flags, `overrides` by their keys in `config.data`.

    Raises:
      InputError: for a checkpoint whose statistics are folded or, with batches=0, not known; for data or a folder that
        cannot be used.
    """
    folder = output_folder(output)
    with locked(folder, f"--output={folder}"):
        check_vacant(folder)
        found, variables, info = load_checkpoint(checkpoint, step)
        net = checked_network(found, info, checkpoint, batches)
        if batches:
            batch_size = over_devices(batch_size)
            config = settings.checked(dataset.data_config(config, info["config"], overrides or {}))
            variables = measure(net, variables, dataset.open_training_data(config), batches, batch_size)
            info = {**info, "calibrated": {"batches": batches, "batch_size": batch_size}}
        kept = {key: value for key, value in info.items() if key not in ("step", "batch_statistics")}
        if fold != "none":
            kept["batch_statistics"] = "folded"
        if fold == "convolutions":
            net, variables = fold_batch_norm(net, variables)
        elif fold == "scale":
            variables = fold_statistics(net, variables)
        save_network(folder, net, variables, kept)
        measured = f"statistics of {batches} batches of {batch_size}" if batches else "the checkpoint's own statistics"
        print(f"{measured}{'' if fold == 'none' else f', folded into {fold}'} -> {folder}")


def checked_network(net: Network, info: dict[str, Any], checkpoint: str | Path, batches: int) -> DeconvNet:
    """Returns the network; raises InputError if there is nothing to measure or to fold."""
    if not isinstance(net, DeconvNet):
        raise InputError(f"{checkpoint} holds an {type(net).__name__}, which has no batch normalisation")
    known = info.get("batch_statistics")
    if not net.batch_norm and known != "folded":
        raise InputError(f"{checkpoint} holds a network without batch normalisation")
    if known == "folded":
        raise InputError(
            f"{checkpoint}: the statistics are folded already; start from the result of a training (of the authors' "
            "files stage_2_train_result.caffemodel)"
        )
    if known == "unknown" and not batches:
        raise InputError(f"{checkpoint}: the statistics are not known; measure them first: --batches=500")
    return net


if __name__ == "__main__":
    define_flags()
    cli.run(main)
