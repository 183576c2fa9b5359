"""Reads COCO annotations (instances_*.json) and chooses the classes. It checks everything except the segmentations."""

import json
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from deconvnet_jax.data.voc_layout import IMAGE_SUFFIXES
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import no_file
from deconvnet_jax.labels import IGNORE

_EXPECTED = "expected COCO's instances_*.json, with the lists images, annotations and categories"
# labelme adds categories with such names, which are not classes.
_RESERVED = re.compile("_*(background|ignore)_*", re.IGNORECASE)


class CocoObject(NamedTuple):
    """One annotation, whose segmentation is not checked yet.

    Attributes:
      where: file and place in it, for error messages.
      class_id: class id, from 1.
      crowd: whether it marks a crowd, whose pixels are ignored.
      segmentation: value of "segmentation" in the JSON: polygons or run lengths.
    """

    where: str
    class_id: int
    crowd: bool
    segmentation: Any


class CocoImage(NamedTuple):
    """One image and its annotations.

    Attributes:
      where: file and place in it, for error messages.
      file: path below the folder of images.
      height: height in pixels.
      width: width in pixels.
      objects: annotations of the classes that are kept.
    """

    where: str
    file: PurePosixPath
    height: int
    width: int
    objects: list[CocoObject]


def read_annotations(
    path: Path, categories: Sequence[str] | None
) -> tuple[tuple[str, ...], list[CocoImage], list[str]]:
    """Reads the images and annotations of a file and chooses the classes.

    Args:
      path: JSON file in the format of COCO's instances_*.json.
      categories: categories to keep, as for `coco.import_coco`. None keeps all.

    Returns:
      The class names, background first; all images with their annotations of these classes; and warnings, one line
      each.

    Raises:
      InputError: if the file is not complete, an entry is not usable, or a category is unknown.
    """
    lists = _load(path)
    names: dict[str, str] = {}
    parents: dict[str, str] = {}
    images: dict[str, CocoImage] = {}
    stems: set[str] = set()
    for where, entry in lists["categories"]:
        key, name = _id(entry.get("id")), entry.get("name")
        if not key or key in names or name in names.values() or not _is_line(name):
            raise InputError(
                f"{where} has the name {name!r:.80}; expected an id and a name of one line that no other category has"
            )
        names[key], parents[key] = str(name), str(entry.get("supercategory"))
    for where, entry in lists["images"]:
        key, image = _id(entry.get("id")), _image(where, entry)
        if not key or key in images or image.file.stem in stems:
            raise InputError(
                f"{where} has the file_name '{image.file}'; expected an id and a name that no other image has, "
                "not even with another folder or suffix: rename the image or delete the repeated entry"
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
                "expected the ids of an image and of a category in this file, and iscrowd 0 or 1"
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
        f"{path}: the category {why} and annotates nothing; it is left out, name it in --categories to keep it"
        for why in left_out.values()
    ]
    return classes, list(images.values()), [*notes, *_without_objects(path, classes, objects)]


