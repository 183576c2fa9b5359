"""Segments photographs.

    python -m experiments.predict --checkpoint=DIR --output=DIR [--config.inference.KEY=VALUE ...] IMAGE...

How photographs are segmented is what the training run's config says, or --config.inference.mode=whole_image (the modes:
docs/inference.md), .crf=released, .ensemble_checkpoint=DIR, ...: experiments/configs/default.py.

IMAGE is a file or a folder of them (JPEG, PNG, BMP, WebP, TIFF). Writes NAME.png, the label map with VOC's palette
(pixels are class ids; of more than 255 classes in 16 bits of grey), and NAME_overlay.jpg: image, prediction and overlay
side by side. Photographs are turned upright as their EXIF data says. Hidden files in folders are left out. An image
that cannot be read or segmented, or whose results cannot be written, is named on stderr and the others are still done;
the exit status is then 1.
"""

import sys
from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_checkpoint()
    cli.define_path("output", None, "folder for the label maps and overlays", in_bucket=True)
    flags.DEFINE_integer("max_pixels", 50_000_000, "larger photographs are refused", lower_bound=1)
    cli.define_config(cli.HOW_TO_SEGMENT, cli.EVERY_SETTING)
    flags.mark_flag_as_required("output")
    flags.FLAGS.set_gnu_getopt(True)  # flags may also follow the images


def main(argv: Sequence[str]) -> None:
    """Segments the images on the command line."""
    from .tasks.predict import run

    if run(**cli.arguments_of(run), arguments=argv[1:]):
        sys.exit(1)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
