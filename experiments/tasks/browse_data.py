"""Draws crops of a training on one sheet and counts what they show."""

import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from rich.table import Table

from deconvnet_jax.data import Source, Windows, class_windows, split_counts
from deconvnet_jax.errors import counted
from deconvnet_jax.images import save_picture
from deconvnet_jax.labels import IGNORE
from deconvnet_jax.processes import say
from deconvnet_jax.terminal import console
from deconvnet_jax.visualization import contact_sheet

from ..common.checks import likely_mistakes_of_windows, warn_of_common_images
from ..common.dataset import TrainingData, open_training_data
from ..common.output import output_folder
from ..configs import settings

BATCH = 16
TINY = 16  # pixels; a smaller window shows nothing when it is enlarged to a crop
MANY_TINY = 0.1  # part of the windows that may be tiny without a warning


def run(
    config: ml_collections.ConfigDict,
    output: str | Path,
    *,
    count: int = 36,
    sample: int = 512,
    palette: str = "voc",
) -> dict[str, Any]:
    """Writes a sheet of crops, prints statistics as tables and returns them.

    Args:
      config: Config that names the data and says how crops are made.
      output: Folder for examples.png; it may be in a bucket.
      count: Number of crops on the sheet.
      sample: Number of crops whose pixels are counted, at least `count`.
      palette: Colours of the classes, "voc" or "colour_blind".

    Returns:
      The statistics, as JSON values.

    Raises:
      InputError: for data or a folder that cannot be used.
    """
    folder = output_folder(output)
    found = open_training_data(settings.checked(config))
    source, windows, repeated, names = found.trained, found.windows, found.repeated, found.class_names
    warn(found)
    crops = first_crops(found, max(count, sample))
    images, labels = list(crops["image"][:count]), list(crops["label"][:count])
    page = contact_sheet(images, labels, [str(i + 1) for i in range(count)], names, palette=palette)
    save_picture(folder / "examples.png", page)
    statistics = {
        "images": len(source),
        "images_without_windows": len(source) - len(np.unique(windows.images)),
        "windows": len(windows.images),
        "windows_with_repetitions": len(repeated.images),
        "small_parts": found.small_parts,
        "classes": class_statistics(windows, repeated, crops["label"], names),
        "ignored_pixels": round(float(np.mean(crops["label"] == IGNORE)), 6),
        "boxes": box_statistics(windows, source),
        "picture": str(folder / "examples.png"),
    }
    print_tables(statistics, with_boxes=set(found.config.data.windows) != {"image"})
    return statistics


def warn(found: TrainingData) -> None:
    """Prints the warnings about the data that a training would begin with.

    Args:
      found: Config and data of the training.
    """
    for warning in (*likely_mistakes_of_windows(found.config, found.class_names), *_tiny_windows(found.windows)):
        say(f"warning: {warning}")
    splits = found.config.data.train_split, found.config.data.eval_split
    if splits[1] in split_counts(found.builder):
        warn_of_common_images(found.trained, np.unique(found.windows.images).tolist(), found.evaluated, *splits)


def _tiny_windows(windows: Windows) -> list[str]:
    """Returns a warning if many objects, or parts of them, are so small that their crops show nothing."""
    sides = (windows.boxes[:, 2:] - windows.boxes[:, :2]).max(axis=1)
    tiny = int(np.count_nonzero(sides < TINY))
    if tiny <= MANY_TINY * len(sides):
        return []
    return [
        f"{tiny:,} of {len(sides):,} windows are smaller than {TINY} pixels: remove specks from the masks of objects"
    ]


def first_crops(found: TrainingData, count: int) -> dict[str, np.ndarray]:
    """Returns the first crops that a training gets.

    Args:
      found: Config and data of the training.
      count: Number of crops.

    Returns:
      "image", uint8 RGB [count, S, S, 3], and "label", uint8 class ids [count, S, S], with the crop size S.
    """
    with closing(found.batches(BATCH)) as batches:
        taken = list(islice(batches, -(-count // BATCH)))
    return {key: np.concatenate([batch[key] for batch in taken])[:count] for key in taken[0]}


def class_statistics(
    windows: Windows, repeated: Windows, labels: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Counts windows and pixels of every class.

    Args:
      windows: Windows of the training split.
      repeated: The same windows, with those of rare classes repeated.
      labels: Masks of crops, uint8 class ids [N, S, S].
      names: Names of the classes in the order of their ids.

    Returns:
      For each class its "windows", its "windows_with_repetitions" and its share of the "pixels" that are not ignored.
    """
    pixels = np.bincount(labels[labels != IGNORE].ravel(), minlength=len(names))
    counts, repetitions = (class_windows(found, len(names)) for found in (windows, repeated))
    return {
        name: {
            "windows": int(counts[i]),
            "windows_with_repetitions": int(repetitions[i]),
            "pixels": round(float(pixels[i] / max(1, pixels.sum())), 6),
        }
        for i, name in enumerate(names)
    }


def box_statistics(windows: Windows, source: Source) -> dict[str, list[float]]:
    """Measures how large the windows are and how much of them is outside the image.

    Args:
      windows: Windows of the training split.
      source: The images of the split.

    Returns:
      The percentiles in "percent": of the longer side in pixels ("side_pixels"), and of the share outside the image
      ("share_outside", 0 to 1).
    """
    sizes = np.array([source.size(i) for i in range(len(source))], np.float64)[
        windows.images
    ]  # [n, 2]: height and width
    sides = windows.boxes[:, 2:] - windows.boxes[:, :2]
    low, high = np.maximum(windows.boxes[:, :2], 0), np.minimum(windows.boxes[:, 2:], sizes[:, ::-1])
    inside = np.minimum(np.prod(np.maximum(high - low, 0), axis=1) / np.prod(sides, axis=1), 1)
    points = (5, 25, 50, 75, 95)
    return {
        "percent": list(points),
        "side_pixels": np.percentile(sides.max(axis=1), points).round(1).tolist(),
        "share_outside": np.percentile(1 - inside, points).round(3).tolist(),
    }


def print_tables(statistics: dict[str, Any], with_boxes: bool) -> None:
    """Prints the statistics as tables and a line, on stderr because stdout is for the JSON line.

    Args:
      statistics: The statistics, from `run`.
      with_boxes: Whether there are windows around objects, so that their classes and sizes say something.
    """
    shown = console(stderr=True)
    classes = Table("class", *(("windows", "with repetitions") if with_boxes else ()), "pixels of crops")
    for column in classes.columns[1:]:
        column.justify = "right"
    for name, row in statistics["classes"].items():
        counts = (f"{row['windows']:,}", f"{row['windows_with_repetitions']:,}") if with_boxes else ()
        classes.add_row(name, *counts, f"{100 * row['pixels']:.2f} %")
    shown.print(classes)
    if with_boxes:
        shown.print(_box_table(statistics["boxes"]))
    print(
        f"{counted(statistics['windows'], 'window')} in {counted(statistics['images'], 'image')}; "
        f"images without a window: {statistics['images_without_windows']:,}; "
        f"connected parts too small for one: {statistics['small_parts']:,}; "
        f"ignored pixels of the crops: {100 * statistics['ignored_pixels']:.1f} %; picture: {statistics['picture']}",
        file=sys.stderr,
    )


def _box_table(statistics: dict[str, list[float]]) -> Table:
    table = Table("percentile of the windows", *(f"{percent} %" for percent in statistics["percent"]))
    table.add_row("side, pixels", *(f"{value:.0f}" for value in statistics["side_pixels"]))
    table.add_row("outside the image", *(f"{100 * value:.0f} %" for value in statistics["share_outside"]))
    return table
