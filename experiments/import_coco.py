"""Brings annotations in COCO's form, polygons or run lengths, into a folder in the VOC layout, ready for training.

    python -m experiments.import_coco --annotations=instances_train.json --images=FOLDER --output=VOC_FOLDER \
        --split=train [--categories=dog,cat=feline,lion=feline] [--skip_empty]

One call writes one split; the same --output takes the next (--split=val), with the same --categories. Where objects
overlap, the smaller one is on top; crowds are ignored pixels (255). Prints how often every class occurs; the last line
of stdout says what was written. After an error the folder is as it was before.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deconvnet_jax.data import import_coco
from deconvnet_jax.data.coco import CocoSummary
from deconvnet_jax.errors import InputError

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
    cli.no_arguments(argv)
    values = flags.FLAGS
    for flag in ("annotations", "images", "output"):
        if not values[flag].value:
            raise InputError(f"--{flag} is empty; give a {'file' if flag == 'annotations' else 'folder'}")
    output = Path(values.output).expanduser().absolute()
    with cli.ProgressBar("importing images") as bar:
        summary = import_coco(
            values.annotations,
            values.images,
            output,
            values.split,
            categories=values.categories,
            skip_empty=values.skip_empty,
            progress=bar.update,
        )
    print_classes(summary)
    for warning in summary.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{output}: split {values.split}, {describe(summary)}")


def print_classes(summary: CocoSummary) -> None:
    """A table of the classes on stderr."""
    table = Table("id", "class", "images", "objects", "pixels")
    for column in table.columns[2:]:
        column.justify = "right"
    for class_id, (name, *counts) in enumerate(summary.classes):
        table.add_row(str(class_id), Text(name), *(f"{count:,}" for count in counts))
    Console(stderr=True, width=None if Console(stderr=True).is_terminal else 120).print(table)


def describe(summary: CocoSummary) -> str:
    """What was written, in one line."""
    pixels = summary.ignored_pixels + sum(count.pixels for count in summary.classes)
    parts = [
        f"{summary.images} images",
        f"{summary.objects} objects of {len(summary.classes) - 1} classes",
        f"{summary.ignored_pixels} pixels ignored ({summary.ignored_pixels / pixels:.1%})",
    ]
    if summary.left_out:
        parts.append(f"{summary.left_out} images without objects left out")
    if summary.hidden:
        parts.append(f"{summary.hidden} annotations without a visible pixel left out")
    return ", ".join(parts)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
