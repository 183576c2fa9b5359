"""Exports a network as a StableHLO artefact that JAX runs without this package.

    python -m experiments.export_model --checkpoint=DIR --output=DIR [--input_size=224] [--platforms=cpu,cuda,rocm,tpu]

Writes model.stablehlo (the function, for any number of images), weights.npz and model.json (classes, sizes). The
function holds the form for each of the platforms, on whatever machine it is exported. To use it:

    import json, jax, numpy as np
    model = jax.export.deserialize(bytearray(open("DIR/model.stablehlo", "rb").read()))
    weights = dict(np.load("DIR/weights.npz"))
    scores = model.call(weights, images)        # uint8 RGB [N, 224, 224, 3] -> float32 [N, 224, 224, classes]
    labels = scores.argmax(-1)

Artefacts load in the JAX version that wrote them and for six months of later ones (jax.export's promise).
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
from absl import flags

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import whole_file
from deconvnet_jax.inference import PLATFORMS, Segmenter, export_network, flat_weights
from deconvnet_jax.models import DeconvNet, check_input_size
from deconvnet_jax.weights import load_checkpoint

from .common import cli
from .common.output import output_folder

FILES = ("model.stablehlo", "weights.npz", "model.json")


def define_flags() -> None:
    """Defines the command line."""
    cli.define_checkpoint()
    cli.define_path("output", None, "folder for the artefact", in_bucket=True)
    flags.DEFINE_integer("input_size", None, "side of the images; default: that of training", lower_bound=1)
    flags.DEFINE_list("platforms", list(PLATFORMS), "what the artefact can run on")
    flags.mark_flag_as_required("output")


def main(argv: Sequence[str]) -> None:
    """Runs one export."""
    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


def run(
    checkpoint: str | Path,
    output: str | Path,
    *,
    step: int | None = None,
    input_size: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Exports a checkpoint; arguments as the flags.

    Raises:
      InputError: for a checkpoint or output folder that cannot be used, a size that the network does not take, or an
        unknown platform.
    """
    unknown = [platform for platform in platforms if platform not in PLATFORMS]
    if unknown or not platforms:
        raise InputError(f"--platforms={','.join(platforms)}: expected some of {', '.join(PLATFORMS)}")
    net, variables, info = load_checkpoint(checkpoint, step)
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
    with ExitStack() as stack:  # all files are whole before the first one gets its name
        stablehlo, weights, text = (stack.enter_context(whole_file(folder / name)) for name in FILES)
        stablehlo.write_bytes(artefact)
        np.savez(weights, **flat_weights(variables))  # pyright: ignore[reportArgumentType]: none is `allow_pickle`
        text.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    print(f"{description['images']} -> {description['scores']}: {folder}/model.stablehlo, weights.npz, model.json")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
