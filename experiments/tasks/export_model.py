"""Exports the network of a checkpoint as StableHLO, with its weights and a description."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import whole_file
from deconvnet_jax.inference import PLATFORMS, Segmenter, export_network, flat_weights
from deconvnet_jax.models import DeconvNet, check_input_size
from deconvnet_jax.weights import load_checkpoint

from ..common.output import output_folder

FILES = ("model.stablehlo", "weights.npz", "model.json")


def run(
    checkpoint: str | Path,
    output: str | Path,
    *,
    step: int | None = None,
    averages: bool = True,
    input_size: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Exports a checkpoint as model.stablehlo, weights.npz and model.json.

    Args:
      checkpoint: Folder of a training run, of its checkpoints or of imported weights.
      output: Folder for the files; it may be in a bucket.
      step: Step of the checkpoint; None: the step with the best evaluation.
      averages: Whether to use the averaged weights, if the run has kept them (`config.ema_decay`).
      input_size: Side of the input images in pixels; None: the crop size of the training.
      platforms: Some of `inference.PLATFORMS`.

    Raises:
      InputError: for a checkpoint or output folder that cannot be used, an unknown platform, or a size that the network
        does not take.
    """
    unknown = [platform for platform in platforms if platform not in PLATFORMS]
    if unknown or not platforms:
        raise InputError(f"--platforms={','.join(platforms)}: expected some of {', '.join(PLATFORMS)}")
    net, variables, info = load_checkpoint(checkpoint, step, averages)
    segmenter = Segmenter.from_loaded(net, variables, info)
    size = input_size or segmenter.input_size
    if isinstance(net, DeconvNet):
        check_input_size(size, size, net.fc_window)
    folder = output_folder(output)
    artefact = export_network(net, variables, size, platforms)
    description = {
        "class_names": list(info["class_names"]),
        "images": f"uint8 RGB [N, {size}, {size}, 3]",
        "scores": f"float32 [N, {size}, {size}, {len(info['class_names'])}], logits",
        "input_size": size,
        "platforms": list(platforms),
        "jax": jax.__version__,
        "checkpoint_step": info["step"],
    }
    with ExitStack() as stack:  # All files are complete before the first one gets its name.
        stablehlo, weights, text = (stack.enter_context(whole_file(folder / name)) for name in FILES)
        stablehlo.write_bytes(artefact)
        np.savez(weights, **flat_weights(variables))  # pyright: ignore[reportArgumentType]: none is `allow_pickle`
        text.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    print(f"{description['images']} -> {description['scores']}: {folder}/model.stablehlo, weights.npz, model.json")
