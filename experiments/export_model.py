"""Exports a network as a StableHLO function with its weights, which JAX runs without this package.

Usage:
    python -m experiments.export_model --checkpoint=DIR --output=DIR [--input_size=N] [--platforms=cpu,cuda,rocm,tpu]

Example:
    python -m experiments.export_model --checkpoint=runs/demo --output=exported

The program writes three files into OUTPUT: model.stablehlo (the function, for any number of images), weights.npz and
model.json (class names and sizes). The function has a form for each of the platforms, whichever machine exports it.

To use the result, with images as uint8 RGB [N, 224, 224, 3]:

    import json, jax, numpy as np
    model = jax.export.deserialize(bytearray(open("exported/model.stablehlo", "rb").read()))
    weights = dict(np.load("exported/weights.npz"))
    scores = model.call(weights, images)  # logits, float32 [N, 224, 224, classes]
    labels = scores.argmax(-1)

JAX promises that exported functions load in the version that wrote them and in versions of the following six months.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_checkpoint()
    cli.define_path("output", None, "Folder for the three files.", in_bucket=True)
    flags.DEFINE_integer(
        "input_size", None, "Side of the input images in pixels. Default: the crop size of the training.", lower_bound=1
    )
    flags.DEFINE_list("platforms", ["cpu", "cuda", "rocm", "tpu"], "Platforms that the function can run on.")
    flags.mark_flag_as_required("output")


def main(argv: Sequence[str]) -> None:
    """Runs one export."""
    from .tasks.export_model import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
