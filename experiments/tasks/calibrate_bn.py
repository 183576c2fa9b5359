"""Re-estimates the batch statistics of a checkpoint's network, and folds them into its weights."""

from pathlib import Path
from typing import Any

import ml_collections

from deconvnet_jax.errors import InputError, counted
from deconvnet_jax.files import locked
from deconvnet_jax.models import DeconvNet, Network, fold_batch_norm, fold_statistics
from deconvnet_jax.weights import check_vacant, load_checkpoint, save_network

from ..common import dataset
from ..common.output import output_folder
from ..common.training import measure, over_devices
from ..configs import settings


def run(
    checkpoint: str | Path,
    output: str | Path,
    *,
    config: ml_collections.ConfigDict | None = None,
    overrides: dict[str, str] | None = None,
    step: int | None = None,
    averages: bool = True,
    batches: int = 500,
    batch_size: int = 28,
    fold: str = "none",
) -> None:
    """Re-estimates the batch statistics of a checkpoint and folds them if asked; writes a new checkpoint.

    Args:
      checkpoint: Folder of a training run, of its checkpoints or of imported weights.
      output: New folder for the result; it may be in a bucket.
      config: Config that names the data; None: that of the training run.
      overrides: Keys of the section `data` to change.
      step: Step of the checkpoint; None: the step with the best evaluation.
      averages: Whether to use the averaged weights, if the run has kept them (`config.ema_decay`).
      batches: Number of batches; 0 keeps the statistics of the checkpoint.
      batch_size: Crops per batch, rounded up to a multiple of the number of devices.
      fold: "none", "scale" or "convolutions": where the statistics go.

    Raises:
      InputError: for a network without batch normalisation or with folded statistics; for unknown statistics with
        batches=0; for data or a folder that cannot be used.
    """
    folder = output_folder(output)
    with locked(folder, f"--output={folder}"):
        check_vacant(folder)
        found, variables, info = load_checkpoint(checkpoint, step, averages)
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
        over = counted(batches, "batch", "batches")
        measured = f"statistics of {over} of {batch_size}" if batches else "the checkpoint's own statistics"
        print(f"{measured}{'' if fold == 'none' else f', folded into {fold}'} -> {folder}")


def checked_network(net: Network, info: dict[str, Any], checkpoint: str | Path, batches: int) -> DeconvNet:
    """Returns the network after checking that it has statistics to re-estimate or to fold.

    Args:
      net: The network.
      info: Description of the checkpoint, from `weights.load_checkpoint`.
      checkpoint: Its folder, for messages.
      batches: Number of batches; 0 needs known statistics.

    Raises:
      InputError: if it does not.
    """
    if not isinstance(net, DeconvNet):
        raise InputError(
            f"{checkpoint} holds an {type(net).__name__}, which has no batch normalisation; name another checkpoint"
        )
    known = info.get("batch_statistics")
    if not net.batch_norm and known != "folded":
        raise InputError(f"{checkpoint} holds a network without batch normalisation; name another checkpoint")
    if known == "folded":
        raise InputError(
            f"{checkpoint}: the statistics are folded already; start from the result of a training (of the authors' "
            "files stage_2_train_result.caffemodel)"
        )
    if known == "unknown" and not batches:
        raise InputError(f"{checkpoint}: the batch statistics are unknown; re-estimate them: --batches=500")
    return net
