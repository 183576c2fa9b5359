"""From COCO's annotations (instances_*.json) to a folder in the VOC layout (`voc_layout`).

summary = import_coco("instances_train.json", "train_images", "my_data", "train", categories=["dog", "cat"])

pycocotools draws polygons and run lengths. What it does not check is checked here: damaged run lengths crash it or
leave pixels at random, and points that are far away or not finite make it take memory until it is killed.
"""

import contextlib
import json
import posixpath
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import pycocotools.mask

from deconvnet_jax.data.voc_layout import IMAGE_SUFFIXES, class_names
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import remove_unfinished, unfinished_folder
from deconvnet_jax.images import image_orientation, read_image, read_mask
from deconvnet_jax.labels import IGNORE, label_image

coco_mask: Any = pycocotools.mask  # type stubs of it know no run lengths as a list of numbers

Progress = Callable[[int, int], None]

_EXPECTED = "expected COCO's instances_*.json, with the lists images, annotations and categories"
_MASKS = ("SegmentationClass", "SegmentationObject")
_SPLITS = "ImageSets/Segmentation"
_RESERVED = re.compile("_*(background|ignore)_*", re.IGNORECASE)  # categories of labelme that are no classes


class ClassCount(NamedTuple):
    """How often a class occurs: in how many images, as how many objects, in how many pixels."""

    name: str
    images: int
    objects: int
    pixels: int


class CocoSummary(NamedTuple):
    """What was written; `hidden` counts the annotations that are covered by smaller ones, or smaller than a pixel."""

    images: int
    left_out: int
    objects: int
    hidden: int
    ignored_pixels: int
    classes: tuple[ClassCount, ...]  # background, without objects, first
    warnings: tuple[str, ...] = ()


class CocoObject(NamedTuple):
    """An annotation: its place in the file, class id, whether it is a crowd, and its segmentation, unchecked."""

    where: str
    class_id: int
    crowd: bool
    segmentation: Any


class CocoImage(NamedTuple):
    """An image: its place in the file, path below the folder of images, size and objects."""

    where: str
    file: PurePosixPath
    height: int
    width: int
    objects: list[CocoObject]


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
    classes, found, notes = _read(annotations, categories)
    _check_classes(output, classes)
    remove_unfinished(output.parent)
    # Within the output if it exists, which may be on another disk.
    with unfinished_folder(output, output if output.exists() else None) as folder:
        for part in ("JPEGImages", *_MASKS, _SPLITS):
            (folder / part).mkdir(parents=True)
        written: list[CocoImage] = []
        counts = np.zeros((3, IGNORE + 1), np.int64)  # images, objects and pixels of every class id
        for i, image in enumerate(found):
            if image.objects or not skip_empty:
                label, instances, class_ids = _checked_masks(image, images)
                if len(class_ids) or not skip_empty:
                    _write_image(images / image.file, (label, instances), folder, output)
                    written.append(image)
                    pixels, objects = (np.bincount(ids.ravel(), minlength=IGNORE + 1) for ids in (label, class_ids))
                    counts += np.stack([pixels > 0, objects, pixels])
            if progress:
                progress(i + 1, len(found))
        annotated = [item for image in written for item in image.objects]
        if not written:
            raise InputError(f"{annotations}: zero images left; choose other --categories, or omit --skip_empty")
        if annotated and not counts[2, 1:].any():
            raise InputError(
                f"{annotations}: none of the {len(annotated)} annotations covers a pixel; coordinates are in pixels"
            )
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


