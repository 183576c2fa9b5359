"""Reading COCO's annotation files (instances_*.json), and saying clearly what is wrong with one.

{"images":      [{"id": 7, "file_name": "a.jpg", "width": 640, "height": 480}, ...],
 "categories":  [{"id": 18, "name": "dog"}, ...],
 "annotations": [{"image_id": 7, "category_id": 18, "iscrowd": 0, "segmentation": [[x, y, x, y, x, y, ...], ...]}, ...]}

A segmentation is a list of polygons, or a dict {"size": [height, width], "counts": ...} with run lengths, column by
column and beginning with the background: a list of numbers, or COCO's text for them.
"""

import json
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from deconvnet_jax.data.coco_notes import category_notes, check_fractions, is_reserved, no_classes
from deconvnet_jax.data.voc_layout import IMAGE_SUFFIXES
from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE

_EXPECTED = "expected COCO's instances_*.json, with the lists images, annotations and categories"


class CocoObject(NamedTuple):
    """One annotation of a class that is kept.

    Attributes:
      where: file and place in it, for messages.
      class_id: 1 to 254.
      crowd: a region of many objects that are not told apart.
      segmentation: as in the file, unchecked; see `run_lengths`.
    """

    where: str
    class_id: int
    crowd: bool
    segmentation: Any


class CocoImage(NamedTuple):
    """One image.

    Attributes:
      where: file and place in it, for messages.
      file: path below the folder of the images, which it does not leave.
      name: the file's, without folders and suffix; no other image has it.
      height: in pixels.
      width: in pixels.
      objects: in the file's order; a list that `read_coco` fills.
    """

    where: str
    file: PurePosixPath
    name: str
    height: int
    width: int
    objects: list[CocoObject]


class CocoFile(NamedTuple):
    """What is kept of a file.

    Attributes:
      path: the file.
      class_names: names of the classes, background first.
      images: all images in the file's order.
      notes: warnings about what is probably meant otherwise.
    """

    path: Path
    class_names: tuple[str, ...]
    images: list[CocoImage]
    notes: tuple[str, ...]


def read_coco(path: str | Path, categories: Sequence[str] | None = None) -> CocoFile:
    """Reads a file and checks all of it but the segmentations.

    Args:
      path: the JSON file.
      categories: the categories to keep, in the order of their class ids: "a", or "a=b" to call a's objects b; None
        keeps all, in the order of their ids.

    Raises:
      InputError: if the file is missing, damaged or not COCO's; if it contradicts itself; if all its coordinates are
        fractions; or for unknown categories.
    """
    path = Path(path)
    data = _load(path)
    entries = _entries(path, data, "categories")
    found = _categories(path, entries)
    images = _images(path, _entries(path, data, "images"))
    annotations = [
        (where, entry, _id(entry, "category_id", where)) for where, entry in _entries(path, data, "annotations")
    ]
    left_out: dict[int | str, str] = {}
    if categories is None:
        parents = dict(zip(found, (entry.get("supercategory") for _, entry in entries), strict=True))
        left_out = no_classes(found, parents, {category_id for *_, category_id in annotations})
    kept = {key: name for key, name in found.items() if key not in left_out}
    class_names, class_ids = choose_classes(path, kept, categories)
    counts = dict.fromkeys(class_names[1:], 0)
    for where, entry, category_id in annotations:
        image_id = _id(entry, "image_id", where)
        if image_id not in images:
            raise InputError(
                f"{where} has image_id {image_id!r}, but no image has that id; add the image or take it out"
            )
        if category_id not in found:
            raise InputError(f"{where} has category_id {category_id!r}, but no category has that id; correct it")
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise InputError(f"{where} has iscrowd {_shown(crowd)}; expected 0 or 1")
        if category_id in class_ids:
            class_id = class_ids[category_id]
            images[image_id].objects.append(CocoObject(where, class_id, bool(crowd), entry.get("segmentation")))
            counts[class_names[class_id]] += not crowd
    segmentations = [item.segmentation for image in images.values() for item in image.objects]
    notes = [*category_notes(path, left_out, counts), *check_fractions(path, segmentations)]
    return CocoFile(path, class_names, list(images.values()), tuple(notes))


