"""Imports masks of annotation tools into a folder in the VOC layout (`voc_layout`).

summary = import_masks("photos", "masks", "roads", MaskReading(binary="road"))
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.mask_files import PICTURES, Found, MaskPairing, sort_files
from deconvnet_jax.data.mask_pairs import Pair, pair_files
from deconvnet_jax.data.mask_readers import KINDS, UNKNOWN, MaskReading, PictureMasks, ShapeMasks, reader_of
from deconvnet_jax.data.mask_splits import MaskDivision, divide, mixed_folders
from deconvnet_jax.data.voc_writer import (
    ClassCount,
    VocWriter,
    class_counts,
    count_classes,
    has_files,
    turned_photographs,
    voc_writer,
)
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import remove_unfinished, user_path
from deconvnet_jax.images import read_image
from deconvnet_jax.labels import IGNORE

Progress = Callable[[int, int], None]


class SplitCount(NamedTuple):
    """What one split holds.

    Attributes:
      images: number of images.
      ignored_pixels: number of pixels that are 255.
      classes: counts of every class in the order of the ids.
    """

    images: int
    ignored_pixels: int
    classes: tuple[ClassCount, ...]


class MaskSummary(NamedTuple):
    """Summary of an import.

    Attributes:
      kind: how the masks were read: "ids", "colours", "binary", "labelme" or "supervisely".
      classes: class names in the order of the ids.
      sources: for every class, the numbers, colours or names that mark it in the masks.
      splits: counts of the splits, by name.
      divided: how the images were divided into splits.
      has_objects: whether masks of objects were written.
      warnings: one line about each thing that is probably a mistake.
    """

    kind: str
    classes: tuple[str, ...]
    sources: tuple[str, ...]
    splits: dict[str, SplitCount]
    divided: str
    has_objects: bool
    warnings: tuple[str, ...]


def import_masks(
    images: str | Path,
    masks: str | Path | None,
    output: str | Path,
    reading: MaskReading | None = None,
    pairing: MaskPairing | None = None,
    division: MaskDivision | None = None,
    progress: Progress | None = None,
) -> MaskSummary:
    """Writes a folder in the VOC layout from photographs and masks, completely or not at all.

    Masks may hold class ids, colours, or black and white, or be annotations of labelme or Supervisely. What the files
    do not say for certain is an error, which names the flag of `experiments.import_masks` that decides it.

    Args:
      images: folder with the photographs, of any nesting. JPEG and PNG are copied unchanged.
      masks: folder with the masks; None if they lie in `images`.
      output: folder to create. It must not exist, or be empty.
      reading: how masks are read; None recognises it.
      pairing: how masks are matched with photographs; None by equal names.
      division: which images are held out; None: those of the export, or a fifth.
      progress: function that is called with the number of images done and of all images.

    Returns:
      Counts and warnings.

    Raises:
      InputError: for the first thing that is missing, damaged, or cannot be decided.

    Example:
      >>> import pathlib
      >>> from deconvnet_jax.data import MaskReading, import_masks
      >>> from PIL import Image
      >>> for number in range(5):
      ...     for folder, mode in (("photos", "RGB"), ("masks", "L")):
      ...         pathlib.Path(folder).mkdir(exist_ok=True)
      ...         picture = Image.new(mode, (40, 30))
      ...         picture.paste("white", (10, 10, 20, 20))
      ...         picture.save(f"{folder}/{number}.png")
      >>> summary = import_masks("photos", "masks", "roads", MaskReading(binary="road"))
      >>> summary.classes, summary.splits["val"].classes[1].pixels
      (('background', 'road'), 100)
    """
    reading, pairing, division = reading or MaskReading(), pairing or MaskPairing(), division or MaskDivision()
    images = user_path(images, "--images")
    masks = images if masks is None else user_path(masks, "--masks")
    output = user_path(output, "--output").absolute()
    _check_output(output, {"--images": images, "--masks": masks})
    if masks.name.casefold() == "segmentationclass":  # The classes and objects of CVAT's export lie beside it.
        masks = masks.parent
    pairs, others, notes = _find(images, masks, reading, pairing)
    splits, divided = divide(pairs, division, others)
    notes += mixed_folders(pairs, division, divided)
    split_of = {name: split for split, members in splits.items() for name in members}
    if len(split_of) < len(pairs):
        notes.append(f"{len(pairs) - len(split_of)} of {len(pairs)} images are in no list and left out")
        pairs = [pair for pair in pairs if pair.name in split_of]
    reader = reader_of(pairs, others, reading, progress)
    counts = {split: np.zeros((3, IGNORE + 1), np.int64) for split in splits}
    has_objects = False
    remove_unfinished(output.parent)
    with voc_writer(output) as writer:
        for i, pair in enumerate(pairs):
            shown, with_objects = _write(pair, reader, writer)
            counts[split_of[pair.name]] += shown
            has_objects |= with_objects
            if progress:
                progress(i + 1, len(pairs))
        _check_shown(reader, np.sum(list(counts.values()), axis=0))
        writer.finish(reader.table.names, {**splits, "trainval": [*splits["train"], *splits["val"]]})
    names = reader.table.names
    found = {
        split: SplitCount(len(splits[split]), int(count[2, IGNORE]), class_counts(names, count))
        for split, count in counts.items()
    }
    warnings = [*notes, *reader.warnings(), *_doubts(reader, found), *turned_photographs([p.image for p in pairs])]
    return MaskSummary(reader.kind, names, reader.table.sources(), found, divided, has_objects, tuple(warnings))


def _check_output(output: Path, inputs: Mapping[str, Path]) -> None:
    """Raises InputError unless the output is new or empty, and lies outside the folders that are read."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output: {output} is a file; name a new folder")
    if has_files(output):
        raise InputError(f"--output: {output} holds files already; name a new folder, or delete this one")
    for flag, folder in inputs.items():
        if output.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"--output={output} lies inside {flag}={folder}, where the next import would read it; name a folder "
                "elsewhere"
            )