def paint(image: CocoImage) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws the objects of an image, the larger first, so that the smaller of two that overlap wins.

    Of two of the same area the later wins. Crowds become 255 where there is no object.

    Returns:
      Masks uint8 [H, W] of class ids and of object numbers, and the class ids of objects 1, 2, ...; an object without a
      pixel of its own has no number.

    Raises:
      InputError: if a segmentation is not usable, or more than 254 objects have pixels.
    """
    objects = [item for item in image.objects if not item.crowd]
    runs = [_run_lengths(item, image.height, image.width) for item in objects]
    areas = np.array([coco_mask.area(item) for item in runs], np.int64)
    canvas = np.zeros((image.height, image.width), np.int32)  # positions among the objects, from 1 on
    for i in np.argsort(-areas, kind="stable"):
        canvas[coco_mask.decode(runs[i]) == 1] = i + 1
    visible = np.flatnonzero(np.bincount(canvas.ravel(), minlength=len(objects) + 1)[1:])
    if len(visible) >= IGNORE:
        raise InputError(
            f"{image.where}: image '{image.file.stem}' shows {len(visible)} objects, expected at most {IGNORE - 1}; "
            "take it out or choose fewer categories"
        )
    numbers, class_ids = np.zeros((2, len(objects) + 1), np.uint8)
    numbers[visible + 1] = np.arange(1, len(visible) + 1)
    class_ids[1:] = [item.class_id for item in objects]
    label, instances = class_ids[canvas], numbers[canvas]
    for item in image.objects:
        if item.crowd:
            covered = coco_mask.decode(_run_lengths(item, image.height, image.width)) == 1
            label[covered & (canvas == 0)] = instances[covered & (canvas == 0)] = IGNORE
    return label, instances, class_ids[visible + 1]


def _read(path: Path, categories: Sequence[str] | None) -> tuple[tuple[str, ...], list[CocoImage], list[str]]:
    """Returns the classes, background first, all images, and warnings; checks all but the segmentations."""
    lists = _load(path)
    names: dict[str, str] = {}
    parents: dict[str, str] = {}
    images: dict[str, CocoImage] = {}
    stems: set[str] = set()
    for where, entry in lists["categories"]:
        key, name = _id(entry.get("id")), entry.get("name")
        if not key or key in names or name in names.values() or not _is_line(name):
            raise InputError(f"{where} has the name {name!r:.80}; expected an id and a line of text that no other has")
        names[key], parents[key] = str(name), str(entry.get("supercategory"))
    for where, entry in lists["images"]:
        key, image = _id(entry.get("id")), _image(where, entry)
        if not key or key in images or image.file.stem in stems:
            raise InputError(
                f"{where} has the file_name '{image.file}'; expected an id that no other image has, and a name that no "
                "other has in another folder or with another suffix: rename it, or give an image one entry"
            )
        images[key] = image
        stems.add(image.file.stem)
    left_out: dict[str, str] = {}
    if categories is None:
        left_out = _no_classes(names, parents, {_id(entry.get("category_id")) for _, entry in lists["annotations"]})
    kept = {key: name for key, name in names.items() if key not in left_out}
    classes, class_ids = _choose_classes(path, kept, categories)
    for where, entry in lists["annotations"]:
        image_id, category_id, crowd = entry.get("image_id"), entry.get("category_id"), entry.get("iscrowd", 0)
        if _id(image_id) not in images or _id(category_id) not in names or crowd not in (0, 1):
            raise InputError(
                f"{where} has image_id {image_id!r:.80}, category_id {category_id!r:.80} and iscrowd {crowd!r:.80}; "
                "expected the ids of an image and of a category in this file, and 0 or 1"
            )
        if _id(category_id) in class_ids:
            item = CocoObject(where, class_ids[_id(category_id)], bool(crowd), entry.get("segmentation"))
            images[_id(image_id)].objects.append(item)
    objects = [item for image in images.values() for item in image.objects]
    if objects and all(_is_fraction(item.segmentation) for item in objects):
        raise InputError(
            f"{path}: the coordinates of all {len(objects)} annotations lie between 0 and 1; expected pixels: multiply "
            "them by the width and height of their image"
        )
    notes = [
        f"{path}: the category {why} and annotates nothing; it is left out, --categories with its name would keep it"
        for why in left_out.values()
    ]
    return classes, list(images.values()), [*notes, *_without_objects(path, classes, objects)]


def _load(path: Path) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Returns the entries of the lists of a file, each with its place."""
    if not path.is_file():
        raise InputError(f"no file {path}; {_EXPECTED}")
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(error, 120)
        raise InputError(f"{path} is not a complete JSON file ({reason}); {_EXPECTED}") from error
    lists: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for key in ("categories", "images", "annotations"):
        found = data.get(key) if isinstance(data, dict) else None
        if not isinstance(found, list) or not (found or key == "annotations"):
            raise InputError(f"{path} has no list '{key}', or nothing in it; {_EXPECTED}, not captions")
        lists[key] = []
        for i, entry in enumerate(found):
            if not isinstance(entry, dict):
                raise InputError(f"{path}: {key}[{i}] is {entry!r:.80}; {_EXPECTED}, each of dicts")
            shown = f" (id {entry['id']!r:.80})" if "id" in entry else ""
            lists[key].append((f"{path}: {key}[{i}]{shown}", entry))
    return lists