def choose_classes(
    path: Path, found: dict[int | str, str], categories: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """Which categories become which classes.

    Args:
      path: the file, for messages.
      found: names of the file's categories, by their id.
      categories: as for `read_coco`.

    Returns:
      The names of the classes, background first, and the class id of every category that is kept.

    Raises:
      InputError: for categories that are unknown or named twice, names that a class cannot have, or too many classes.
    """
    if categories is None:
        wanted = {name: name for _, name in sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0]))}
    else:
        wanted = _renamed(path, set(found.values()), categories)
    targets = list(dict.fromkeys(wanted.values()))
    for name in targets:
        if name == "background" or (categories is None and is_reserved(name)) or not _is_line(name):
            raise InputError(
                f"{path}: a class cannot be called {_shown(name)}; choose and rename categories with "
                "--categories=CATEGORY=NAME,..."
            )
    if not 1 <= len(targets) < IGNORE:
        raise InputError(
            f"{path}: {len(targets)} classes, expected 1 to {IGNORE - 1} besides background; choose or merge "
            "categories with --categories=CATEGORY,CATEGORY=NAME,..."
        )
    numbers = {name: number for number, name in enumerate(targets, start=1)}
    class_ids = {key: numbers[wanted[name]] for key, name in found.items() if name in wanted}
    return ("background", *targets), class_ids


def _renamed(path: Path, known: set[str], categories: Sequence[str]) -> dict[str, str]:
    """The class that each category named on the command line becomes."""
    wanted: dict[str, str] = {}
    for entry in categories:
        category, equals, name = entry.partition("=")
        category, name = category.strip(), name.strip()
        if entry in known:  # a category whose own name has an equals sign
            category, equals = entry, ""
        if category not in known:
            raise InputError(
                f"--categories: {path} has no category {_shown(category)}; there are {', '.join(sorted(known))}"
            )
        if category in wanted:
            raise InputError(f"--categories names {_shown(category)} twice; expected each category once")
        wanted[category] = name if equals else category
    return wanted


