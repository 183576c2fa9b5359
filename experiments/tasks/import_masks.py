"""Imports photographs and masks into a folder in the VOC layout, and prints what it holds."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from deconvnet_jax.data import MaskDivision, MaskPairing, MaskReading, MaskSummary, import_masks
from deconvnet_jax.errors import counted
from deconvnet_jax.terminal import ProgressBar, console


def run(
    images: Path,
    masks: Path | None,
    output: Path,
    mask_suffix: str | None = None,
    image_suffix: str | None = None,
    kind: str | None = None,
    classes: Path | None = None,
    names: Sequence[str] | None = None,
    binary: str | None = None,
    threshold: int | None = None,
    ignore: Sequence[str] | None = None,
    unknown: str = "error",
    unmatched: str = "error",
    objects: bool = True,
    val: float | None = None,
    seed: int = 0,
    train_list: Path | None = None,
    val_list: Path | None = None,
) -> None:
    """Imports photographs and masks, and prints their classes.

    Args:
      images: Folder with the photographs.
      masks: Folder with the masks; None: that of the photographs.
      output: Folder to write, new or empty.
      mask_suffix: End of the names of masks that photographs do not have; None: Roboflow's if it is such an export.
      image_suffix: End of the names of photographs that masks do not have; None: none.
      kind: What marks the classes; None: what the files show.
      classes: File of the classes; None: the one among the masks, or `names`.
      names: Class names in the order of the ids, or "ID=NAME".
      binary: The class of black-and-white masks; None: masks are not binary.
      threshold: Grey value from which a pixel belongs to that class; None: only 0 and 255 are allowed.
      ignore: Classes whose pixels become 255; None: none.
      unknown: What pixels without a class become: "error", "ignore" or "background".
      unmatched: What happens to files without a partner: "error", "skip" or "background".
      objects: Whether to write the numbers of single objects, if the files mark them.
      val: Part of the images that is held out; None: as the export says, otherwise 0.2.
      seed: Number that selects them.
      train_list: List of the training images.
      val_list: List of the images held out.

    Raises:
      InputError: for files that cannot be used, or that need a further flag.
    """
    output = output.expanduser().absolute()
    with ProgressBar("importing masks") as bar:
        summary = import_masks(
            images,
            masks,
            output,
            MaskReading(kind, classes, names, binary, threshold, ignore or (), unknown, objects),
            MaskPairing(mask_suffix, image_suffix or "", unmatched),
            MaskDivision(val, seed, train_list, val_list),
            bar.update,
        )
    print_classes(summary)
    for warning in summary.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{output}: {describe(summary)}")


def print_classes(summary: MaskSummary) -> None:
    """Prints a table of the classes in each split on stderr."""
    table = Table("id", "class", "in the masks")
    columns = ("images", "objects", "pixels") if summary.has_objects else ("images", "pixels")
    for split in summary.splits:
        for column in columns:
            table.add_column(f"{split}\n{column}", justify="right")
    for class_id, (name, source) in enumerate(zip(summary.classes, summary.sources, strict=True)):
        counts = [getattr(split.classes[class_id], column) for split in summary.splits.values() for column in columns]
        table.add_row(str(class_id), Text(name), Text(source), *(f"{count:,}" for count in counts))
    ignored = [split.ignored_pixels for split in summary.splits.values()]
    if any(ignored):
        blank = [""] * (len(columns) - 1)
        table.add_row("255", "(ignored)", "", *(cell for count in ignored for cell in (*blank, f"{count:,}")))
    console(stderr=True, width=120).print(table)


def describe(summary: MaskSummary) -> str:
    """Returns one line that says what was written and how the images were divided."""
    splits = summary.splits.values()
    ignored = sum(split.ignored_pixels for split in splits)
    pixels = ignored + sum(count.pixels for split in splits for count in split.classes)
    objects = sum(count.objects for split in splits for count in split.classes)
    parts = [
        ", ".join(f"{name} {counted(split.images, 'image')}" for name, split in summary.splits.items())
        + f" ({summary.divided})",
        f"{counted(len(summary.classes), 'class', 'classes')} from {_KINDS[summary.kind]}",
        *([counted(objects, "object")] if summary.has_objects else []),
        f"{counted(ignored, 'pixel')} ignored ({ignored / pixels:.1%})",
    ]
    return ", ".join(parts)


_KINDS = {
    "ids": "class ids",
    "colours": "colours",
    "binary": "black and white",
    "labelme": "labelme's shapes",
    "supervisely": "Supervisely's objects",
}