def _image(where: str, entry: dict[str, Any]) -> CocoImage:
    name, height, width = entry.get("file_name"), entry.get("height"), entry.get("width")
    file = PurePosixPath(posixpath.normpath(str(name).replace("\\", "/")))  # some tools write Windows' separators
    inside = not file.is_absolute() and ".." not in file.parts and _is_line(file.stem)
    if not _is_line(name) or not inside or file.suffix not in IMAGE_SUFFIXES:
        raise InputError(
            f"{where} has the file_name {name!r:.80}; expected one line, below the folder --images, without blanks "
            "around the name, that ends in .jpg, .jpeg or .png: convert or rename the image"
        )
    if not all(isinstance(size, int | float) and 1 <= size < 1e6 for size in (height, width)):
        raise InputError(f"{where} has height {height!r:.80} and width {width!r:.80}; expected those of the image")
    return CocoImage(where, file, int(height or 0), int(width or 0), [])


def _no_classes(names: dict[str, str], parents: dict[str, str], annotated: set[str]) -> dict[str, str]:
    """Returns the categories that annotate nothing and are no classes, by id, and why each is none.

    These are the name of the project, which Roboflow puts first as the supercategory of all others, and labelme's
    `_background_` and `__ignore__`.
    """
    found: dict[str, str] = {}
    for key, name in names.items():
        others = {parents[other] for other in names if other != key}
        if key not in annotated and _RESERVED.fullmatch(name):
            found[key] = f"'{name}' is no class"
        elif key not in annotated and others == {name}:
            found[key] = f"'{name}' is the supercategory of all others"
    return found