def run_lengths(item: CocoObject, height: int, width: int) -> np.ndarray:
    """The segmentation as run lengths, checked.

    pycocotools draws the polygons, so that they cover the same pixels as everywhere else. Run lengths from the file it
    does not get: it reads beyond the end of damaged ones.

    Args:
      item: the object.
      height: of its image.
      width: of its image.

    Returns:
      int64 [runs], numbers of pixels, column by column: background, object, background, ...; they add up to the image.

    Raises:
      InputError: if there is no segmentation, or it is not a valid one of an image of this size.
    """
    segmentation = item.segmentation
    if isinstance(segmentation, dict):
        return _checked_runs(item.where, segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise InputError(
            f"{item.where} has no segmentation; expected polygons or run lengths: a box or a caption alone is no mask"
        )
    polygons = [_polygon(item.where, points, height, width) for points in segmentation]
    drawn = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return np.array(_expand(drawn["counts"].decode("ascii")), np.int64)


def _polygon(where: str, points: Any, height: int, width: int) -> list[float]:
    problem = f"{where} has a polygon"
    numbers = None
    if isinstance(points, list):
        try:
            numbers = np.asarray(points)
        except (ValueError, OverflowError):  # lists of several lengths, integers of hundreds of digits
            numbers = None
    if numbers is None or numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iuf"):
        raise InputError(f"{problem} {_shown(points)}; expected a list of polygons, each a list x, y, x, y, ...")
    if numbers.size < 6 or numbers.size % 2:
        raise InputError(f"{problem} of {numbers.size} numbers; expected x, y of three or more points: 6, 8, 10, ...")
    if not np.isfinite(numbers).all():
        raise InputError(f"{problem} with numbers that are not finite; correct it or take it out")
    pairs = numbers.reshape(-1, 2)
    size = np.array([width, height])
    # Points a little outside are common; for far ones pycocotools would take memory without limit.
    if ((pairs < -size) | (pairs > 2 * size)).any():
        raise InputError(f"{problem} far outside its image of {width}x{height} pixels; coordinates are in pixels")
    return numbers.astype(np.float64).tolist()


def _checked_runs(where: str, segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    if segmentation.get("size") != [height, width]:
        raise InputError(
            f"{where} has run lengths of size {_shown(segmentation.get('size'))}; expected [height, width] of its "
            f"image, [{height}, {width}]"
        )
    counts = segmentation.get("counts")
    runs = _expand(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or any(type(run) is not int or run < 0 for run in runs):
        raise InputError(f"{where} has damaged run lengths; expected 'counts' as numbers from 0 or as COCO's text")
    if sum(runs) != height * width:
        raise InputError(
            f"{where} has run lengths of {sum(runs)} pixels, but its image has {width}x{height} = {height * width}; "
            "write them again"
        )
    return np.array(runs, np.int64)


def _expand(text: str) -> list[int] | None:
    """The numbers in COCO's text, None for a damaged one: six bits a character, the lowest first, bit 5 for more.

    From the fourth number on, each is the difference to the last but one.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        value |= (code & 31) << shift
        shift += 5
        if shift > 60:
            return None
        if not code & 32:
            if code & 16:  # the last character's highest bit is the sign
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return None if shift else runs


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"no file {path}; {_EXPECTED}")
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path} is not a complete JSON file ({reason}); {_EXPECTED}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds a {type(data).__name__}; {_EXPECTED}")
    return data


def _entries(path: Path, data: dict[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    """The dicts of a list in the file, each with its place."""
    entries = data.get(key)
    if not isinstance(entries, list):
        raise InputError(f"{path} has no list '{key}'; {_EXPECTED}, not captions or panoptic ones")
    places = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: {key}[{i}] is {_shown(entry)}; {_EXPECTED}, each of dicts")
        shown = f" (id {_shown(entry['id'])})" if "id" in entry else ""
        places.append((f"{path}: {key}[{i}]{shown}", entry))
    return places


def _categories(path: Path, entries: Iterable[tuple[str, dict[str, Any]]]) -> dict[int | str, str]:
    found: dict[int | str, str] = {}
    for where, entry in entries:
        key, name = _id(entry, "id", where), entry.get("name")
        if not isinstance(name, str) or not _is_line(name.strip()):
            raise InputError(f"{where} has the name {_shown(name)}; expected one line of text")
        if key in found or name.strip() in found.values():
            raise InputError(
                f"{where}, {_shown(name)}, repeats the id or the name of another category; make them differ"
            )
        found[key] = name.strip()
    if not found:
        raise InputError(f"{path} has no category at all; {_EXPECTED}")
    return found


def _images(path: Path, entries: Iterable[tuple[str, dict[str, Any]]]) -> dict[int | str, CocoImage]:
    images: dict[int | str, CocoImage] = {}
    for where, entry in entries:
        image_id = _id(entry, "id", where)
        if image_id in images:
            raise InputError(f"{where} has the id {image_id!r} of another image; give every image its own")
        images[image_id] = _image(where, entry)
    _check_names(path, images.values())
    return images


def _image(where: str, entry: dict[str, Any]) -> CocoImage:
    file_name = entry.get("file_name")
    if not isinstance(file_name, str) or not _is_line(file_name):
        raise InputError(f"{where} has the file_name {_shown(file_name)}; expected that of an image, in one line")
    file = PurePosixPath(posixpath.normpath(file_name.replace("\\", "/")))  # some tools write Windows' separators
    if file.is_absolute() or ".." in file.parts:
        raise InputError(f"{where} has the file_name {_shown(file_name)}; expected one below the folder --images")
    if file.suffix not in IMAGE_SUFFIXES:
        raise InputError(
            f"{where} has the file_name {_shown(file_name)}; expected .jpg, .jpeg or .png: convert or rename the image"
        )
    if not _is_line(file.stem):
        raise InputError(
            f"{where} has the file_name {_shown(file_name)}; expected no blanks around the name: rename it"
        )
    height, width = _whole(entry.get("height")), _whole(entry.get("width"))
    if any(type(size) is not int or size < 1 for size in (height, width)):
        raise InputError(f"{where} has height {_shown(height)} and width {_shown(width)}; expected those of the image")
    return CocoImage(where, file, file.stem, height, width, [])


def _check_names(path: Path, images: Iterable[CocoImage]) -> None:
    first: dict[str, CocoImage] = {}
    for image in images:
        other = first.setdefault(image.name, image)
        if other is not image and other.file == image.file:
            raise InputError(
                f"{image.where} is {image.file}, as {other.where.removeprefix(f'{path}: ')} is; give every image one "
                "entry, and all its annotations that entry's id"
            )
        if other is not image:
            raise InputError(
                f"{image.where} is {image.file}, but {other.file} is called '{image.name}' too; in the VOC layout "
                "names differ, folders and suffixes aside: rename one"
            )
    if not first:
        raise InputError(f"{path} has zero images; {_EXPECTED}, none of images and categories empty")


def _id(entry: dict[str, Any], key: str, where: str) -> int | str:
    """Returns an id; one written as text or as a fraction, "7" or 7.0, is the number."""
    value = _whole(entry.get(key))
    if type(value) not in (int, str):
        raise InputError(f"{where} has the {key} {_shown(entry.get(key))}; {_EXPECTED}, each entry with its ids")
    is_number = type(value) is str and re.fullmatch("0|[1-9][0-9]{0,18}", value)
    return int(value) if is_number else value


def _whole(value: Any) -> Any:
    """Returns 7 for 7.0, as tables that hold gaps are exported; anything else unchanged."""
    return int(value) if type(value) is float and value.is_integer() else value


def _is_line(text: str) -> bool:
    """Whether a text, as a line of a UTF-8 file, is read as it was written."""
    return text.splitlines() == [text.strip()] and not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: Any) -> str:
    return repr(value)[:80]
