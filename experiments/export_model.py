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

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_checkpoint()
    cli.define_path("output", None, "folder for the artefact", in_bucket=True)
    flags.DEFINE_integer("input_size", None, "side of the images; default: that of training", lower_bound=1)
    flags.DEFINE_list("platforms", ["cpu", "cuda", "rocm", "tpu"], "what the artefact can run on")
    flags.mark_flag_as_required("output")


def main(argv: Sequence[str]) -> None:
    """Runs one export."""
    from .tasks.export_model import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