def _choose_classes(
    path: Path, found: dict[str, str], categories: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Returns the names of the classes, background first, and the class id of every category that is kept."""
    in_order = sorted(found, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0, key))
    known = [found[key] for key in in_order]
    wanted: dict[str, str] = {}
    for entry in known if categories is None else categories:
        category, equals, name = (part.strip() for part in entry.partition("="))
        if entry in known:  # a category whose own name has an equals sign
            category, equals = entry, ""
        if category not in known or category in wanted:
            what = f"{'other ' if category in wanted else ''}category {category!r:.80}"
            raise InputError(f"--categories: {path} has no {what}; there are {', '.join(sorted(known))}")
        wanted[category] = name if equals else category
    classes = ("background", *dict.fromkeys(wanted.values()))
    for name in classes[1:]:
        if not _is_line(name) or name == "background" or (categories is None and _RESERVED.fullmatch(name)):
            raise InputError(
                f"{path}: a class cannot be called {name!r:.80}; rename it: --categories=CATEGORY=NAME,..."
            )
    if not 1 < len(classes) <= IGNORE:
        raise InputError(
            f"{path}: {len(classes) - 1} classes, expected 1 to {IGNORE - 1}; choose or merge categories: "
            "--categories=CATEGORY,CATEGORY=NAME,..."
        )
    return classes, {key: classes.index(wanted[name]) for key, name in found.items() if name in wanted}


def _without_objects(path: Path, classes: Sequence[str], objects: Sequence[CocoObject]) -> list[str]:
    """Returns a warning if there are classes without an object."""
    found = {item.class_id for item in objects if not item.crowd}
    used = [classes[i] for i in sorted(found)]
    empty = [name for name in classes[1:] if name not in used]
    remedy = f"unless another split shows them, leave them out: --categories={','.join(used)}" if used else "check it"
    shown = ", ".join(empty[:12]) + (", ..." if len(empty) > 12 else "")
    return [f"{path} has no object of {len(empty)} of {len(classes) - 1} classes: {shown}; {remedy}"] if empty else []


def _is_fraction(segmentation: Any) -> bool:
    try:
        return bool(np.abs(np.concatenate(segmentation)).max() <= 1.5)
    except (TypeError, ValueError):  # run lengths, or no numbers
        return False


def _id(value: Any) -> str:
    """Returns an id as text, "" for none; 7.0 and "7" are 7, as tables with gaps are exported."""
    return str(value).removesuffix(".0") if type(value) in (int, float, str) else ""


def _is_line(text: object) -> TypeGuard[str]:
    """Returns whether a value is a text that is read from a line of a UTF-8 file as it was written."""
    if not isinstance(text, str) or text.splitlines() != [text.strip()]:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _run_lengths(item: CocoObject, height: int, width: int) -> dict[str, Any]:
    """Returns a segmentation as pycocotools' run lengths, or raises InputError if it does not fit the image."""
    found, pixels = item.segmentation, height * width
    if isinstance(found, dict):
        counts = found.get("counts")
        if isinstance(counts, list) and all(type(run) is int and 0 <= run <= pixels for run in counts):
            runs = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        else:  # of a text the last character ends a number
            is_whole = isinstance(counts, str) and re.fullmatch("[0-o]*[0-O]", counts)
            runs = {"size": [height, width], "counts": counts if is_whole else ""}
        # pycocotools refuses to draw more pixels than there are, but not fewer.
        if found.get("size") != [height, width] or not _fits(runs, pixels) or _fits(runs, pixels - 1):
            raise InputError(
                f"{item.where} has damaged run lengths {found!r:.80}; expected 'size' [{height}, {width}] and 'counts' "
                f"as numbers from 0 or as COCO's text, which add up to the image's {pixels} pixels"
            )
        return runs
    if not isinstance(found, list) or not found:
        raise InputError(
            f"{item.where} has no segmentation; expected polygons or run lengths: a box or a caption alone is no mask"
        )
    for points in found:
        if not _is_polygon(points, height, width):
            raise InputError(
                f"{item.where} has a polygon {points!r:.80}; expected a list of polygons, each a list x, y, x, y, ... "
                f"of three or more points in pixels of the {width}x{height} image"
            )
    return coco_mask.merge(coco_mask.frPyObjects(found, height, width))


def _is_polygon(points: Any, height: int, width: int) -> bool:
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    sizes = (width, height) * (len(points) // 2)  # points a little outside are common
    return all(
        type(number) in (int, float) and -size <= number <= 2 * size for number, size in zip(points, sizes, strict=True)
    )


def _fits(runs: dict[str, Any], pixels: int) -> bool:
    with contextlib.suppress(ValueError):
        coco_mask.decode({**runs, "size": [1, pixels]})
        return True
    return False


def _check_split(output: Path, split: str) -> None:
    if not re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) or split == "all":  # TFDS takes no other names
        raise InputError(f"--split={split}: cannot name a split; expected letters, digits and _ only, and not 'all'")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output: {output} is a file; name a folder, new or in the VOC layout")
    path = output / _SPLITS / f"{split}.txt"
    if path.exists():
        raise InputError(f"--split={split}: {path} is already there; delete the folder or name another split")


def _check_classes(output: Path, classes: tuple[str, ...]) -> None:
    """Raises InputError unless images of these classes can be added to the folder."""
    files = [path.relative_to(output) for path in output.rglob("*") if path.is_file()]
    if all(any(part.startswith(".") for part in file.parts) for file in files):  # the system's, or unfinished ones
        return
    there = class_names(output)
    if there != classes:
        raise InputError(
            f"{output / 'classes.txt'}: the folder's {len(there)} classes are {', '.join(there)}, but the annotations' "
            f"{len(classes)} are {', '.join(classes)}; make them agree with --categories, or name another --output"
        )


def _checked_masks(image: CocoImage, images: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `paint(image)`, once the file has turned out to be an image of the size that they are for."""
    path = images / image.file
    if not path.is_file():
        raise InputError(f"no image {path}, although {image.where} names it; add it or correct --images")
    height, width, _ = read_image(path).shape
    if (height, width) != (image.height, image.width):
        raise InputError(
            f"{path} is {width}x{height} pixels (its EXIF orientation is not applied), but {image.where} says "
            f"{image.width}x{image.height}; the annotations need the image that they were drawn on"
        )
    return paint(image)


def _write_image(source: Path, masks: tuple[np.ndarray, np.ndarray], folder: Path, output: Path) -> None:
    """Writes to `folder` what `output` lacks of an image and its masks; raises InputError if it has other ones."""
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
                f"{path} is another mask than the one for {source}, although the image is the same; correct the "
                "annotations or name another --output"
            )


def _turned(paths: Sequence[Path]) -> list[str]:
    """Returns a warning if photographs have an EXIF orientation; their masks fit either the stored or that image."""
    turned = [(path, number) for path in paths if (number := image_orientation(path)) != 1]
    return [
        f"{len(turned)} of {len(paths)} images have an EXIF orientation, among them {path} ({number}): their masks are "
        "taken to fit the pixels as stored; if they were drawn on the upright image, as browsers show it, turn the "
        "files upright (Pillow: ImageOps.exif_transpose) and import again"
        for path, number in turned[:1]
    ]


def _move_in(folder: Path, output: Path) -> None:
    """Moves the finished files to the output.

    The classes go first, and the split last, without which the others are not read: a killed import can be run again.
    """
    if not output.exists():
        folder.rename(output)
        return
    order = lambda path: (path.is_file(), path.parent == folder / _SPLITS, path.parent != folder, path)  # noqa: E731
    for path in sorted(folder.rglob("*"), key=order):
        target = output / path.relative_to(folder)
        if not target.exists():
            _ = target.mkdir() if path.is_dir() else path.rename(target)
