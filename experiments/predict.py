"""Segments photographs with a trained network.

Usage:
    python -m experiments.predict --checkpoint=DIR --output=DIR [--config.inference.KEY=VALUE ...] IMAGE...

Example:
    python -m experiments.predict --checkpoint=runs/demo --output=segmented photo.jpg

IMAGE is a file (JPEG, PNG, BMP, WebP or TIFF) or a folder of such files, in which hidden files are skipped.
Photographs are turned upright as their EXIF data says.

For each image the program writes two files into OUTPUT. NAME.png is the label map: pixels are class ids, with VOC's
palette (16-bit grey for more than 255 classes). NAME_overlay.jpg shows image, prediction and overlay side by side, with
the names of the classes. --palette=colour_blind draws it in colours that colour-blind people can tell apart.

The config of the training run says how photographs are segmented. --config.inference.KEY=VALUE changes single
settings: mode=whole_image, crf=released, ensemble_checkpoint=DIR and others (docs/inference.md).

Exit status: 0 if all images were segmented; 1 after an error. An image that cannot be read, segmented or written is
named on stderr, and the program continues with the others.
"""

import sys
from collections.abc import Sequence

from absl import flags

from .common import cli, named_files


def define_flags() -> None:
    """Defines the command line."""
    cli.define_checkpoint()
    cli.define_path("output", None, "Folder for label maps and overlays.", in_bucket=True)
    cli.define_palette()
    cli.define_names()
    flags.DEFINE_integer("max_pixels", 50_000_000, "Photographs with more pixels are refused.", lower_bound=1)
    cli.define_config(cli.HOW_TO_SEGMENT, cli.EVERY_SETTING)
    flags.mark_flag_as_required("output")
    flags.FLAGS.set_gnu_getopt(True)  # so that flags may also follow the images


def main(argv: Sequence[str]) -> None:
    """Segments the images on the command line."""
    named_files.check_prediction(flags.FLAGS.checkpoint, *cli.given_config(flags.FLAGS))

    from .tasks.predict import run

    if run(**cli.arguments_of(run), arguments=argv[1:]):
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