def _find(
    images: Path, masks: Path, reading: MaskReading, pairing: MaskPairing
) -> tuple[list[Pair], list[Found], list[str]]:
    """Returns the photographs with their masks, the other files, and warnings."""
    for flag, value, allowed in (("kind", reading.kind, (None, *KINDS)), ("unknown", reading.unknown, UNKNOWN)):
        if value not in allowed:
            raise InputError(f"--{flag}={value}: expected one of {', '.join(filter(None, allowed))}")
    kinds = (*PICTURES, ".json")
    if reading.kind is not None or reading.binary is not None:
        kinds = (".json",) if reading.kind in ("labelme", "supervisely") else PICTURES
    folders = sort_files(images, masks, pairing, kinds)
    pairs, notes = pair_files(folders, pairing.unmatched)
    return pairs, folders.others, notes


def _write(pair: Pair, reader: PictureMasks | ShapeMasks, writer: VocWriter) -> tuple[np.ndarray, bool]:
    """Writes an image and its masks.

    Returns:
      What the image adds to the counts of the classes (`count_classes`), and whether it has a mask of objects.

    Raises:
      InputError: if the photograph or a mask is not usable, or their sizes differ.
    """
    height, width, _ = read_image(pair.image).shape
    label, instances, class_ids = reader.read(pair, (height, width))
    writer.add(pair.name, pair.image, label, instances)
    return count_classes(label, class_ids), instances is not None


def _check_shown(reader: PictureMasks | ShapeMasks, counts: np.ndarray) -> None:
    """Raises InputError if all masks together show fewer than two classes, so that nothing can be learnt."""
    shown = [reader.table.names[i] for i in np.flatnonzero(counts[2, : len(reader.table.names)])]
    if reader.kind == "ids" and len(shown) < 2 and counts[2, IGNORE]:
        raise InputError(
            f"the masks show only {' and '.join([*shown, str(IGNORE)])}, and {IGNORE} marks ignored pixels; if it "
            "marks a class, give --binary=NAME in place of other names"
        )
    if len(shown) < 2:
        raise InputError(
            f"the masks show only {shown[0] if shown else 'ignored pixels'}; expected two or more classes: check the "
            "masks"
        )


def _doubts(reader: PictureMasks | ShapeMasks, splits: Mapping[str, SplitCount]) -> list[str]:
    """Returns warnings about classes that a split does not show, and about a missing background."""
    names = reader.table.names
    warnings: list[str] = []
    for split in ("train", "val"):
        missing = [count.name for count in splits[split].classes if not count.pixels]
        if missing:
            shown = ", ".join(missing[:12]) + (", ..." if len(missing) > 12 else "")
            warnings.append(f"the split {split} shows nothing of {len(missing)} of {len(names)} classes: {shown}")
    if not reader.table.has_background:
        warnings.append(
            f"no class is called background, so '{names[0]}' has the id 0; train on whole images: --config=semantic"
        )
    return warnings
