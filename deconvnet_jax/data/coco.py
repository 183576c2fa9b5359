"""From COCO's annotations (polygons or run lengths) to a folder in the VOC layout (`voc_layout`).

summary = import_coco("instances_train.json", "train_images", "my_data", "train", categories=["dog", "cat"])
"""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.coco_json import CocoFile, CocoImage, read_coco, run_lengths
from deconvnet_jax.data.coco_notes import orientation_notes
from deconvnet_jax.data.voc_layout import IMAGE_SUFFIXES, class_names, split_files
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import remove_unfinished, unfinished_folder
from deconvnet_jax.images import read_image, read_mask
from deconvnet_jax.labels import IGNORE, label_image

Progress = Callable[[int, int], None]

_MASKS = ("SegmentationClass", "SegmentationObject")
_SPLITS = "ImageSets/Segmentation"


class ClassCount(NamedTuple):
    """How often a class occurs: in how many images, as how many objects, in how many pixels."""

    name: str
    images: int
    objects: int
    pixels: int


class CocoSummary(NamedTuple):
    """What was written.

    Attributes:
      images: number of images in the split.
      left_out: number of images without any object that `skip_empty` left out.
      objects: number of objects in the masks.
      hidden: number of annotations without a pixel: smaller than one, or covered by smaller objects.
      ignored_pixels: number of pixels with 255.
      classes: counts of every class, background (without objects) first.
      warnings: what is probably meant otherwise, each one line.
    """

    images: int
    left_out: int
    objects: int
    hidden: int
    ignored_pixels: int
    classes: tuple[ClassCount, ...]
    warnings: tuple[str, ...] = ()