def _load(path: Path) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Returns the entries of the three lists in a file, each with its place for error messages.

    Raises:
      InputError: if the file is not COCO's instances_*.json.
    """
    if not path.is_file():
        raise InputError(no_file(path, remedy=_EXPECTED))
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(error, 120)
        raise InputError(f"{path} is not a complete JSON file ({reason}); {_EXPECTED}") from error
    lists: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for key in ("categories", "images", "annotations"):
        found = data.get(key) if isinstance(data, dict) else None
        if not isinstance(found, list) or not (found or key == "annotations"):
            raise InputError(f"{path} has no list '{key}', or an empty one; {_EXPECTED}, not captions")
        lists[key] = []
        for i, entry in enumerate(found):
            if not isinstance(entry, dict):
                raise InputError(f"{path}: {key}[{i}] is {entry!r:.80}; {_EXPECTED} of JSON objects")
            shown = f" (id {entry['id']!r:.80})" if "id" in entry else ""
            lists[key].append((f"{path}: {key}[{i}]{shown}", entry))
    return lists


def _image(where: str, entry: dict[str, Any]) -> CocoImage:
    """Returns an image without annotations; raises InputError if its entry is not usable."""
    name, height, width = entry.get("file_name"), entry.get("height"), entry.get("width")
    # Some tools write backslashes between folders.
    file = PurePosixPath(posixpath.normpath(str(name).replace("\\", "/")))
    inside = not file.is_absolute() and ".." not in file.parts and _is_line(file.stem)
    if not _is_line(name) or not inside or file.suffix not in IMAGE_SUFFIXES:
        raise InputError(
            f"{where} has the file_name {name!r:.80}; expected one line with a path below the folder --images, without "
            "blanks around the name, that ends in .jpg, .jpeg or .png: convert or rename the image"
        )
    if not all(isinstance(size, int | float) and 1 <= size < 1e6 for size in (height, width)):
        raise InputError(
            f"{where} has height {height!r:.80} and width {width!r:.80}; expected those of the image in pixels"
        )
    return CocoImage(where, file, int(height or 0), int(width or 0), [])


def _no_classes(names: dict[str, str], parents: dict[str, str], annotated: set[str]) -> dict[str, str]:
    """Returns the categories that annotate nothing and are not classes, by id, each with the reason.

    These are the name of the project, which Roboflow writes first as the supercategory of all others, and labelme's
    `_background_` and `__ignore__`.
    """
    found: dict[str, str] = {}
    for key, name in names.items():
        others = {parents[other] for other in names if other != key}
        if key not in annotated and _RESERVED.fullmatch(name):
            found[key] = f"'{name}' is not a class"
        elif key not in annotated and others == {name}:
            found[key] = f"'{name}' is the supercategory of all others"
    return found


def _choose_classes(
    path: Path, found: dict[str, str], categories: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Returns the class names, background first, and the class id of every category that is kept.

    Raises:
      InputError: if a category is unknown or repeated, or a class name or the number of classes is not usable.
    """
    in_order = sorted(found, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0, key))
    known = [found[key] for key in in_order]
    wanted: dict[str, str] = {}
    for entry in known if categories is None else categories:
        category, equals, name = (part.strip() for part in entry.partition("="))
        if entry in known:  # This category has an equals sign in its name.
            category, equals = entry, ""
        if category not in known:
            there = ", ".join(sorted(known))
            raise InputError(f"--categories: {path} has no category {category!r:.80}; there are {there}")
        if category in wanted:
            raise InputError(f"--categories names category {category!r:.80} of {path} more than once; name it once")
        wanted[category] = name if equals else category
    classes = ("background", *dict.fromkeys(wanted.values()))
    for name in classes[1:]:
        if not _is_line(name) or name == "background" or (categories is None and _RESERVED.fullmatch(name)):
            raise InputError(
                f"{path}: a class cannot be called {name!r:.80}; expected one line of text that is not reserved: "
                "rename it with --categories=CATEGORY=NAME,..."
            )
    if not 1 < len(classes) <= IGNORE:
        raise InputError(
            f"{path}: {len(classes) - 1} classes, expected 1 to {IGNORE - 1}; choose or merge categories with "
            "--categories=CATEGORY,CATEGORY=NAME,..."
        )
    return classes, {key: classes.index(wanted[name]) for key, name in found.items() if name in wanted}


def _without_objects(path: Path, classes: Sequence[str], objects: Sequence[CocoObject]) -> list[str]:
    """Returns a warning if some classes have no object, otherwise an empty list."""
    found = {item.class_id for item in objects if not item.crowd}
    used = [classes[i] for i in sorted(found)]
    empty = [name for name in classes[1:] if name not in used]
    remedy = (
        f"unless another split shows them, leave them out: --categories={','.join(used)}"
        if used
        else "check the annotations"
    )
    shown = ", ".join(empty[:12]) + (", ..." if len(empty) > 12 else "")
    return [f"{path} has no object of {len(empty)} of {len(classes) - 1} classes: {shown}; {remedy}"] if empty else []


def _is_fraction(segmentation: Any) -> bool:
    """Returns whether a segmentation consists of polygons with coordinates of about 0 to 1."""
    try:
        return bool(np.abs(np.concatenate(segmentation)).max() <= 1.5)
    except (TypeError, ValueError):  # These are run lengths, or not numbers.
        return False


def _id(value: Any) -> str:
    """Returns an id as text, or "" if the value is not an id.

    Tables with gaps are exported with ids such as 7.0, so 7.0 and "7" both mean 7.
    """
    return str(value).removesuffix(".0") if type(value) in (int, float, str) else ""


def _is_line(text: object) -> TypeGuard[str]:
    """Returns whether a value is text that survives being written to and read from a line of a UTF-8 file."""
    if not isinstance(text, str) or text.splitlines() != [text.strip()]:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in text)
