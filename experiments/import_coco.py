r"""Converts COCO annotations, polygons or run lengths, into a folder in the VOC layout that can be trained on.

Usage:
    python -m experiments.import_coco --annotations=FILE --images=FOLDER --output=FOLDER --split=NAME \
        [--categories=A,B,...] [--skip_empty]

Example:
    python -m experiments.import_coco --annotations=instances_train.json --images=train2017 --output=coco_voc \
        --split=train --categories=dog,cat=feline,lion=feline

One call writes one split. Call it again with the same --output and --categories for the next split. Where objects
overlap, the smaller one is on top. Crowds become ignored pixels (255).

The program prints how often each class occurs. The last line of stdout says what was written. After an error the
folder is as it was before.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("annotations", None, "JSON file in COCO's format, such as instances_train2017.json.")
    cli.define_path("images", None, "Folder with the images, under the file names that the JSON file gives.")
    cli.define_path("output", None, "Folder in the VOC layout: a new one, or one with other splits.")
    flags.DEFINE_string("split", None, "Name of the split to write, for example train or val.")
    flags.DEFINE_list(
        "categories",
        None,
        "Categories to keep, in the order of their class ids. `a=b` gives objects of category a the class b. Default: "
        "all categories, in the order of their COCO ids.",
    )
    flags.DEFINE_bool("skip_empty", False, "Leave out images without objects. Otherwise they are all background.")
    flags.mark_flags_as_required(["annotations", "images", "output", "split"])


def main(argv: Sequence[str]) -> None:
    """Imports one split."""
    from .tasks.import_coco import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
