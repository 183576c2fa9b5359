"""Imports COCO annotations (instances_*.json) into a folder in the VOC layout (`voc_layout`).

summary = import_coco("instances_train.json", "train_images", "my_data", "train", categories=["dog", "cat"])
"""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.coco_annotations import CocoImage, read_annotations
from deconvnet_jax.data.coco_masks import paint
from deconvnet_jax.data.voc_layout import IMAGE_SUFFIXES, class_names
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import no_file, remove_unfinished, unfinished_folder
from deconvnet_jax.images import image_orientation, read_image, read_mask
from deconvnet_jax.labels import IGNORE, label_image

Progress = Callable[[int, int], None]

_MASKS = ("SegmentationClass", "SegmentationObject")
_SPLITS = "ImageSets/Segmentation"


class ClassCount(NamedTuple):
    """How often a class occurs in what was written.

    Attributes:
      name: class name.
      images: number of images that show the class.
      objects: number of visible objects; 0 for background.
      pixels: number of pixels.
    """

    name: str
    images: int
    objects: int
    pixels: int


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
    # Files can be moved only within one disk, so the unfinished folder lies inside an existing output.
    with unfinished_folder(output, output if output.exists() else None) as folder:
        for part in ("JPEGImages", *_MASKS, _SPLITS):
            (folder / part).mkdir(parents=True)
        written: list[CocoImage] = []
        counts = np.zeros((3, IGNORE + 1), np.int64)
        for i, image in enumerate(found):
            shown = _write_image(image, images, folder, output, skip_empty)
            if shown is not None:
                written.append(image)
                counts += shown
            if progress:
                progress(i + 1, len(found))
        annotated = [item for image in written for item in image.objects]
        _check_written(annotations, len(written), len(annotated), covered=bool(counts[2, 1:].any()))
        (folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        names = "".join(f"{image.file.stem}\n" for image in written)
        (folder / _SPLITS / f"{split}.txt").write_text(names, encoding="utf-8")
        _move_in(folder, output)
    return CocoSummary(
        images=len(written),
        left_out=len(found) - len(written),
        objects=int(counts[1].sum()),
        hidden=sum(not item.crowd for item in annotated) - int(counts[1].sum()),
        ignored_pixels=int(counts[2, IGNORE]),
        classes=tuple(map(ClassCount, classes, *counts.tolist())),
        warnings=(*notes, *_turned([images / image.file for image in written])),
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
    path = output / _SPLITS / f"{split}.txt"
    if path.exists():
        raise InputError(f"--split={split}: {path} already exists; name another split, or delete the folder")


def _check_classes(output: Path, classes: tuple[str, ...]) -> None:
    """Raises InputError unless images with these classes can be added to the output."""
    files = [path.relative_to(output) for path in output.rglob("*") if path.is_file()]
    # Hidden files belong to the system or to unfinished imports.
    if all(any(part.startswith(".") for part in file.parts) for file in files):
        return
    there = class_names(output)
    if there != classes:
        raise InputError(
            f"{output / 'classes.txt'} has the {len(there)} classes {', '.join(there)}, but the annotations have the "
            f"{len(classes)} classes {', '.join(classes)}; choose the same with --categories, or name another --output"
        )


def _checked_masks(image: CocoImage, images: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _write_image(image: CocoImage, images: Path, folder: Path, output: Path, skip_empty: bool) -> np.ndarray | None:
    """Writes an image and its masks to `folder`; returns None, and writes nothing, if it is left out as empty.

    Returns:
      For every class id: whether the image shows it, and its numbers of objects and pixels, int64 [3, 256].
    """
    if skip_empty and not image.objects:
        return None
    label, instances, class_ids = _checked_masks(image, images)
    if skip_empty and not len(class_ids):
        return None
    _write_files(images / image.file, (label, instances), folder, output)
    pixels, objects = (np.bincount(ids.ravel(), minlength=IGNORE + 1) for ids in (label, class_ids))
    return np.stack([pixels > 0, objects, pixels])


def _write_files(source: Path, masks: tuple[np.ndarray, np.ndarray], folder: Path, output: Path) -> None:
    """Writes to `folder` what `output` lacks of an image and its masks.

    Raises:
      InputError: if `output` has another image or another mask of the same name.
    """
    name = source.stem
    there = [path for suffix in IMAGE_SUFFIXES if (path := output / f"JPEGImages/{name}{suffix}").is_file()]
    if not there:
        shutil.copyfile(source, folder / f"JPEGImages/{name}{source.suffix}")
    elif there[0].read_bytes() != source.read_bytes():
        raise InputError(
            f"{source} and {there[0]} are different images of the same name; rename one or name another --output"
        )
    for part, mask in zip(_MASKS, masks, strict=True):
        path = output / f"{part}/{name}.png"
        if not path.is_file():
            label_image(mask).save(folder / f"{part}/{name}.png")
        elif not np.array_equal(read_mask(path), mask):
            raise InputError(
                f"{path} differs from the new mask of {source}, although the image is the same; correct the "
                "annotations or name another --output"
            )


def _turned(paths: Sequence[Path]) -> list[str]:
    """Returns a warning if photographs have an EXIF orientation, otherwise an empty list.

    Their annotations may have been drawn on the stored or on the upright image.
    """
    turned = [(path, number) for path in paths if (number := image_orientation(path)) != 1]
    return [
        f"{len(turned)} of {len(paths)} images have an EXIF orientation, among them {path} ({number}), and their "
        "annotations must fit the pixels as stored; if they were drawn on the upright image, as browsers show it, turn "
        "the files upright (Pillow: ImageOps.exif_transpose) and import again"
        for path, number in turned[:1]
    ]


def _move_in(folder: Path, output: Path) -> None:
    """Moves the finished files to the output.

    The classes are moved first and the list of the split last. Without that list the other files are not read, so a
    killed import can simply be run again.
    """
    if not output.exists():
        folder.rename(output)
        return
    order = lambda path: (path.is_file(), path.parent == folder / _SPLITS, path.parent != folder, path)  # noqa: E731
    for path in sorted(folder.rglob("*"), key=order):
        target = output / path.relative_to(folder)
        if not target.exists():
            _ = target.mkdir() if path.is_dir() else path.rename(target)