class Masks(NamedTuple):
    """What is known of an image's pixels.

    Attributes:
      label: uint8 [H, W], class ids and 255 = ignore.
      instances: uint8 [H, W], 0 = background, 255 = ignore, else the object's number from 1 on.
      class_ids: uint8 [objects], class of the objects 1, 2, ...
      hidden: number of objects without a pixel of their own; they have no number.
      empty: where in the file those are that cover no pixel of the image at all.
    """

    label: np.ndarray
    instances: np.ndarray
    class_ids: np.ndarray
    hidden: int
    empty: tuple[str, ...]


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
    """Writes one split of a folder in the VOC layout, all of it or nothing; other splits in the folder stay.

    Args:
      annotations: COCO's instances_*.json.
      images: folder below which the JSON's file names lie. The files are copied unchanged.
      output: the folder to make or to add to; its classes must then be the same.
      split: its name: letters, digits and _.
      categories: the categories to keep, in the order of their class ids; "a=b" calls a's objects b, and several may
        become one class. All others are background. None keeps all, in the order of their ids.
      skip_empty: leave out images that show no object of these; otherwise they are background.
      progress: called with the number of images done and of all images.

    Raises:
      InputError: if the annotations or an image are not usable, no annotation covers a pixel, an image has more than
        254 objects, none is left, or the output folder holds this split, other classes, or other images of the same
        names.
    """
    annotations, images = Path(annotations).expanduser(), Path(images).expanduser()
    output = Path(output).expanduser().absolute()
    if not images.is_dir():
        raise InputError(f"there is no folder {images}; give the one that holds the images of {annotations}")
    _check_split(output, split)
    coco = read_coco(annotations, categories)
    _check_classes(output, coco.class_names)
    remove_unfinished(output.parent)
    # Within the output if it exists, which may be on another disk.
    with unfinished_folder(output, output if output.exists() else None) as folder:
        for part in ("JPEGImages", *_MASKS, _SPLITS):
            (folder / part).mkdir(parents=True)
        names, summary = _write_images(coco, images, folder, output, skip_empty, progress)
        if not names:
            raise InputError(
                f"{annotations}: zero images left, none shows an object of the chosen classes; choose other "
                "--categories, or import without --skip_empty"
            )
        (folder / "classes.txt").write_text("\n".join(coco.class_names) + "\n", encoding="utf-8")
        (folder / _SPLITS / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        _move_in(folder, output)
    return summary


def paint(image: CocoImage) -> Masks:
    """Draws the objects of an image, the larger first, so that the smaller of two that overlap wins.

    Of two of the same area the later wins. Crowds become 255 where there is no object.

    Raises:
      InputError: if a segmentation is not usable, or more than 254 objects have pixels.
    """
    objects = [item for item in image.objects if not item.crowd]
    runs = [run_lengths(item, image.height, image.width) for item in objects]
    # Positions among the objects, from 1 on; all pixels of this function lie column by column, as COCO's run lengths.
    canvas = np.zeros(image.height * image.width, np.int32)
    areas = np.array([item[1::2].sum() for item in runs], np.int64)
    for i in np.argsort(-areas, kind="stable"):
        canvas[_covered(runs[i])] = i + 1
    visible = np.flatnonzero(np.bincount(canvas, minlength=len(objects) + 1)[1:])
    if len(visible) >= IGNORE:
        raise InputError(
            f"{image.where}: image '{image.name}' shows {len(visible)} objects, expected at most {IGNORE - 1}; take "
            "it out or choose fewer categories"
        )
    numbers, class_ids = np.zeros((2, len(objects) + 1), np.uint8)
    numbers[visible + 1] = np.arange(1, len(visible) + 1)
    class_ids[1:] = [item.class_id for item in objects]
    label, instances = class_ids[canvas], numbers[canvas]
    for item in image.objects:
        if item.crowd:
            ignored = _covered(run_lengths(item, image.height, image.width)) & (canvas == 0)
            label[ignored] = instances[ignored] = IGNORE
    label, instances = (mask.reshape(image.width, image.height).T.copy() for mask in (label, instances))
    empty = tuple(objects[i].where for i in np.flatnonzero(areas == 0))
    return Masks(label, instances, class_ids[visible + 1], len(objects) - len(visible), empty)


def _covered(runs: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


# Checks of the output folder before the work.


def _check_split(output: Path, split: str) -> None:
    if not re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) or split == "all":  # TFDS takes no other names
        raise InputError(f"--split={split}: cannot name a split; expected letters, digits and _ only, and not 'all'")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output: {output} is a file; name a folder, new or in the VOC layout")
    path = output / _SPLITS / f"{split}.txt"
    if path.exists():
        raise InputError(f"--split={split}: {path} is already there; delete the folder or name another split")


def _check_classes(output: Path, names: tuple[str, ...]) -> None:
    """Raises InputError unless images of these classes can be added to the folder."""
    if not _holds_files(output):
        return
    there = class_names(output)
    if there != names:
        raise InputError(
            f"{output / 'classes.txt'}: the folder's {len(there)} classes are {_listed(there)}, but the annotations' "
            f"{len(names)} are {_listed(names)}; make them agree with --categories, or name another --output"
        )
    if not (output / _MASKS[1]).is_dir() and any((output / _MASKS[0]).iterdir()):
        raise InputError(
            f"{output} has masks in {_MASKS[0]} but no folder {_MASKS[1]}; the imported images have both: name "
            "another --output"
        )


def _holds_files(folder: Path) -> bool:
    """Whether there is a file; hidden ones, and those in hidden folders, are the system's or an interrupted run's."""
    parts = ((path, path.relative_to(folder).parts) for path in folder.rglob("*"))
    return any(path.is_file() and not any(part.startswith(".") for part in names) for path, names in parts)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


# Writing.


def _write_images(
    coco: CocoFile, images: Path, folder: Path, output: Path, skip_empty: bool, progress: Progress | None
) -> tuple[list[str], CocoSummary]:
    """Writes to `folder` what `output` lacks; returns the split's names and counts."""
    names: list[str] = []
    paths: list[Path] = []
    empty: list[str] = []
    hidden, annotated, is_seen = 0, sum(len(image.objects) for image in coco.images), False
    pixels = np.zeros(IGNORE + 1, np.int64)
    in_images, objects = np.zeros((2, len(coco.class_names)), np.int64)
    for i, image in enumerate(coco.images):
        masks = None if skip_empty and not image.objects else _checked_masks(image, images)
        if masks is not None:
            empty += masks.empty
            is_seen = is_seen or masks.label.any()
        if masks is not None and (len(masks.class_ids) or not skip_empty):
            _write_image(image, images, masks, folder, output)
            names.append(image.name)
            paths.append(images / image.file)
            hidden += masks.hidden
            found = np.bincount(masks.label.ravel(), minlength=IGNORE + 1)
            pixels += found
            in_images += found[: len(in_images)] > 0
            objects += np.bincount(masks.class_ids, minlength=len(objects))
        if progress:
            progress(i + 1, len(coco.images))
    if annotated and not is_seen:
        raise InputError(
            f"{coco.path}: none of the {annotated} annotations covers a pixel; expected coordinates in pixels of the "
            "image"
        )
    counts = zip(coco.class_names, in_images.tolist(), objects.tolist(), pixels.tolist(), strict=False)
    return names, CocoSummary(
        images=len(names),
        left_out=len(coco.images) - len(names),
        objects=int(objects.sum()),
        hidden=hidden,
        ignored_pixels=int(pixels[IGNORE]),
        classes=tuple(ClassCount(*count) for count in counts),
        warnings=(*coco.notes, *_empty_notes(empty, annotated), *orientation_notes(paths)),
    )


def _empty_notes(empty: list[str], annotated: int) -> list[str]:
    if not empty:
        return []
    return [
        f"{len(empty)} of {annotated} annotations cover no pixel and are left out, the first {empty[0]}; expected "
        "coordinates in pixels of the image"
    ]


def _checked_masks(image: CocoImage, images: Path) -> Masks:
    """The masks, once the file has turned out to be an image of the size that they are for."""
    path = images / image.file
    if not path.is_file():
        raise InputError(f"no image {path}, although {image.where} names it; add it or correct --images")
    height, width, _ = read_image(path).shape
    if (height, width) != (image.height, image.width):
        turned = "; turn it upright as its EXIF mark says" if (width, height) == (image.height, image.width) else ""
        raise InputError(
            f"{path} is {width}x{height} pixels, but {image.where} says {image.width}x{image.height}; the annotations "
            f"need the image that they were drawn on{turned}"
        )
    return paint(image)


def _write_image(image: CocoImage, images: Path, masks: Masks, folder: Path, output: Path) -> None:
    source = images / image.file
    there = [output / f"JPEGImages/{image.name}{suffix}" for suffix in IMAGE_SUFFIXES]
    there = [path for path in there if path.is_file()]
    if not there:
        shutil.copyfile(source, folder / f"JPEGImages/{image.name}{image.file.suffix}")
    elif there[0].read_bytes() != source.read_bytes():
        raise InputError(
            f"{source} and {there[0]}{_splits_with(output, image.name)} are different images of the same name; rename "
            "one or name another --output"
        )
    for part, mask in zip(_MASKS, (masks.label, masks.instances), strict=True):
        path = output / f"{part}/{image.name}.png"
        if not path.is_file():
            label_image(mask).save(folder / f"{part}/{image.name}.png")
        elif not np.array_equal(read_mask(path), mask):
            raise InputError(
                f"{path}{_splits_with(output, image.name)} is another mask than the one for {source}, although the "
                "image is the same; correct the annotations or name another --output"
            )


def _splits_with(output: Path, name: str) -> str:
    """Which splits have an image, for messages."""
    files = split_files(output)
    splits = [split for split, path in files.items() if name in path.read_text("utf-8-sig", "replace").splitlines()]
    return f" (split {', '.join(splits)})" if splits else ""


def _move_in(folder: Path, output: Path) -> None:
    """Moves the finished files to the output, the split's own last: without it the others are not looked at."""
    if not output.exists():
        folder.rename(output)
        return
    made: list[Path] = []
    try:
        for path in sorted(folder.rglob("*"), key=lambda path: _turn(folder, path)):
            target = output / path.relative_to(folder)
            if not target.exists():
                made.append(target)
                target.mkdir() if path.is_dir() else path.rename(target)
    except BaseException:
        for target in reversed(made):
            if target.is_dir():
                target.rmdir()
            else:
                target.unlink(missing_ok=True)
        raise


def _turn(folder: Path, path: Path) -> tuple[int, Path]:
    """Folders, then the classes, then images and masks, then the split: a killed import can be run again."""
    if path.is_dir():
        return 0, path
    if path == folder / "classes.txt":
        return 1, path
    return (3 if path.parent == folder / _SPLITS else 2), path
