"""Imports one split of COCO annotations into a folder in the VOC layout, and prints what it holds."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from deconvnet_jax.data import import_coco
from deconvnet_jax.data.coco import CocoSummary
from deconvnet_jax.errors import counted
from deconvnet_jax.terminal import ProgressBar, console


def run(
    annotations: Path, images: Path, output: Path, split: str, categories: Sequence[str] | None, skip_empty: bool
) -> None:
    """Imports one split of COCO annotations and prints its classes.

    Args:
      annotations: JSON file in COCO's format.
      images: Folder with the images, under the file names that the JSON file gives.
      output: Folder in the VOC layout, new or with other splits.
      split: Name of the split to write.
      categories: Categories to keep in the order of their class ids, "a=b" to rename a; None: all.
      skip_empty: Whether images without objects are left out.

    Raises:
      InputError: for annotations, images or a folder that cannot be used.
    """
    output = output.expanduser().absolute()
    with ProgressBar("importing images") as bar:
        summary = import_coco(
            annotations, images, output, split, categories=categories, skip_empty=skip_empty, progress=bar.update
        )
    print_classes(summary)
    for warning in summary.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{output}: split {split}, {describe(summary)}")


def print_classes(summary: CocoSummary) -> None:
    """Prints a table of the classes on stderr."""
    table = Table("id", "class", "images", "objects", "pixels")
    for column in table.columns[2:]:
        column.justify = "right"
    for class_id, (name, *counts) in enumerate(summary.classes):
        table.add_row(str(class_id), Text(name), *(f"{count:,}" for count in counts))
    console(stderr=True, width=120).print(table)


def describe(summary: CocoSummary) -> str:
    """Returns one line that says how many images, objects and ignored pixels were written."""
    pixels = summary.ignored_pixels + sum(count.pixels for count in summary.classes)
    parts = [
        counted(summary.images, "image"),
        f"{counted(summary.objects, 'object')} of {counted(len(summary.classes) - 1, 'class', 'classes')}",
        f"{counted(summary.ignored_pixels, 'pixel')} ignored ({summary.ignored_pixels / pixels:.1%})",
    ]
    if summary.left_out:
        parts.append(f"{counted(summary.left_out, 'image')} without objects left out")
    if summary.hidden:
        parts.append(f"{counted(summary.hidden, 'annotation')} without a visible pixel left out")
    return ", ".join(parts)
