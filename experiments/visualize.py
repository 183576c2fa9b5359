"""Draws figures 4, 6 and 7 of the paper for any photograph and checkpoint.

Usage:
    python -m experiments.visualize --checkpoint=DIR --output=DIR [--box=X0,Y0,X1,Y1] [--config.KEY=VALUE ...] IMAGE...

Example:
    python -m experiments.visualize --checkpoint=runs/demo --output=figures photo.jpg

For each image the program writes three files into OUTPUT:
    NAME_activations.png  Figure 4: a window, the activations of the decoder from 14x14 to 224x224, and the score map
                          of the class. The activations are those after every unpooling and after the last
                          deconvolution of every block; of each, the channel that agrees best with the class. The
                          window is --box, enlarged to a square, or the largest object found.
    NAME_proposals.png    Figure 6: the result while proposals are added, from large to small.
    NAME_comparison.png   Figure 7: the photograph, DeconvNet, and DeconvNet with CRF. With
                          --config.inference.ensemble_checkpoint=DIR also the second network and the ensemble.

IMAGE and --config.inference.KEY are those of `python -m experiments.predict`. The CRF is `released`, unless
--config.inference.crf names another.

Exit status: 0 if all figures were drawn; 1 after an error. An image that cannot be read, segmented or written is named
on stderr, and the program continues with the others.
"""

import sys
from collections.abc import Sequence

from absl import flags

from .common import cli, named_files


def define_flags() -> None:
    """Defines the command line."""
    cli.define_checkpoint()
    cli.define_path("output", None, "Folder for the figures.", in_bucket=True)
    flags.DEFINE_list(
        "box", None, "X0,Y0,X1,Y1 in pixels: the object whose activations are shown. Default: the largest object found."
    )
    cli.define_palette()
    flags.DEFINE_integer("max_pixels", 50_000_000, "Photographs with more pixels are refused.", lower_bound=1)
    cli.define_config(cli.HOW_TO_SEGMENT, cli.EVERY_SETTING)
    flags.mark_flag_as_required("output")
    flags.FLAGS.set_gnu_getopt(True)  # so that flags may also follow the images


def main(argv: Sequence[str]) -> None:
    """Draws figures of the images on the command line."""
    named_files.check_prediction(flags.FLAGS.checkpoint, *cli.given_config(flags.FLAGS))

    from .tasks.visualize import run

    if run(**cli.arguments_of(run), arguments=argv[1:]):
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
