"""The paper's figures for any photograph and checkpoint.

    python -m experiments.visualize --checkpoint=DIR --output=DIR [--box=X0,Y0,X1,Y1] [--config.KEY=VALUE ...] IMAGE...

NAME_activations.png  figure 4: a window, the decoder's maps from 14x14 to 224x224, after every unpooling and after the
                      last deconvolution of every block (the channel that goes best with the class), and its score. The
                      window is --box, enlarged to a square, or the largest object that is found.
NAME_proposals.png    figure 6: the result as it grows while proposals are added from large to small.
NAME_comparison.png   figure 7: photograph, DeconvNet, and with the CRF; with --config.inference.ensemble_checkpoint=DIR
                      also the second network and the ensemble.

IMAGE and --config.inference.* are as for experiments.predict; the CRF is the released one unless .crf names another. An
image that cannot be read is named on stderr and the others are still done; the exit status is then 1.
"""

import sys
from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_checkpoint()
    cli.define_path("output", None, "folder for the figures", in_bucket=True)
    flags.DEFINE_list("box", None, "X0,Y0,X1,Y1 in pixels: the object whose activations are shown")
    flags.DEFINE_integer("max_pixels", 50_000_000, "larger photographs are refused", lower_bound=1)
    cli.define_config(cli.HOW_TO_SEGMENT, cli.EVERY_SETTING)
    flags.mark_flag_as_required("output")
    flags.FLAGS.set_gnu_getopt(True)  # flags may also follow the images


def main(argv: Sequence[str]) -> None:
    """Draws figures of the images on the command line."""
    from .tasks.visualize import run

    if run(**cli.arguments_of(run), arguments=argv[1:]):
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
