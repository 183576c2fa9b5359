"""Imports COCO annotations (instances_*.json) into a folder in the VOC layout (`voc_layout`).

summary = import_coco("instances_train.json", "train_images", "my_data", "train", categories=["dog", "cat"])
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.coco_annotations import CocoImage, read_annotations
from deconvnet_jax.data.coco_masks import paint
from deconvnet_jax.data.voc_layout import class_names
from deconvnet_jax.data.voc_writer import (
    LISTS,
    ClassCount,
    DrawnMasks,
    VocWriter,
    class_counts,
    count_classes,
    has_files,
    turned_photographs,
    voc_writer,
)
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import no_file, remove_unfinished
from deconvnet_jax.images import read_image
from deconvnet_jax.labels import IGNORE

Progress = Callable[[int, int], None]


class CocoSummary(NamedTuple):
    """Summary of an import.

    Attributes:
      images: number of images written.
      left_out: number of images that were left out because they show no object.
      objects: number of visible objects written.
      hidden: number of annotations without a visible pixel: covered by smaller objects, or smaller than a pixel.
      ignored_pixels: number of pixels that are 255, because they belong to a crowd.
      classes: counts of every class in the order of the ids, background first.
      warnings: one line about each thing that is probably a mistake.
    """

    images: int
    left_out: int
    objects: int
    hidden: int
    ignored_pixels: int
    classes: tuple[ClassCount, ...]
    warnings: tuple[str, ...] = ()


def import_coco(
    annotations: str | Path,
    images: str | Path,
    output: str | Path,
    split: str,
    *,
    categories: Sequence[str] | None = None,
    skip_empty: bool = False,
    progress: Progress | None = None,
) -> CocoSummary:
    """Writes one split of a folder in the VOC layout, completely or not at all. Other splits stay unchanged.

    Args:
      annotations: JSON file in the format of COCO's instances_*.json.
      images: folder that the file names in the JSON are relative to. Images are copied unchanged.
      output: folder to create, or to add the split to. An existing one must have the same classes.
      split: name of the split: a letter, then letters, digits and _. It must be new in `output`.
      categories: categories to keep, in the order of their class ids. "a=b" names the class of category "a" "b", and
        several categories may share a class. All others become background. None keeps all, in the order of their ids.
      skip_empty: whether to leave out images without an object of the kept categories. Otherwise they are background.
      progress: function that is called with the number of images done and of all images.

    Returns:
      Counts and warnings.

    Raises:
      InputError: if the annotations or an image are not usable, no annotation covers a pixel, an image shows more than
        254 objects, or no image is left. Also if `output` has this split, other classes, or other images of the same
        names.

    Example:
      >>> import json, pathlib
      >>> from deconvnet_jax.data import import_coco
      >>> from PIL import Image
      >>> pathlib.Path("coco").mkdir()
      >>> Image.new("RGB", (80, 60)).save("coco/a.jpg")
      >>> cat = {"image_id": 1, "category_id": 7, "segmentation": [[10, 10, 30, 10, 30, 20, 10, 20]]}
      >>> image = {"id": 1, "file_name": "a.jpg", "width": 80, "height": 60}
      >>> content = {"images": [image], "categories": [{"id": 7, "name": "cat"}], "annotations": [cat]}
      >>> _ = pathlib.Path("coco/instances.json").write_text(json.dumps(content))
      >>> summary = import_coco("coco/instances.json", "coco", "my_data", "train")
      >>> summary.images, summary.objects, summary.classes[1].pixels
      (1, 1, 200)
    """
    annotations, images = Path(annotations).expanduser(), Path(images).expanduser()
    output = Path(output).expanduser().absolute()
    if not images.is_dir():
        raise InputError(no_file(images, "folder", f"give the folder that holds the images of {annotations}"))
    _check_split(output, split)
    classes, found, notes = read_annotations(annotations, categories)
    _check_classes(output, classes)
    remove_unfinished(output.parent)
    with voc_writer(output) as writer:
        written: list[CocoImage] = []
        counts = np.zeros((3, IGNORE + 1), np.int64)
        for i, image in enumerate(found):
            shown = _write_image(image, images, writer, skip_empty)
            if shown is not None:
                written.append(image)
                counts += shown
            if progress:
                progress(i + 1, len(found))
        annotated = [item for image in written for item in image.objects]
        _check_written(annotations, len(written), len(annotated), covered=bool(counts[2, 1:].any()))
        writer.finish(classes, {split: [image.file.stem for image in written]})
    return CocoSummary(
        images=len(written),
        left_out=len(found) - len(written),
        objects=int(counts[1].sum()),
        hidden=sum(not item.crowd for item in annotated) - int(counts[1].sum()),
        ignored_pixels=int(counts[2, IGNORE]),
        classes=class_counts(classes, counts),
        warnings=(*notes, *turned_photographs([images / image.file for image in written])),
    )


def _check_written(annotations: Path, images: int, annotated: int, covered: bool) -> None:
    """Raises InputError if no image is left, or if annotations cover no pixel."""
    if not images:
        raise InputError(
            f"{annotations}: no image shows an object of the chosen categories; choose other --categories or omit "
            "--skip_empty"
        )
    if annotated and not covered:
        raise InputError(
            f"{annotations}: none of the {annotated} annotations covers a pixel; expected coordinates in pixels of the "
            "images"
        )


def _check_split(output: Path, split: str) -> None:
    """Raises InputError unless a split of this name can be added to the output."""
    if not re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) or split == "all":  # TFDS accepts no other names.
        raise InputError(
            f"--split={split}: not usable as a name; expected a letter, then letters, digits and _, and not 'all'"
        )
    if output.exists() and not output.is_dir():
        raise InputError(f"--output: {output} is a file; name a folder, new or in the VOC layout")
    path = output / LISTS / f"{split}.txt"
    if path.exists():
        raise InputError(f"--split={split}: {path} already exists; name another split, or delete the folder")


def _check_classes(output: Path, classes: tuple[str, ...]) -> None:
    """Raises InputError unless images with these classes can be added to the output."""
    if not has_files(output):
        return
    there = class_names(output)
    if there != classes:
        raise InputError(
            f"{output / 'classes.txt'} has the {len(there)} classes {', '.join(there)}, but the annotations have the "
            f"{len(classes)} classes {', '.join(classes)}; choose the same with --categories, or name another --output"
        )


def _checked_masks(image: CocoImage, images: Path) -> DrawnMasks:
    """Returns `paint(image)` after checking the file of the image.

    Raises:
      InputError: if the file is missing, damaged or of another size than the annotations say, or `paint` fails.
    """
    path = images / image.file
    if not path.is_file():
        raise InputError(f"no image {path}, although {image.where} names it; add it or correct --images")
    height, width, _ = read_image(path).shape
    if (height, width) != (image.height, image.width):
        raise InputError(
            f"{path} is {width}x{height} pixels (its EXIF orientation is not applied), but {image.where} says "
            f"{image.width}x{image.height}; use the image that the annotations were drawn on"
        )
    return paint(image)


def _write_image(image: CocoImage, images: Path, writer: VocWriter, skip_empty: bool) -> np.ndarray | None:
    """Writes an image and its masks; returns None, and writes nothing, if it is left out as empty.

    Returns:
      What the image adds to the counts of the classes (`count_classes`).
    """
    if skip_empty and not image.objects:
        return None
    label, instances, class_ids = _checked_masks(image, images)
    if skip_empty and not len(class_ids):
        return None
    writer.add(image.file.stem, images / image.file, label, instances)
    return count_classes(label, class_ids)
