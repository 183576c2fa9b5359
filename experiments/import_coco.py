"""Brings annotations in COCO's form, polygons or run lengths, into a folder in the VOC layout, ready for training.

    python -m experiments.import_coco --annotations=instances_train.json --images=FOLDER --output=VOC_FOLDER \
        --split=train [--categories=dog,cat=feline,lion=feline] [--skip_empty]

One call writes one split; the same --output takes the next (--split=val), with the same --categories. Where objects
overlap, the smaller one is on top; crowds are ignored pixels (255). Prints how often every class occurs; the last line
of stdout says what was written. After an error the folder is as it was before.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("annotations", None, "COCO's instances_*.json, with polygons or run lengths")
    cli.define_path("images", None, "folder below which the images lie as the JSON names them")
    cli.define_path("output", None, "folder in the VOC layout, new or with other splits")
    flags.DEFINE_string("split", None, "train, val, ...: the split to write")
    flags.DEFINE_list(
        "categories",
        None,
        "categories to keep, in the order of the class ids; a=b calls a's objects b; default: all, by their ids",
    )
    flags.DEFINE_bool("skip_empty", False, "leave out images without any object; otherwise they are background")
    flags.mark_flags_as_required(["annotations", "images", "output", "split"])


def main(argv: Sequence[str]) -> None:
    """Imports one split."""
    from .tasks.import_coco import run

    cli.no_arguments(argv)
    run(**cli.arguments_of(run))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
