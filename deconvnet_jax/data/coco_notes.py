"""What is probably meant otherwise in other people's COCO files: categories, fractions, photographs that are turned."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from deconvnet_jax.errors import InputError
from deconvnet_jax.images import image_orientation

_NO_CLASSES = ("background", "ignore")  # names that tools put into the list of categories, as _background_, __ignore__
_SHOWN = 12


def no_classes(
    names: Mapping[int | str, str], parents: Mapping[int | str, Any], annotated: Collection[int | str]
) -> dict[int | str, str]:
    """Returns the categories that annotate nothing and are no classes, by id, and why each is none.

    These are the name of the project, which Roboflow puts first as the supercategory of all others, and labelme's
    `_background_` and `__ignore__`.

    Args:
      names: of all categories, by id.
      parents: their supercategories, by id.
      annotated: ids of the categories that have annotations.
    """
    found: dict[int | str, str] = {}
    for key, name in names.items():
        others = [parents[other] for other in names if other != key]
        if key in annotated:
            continue
        if is_reserved(name):
            found[key] = f"'{name}' is no class"
        elif others and all(parent == name for parent in others):
            found[key] = f"'{name}' is the supercategory of all others"
    return found


def is_reserved(name: str) -> bool:
    """Returns whether a category's name says background or ignored pixels, as labelme's `_background_` does."""
    return name.strip("_").lower() in _NO_CLASSES


def category_notes(path: Path, left_out: Mapping[int | str, str], counts: Mapping[str, int]) -> list[str]:
    """Returns warnings about categories that were left out, and classes without any object.

    Args:
      path: the JSON file.
      left_out: from `no_classes`.
      counts: number of objects of every class, without crowds and background, in the order of their ids.
    """
    notes = [
        f"{path}: the category {why} and annotates nothing; it is left out, --categories with its name would keep it"
        for why in left_out.values()
    ]
    used = [name for name, count in counts.items() if count]
    empty = [name for name, count in counts.items() if not count]
    if not used:
        notes.append(
            f"{path} has no object of its {len(empty)} classes: its images show background and ignored pixels only"
        )
    elif empty:
        listed = ",".join(used) if len(used) <= _SHOWN else "... with the others"
        notes.append(
            f"{path} has no object of {len(empty)} of {len(counts)} classes: {_listed(empty)}; unless another "
            f"split shows them, leave them out: --categories={listed}"
        )
    return notes


def check_fractions(path: Path, segmentations: Sequence[Any]) -> list[str]:
    """Returns a warning if some polygons lie between 0 and 1, as fractions of an image do.

    Args:
      path: the JSON file.
      segmentations: all that are kept of it, as in the file, unchecked.

    Raises:
      InputError: if all do.
    """
    count = sum(map(_in_fractions, segmentations))
    if count and count == len(segmentations):
        raise InputError(
            f"{path}: the coordinates of all {count} annotations lie between 0 and 1; expected pixels: multiply them "
            "by the width and height of their image"
        )
    if not count:
        return []
    return [
        f"{path}: the coordinates of {count} of {len(segmentations)} annotations lie between 0 and 1, where they cover "
        "a pixel at most; expected pixels: multiply fractions by the width and height of their image"
    ]


def _in_fractions(segmentation: Any) -> bool:
    if not isinstance(segmentation, list):
        return False
    numbers = [number for polygon in segmentation if isinstance(polygon, list) for number in polygon]
    return bool(numbers) and all(isinstance(number, int | float) and abs(number) <= 1.5 for number in numbers)


def orientation_notes(paths: Sequence[Path]) -> list[str]:
    """Returns a warning if photographs are marked as turned by EXIF; their masks fit either the stored or that image.

    Args:
      paths: of the photographs.
    """
    turned = [(path, number) for path in paths if (number := image_orientation(path)) != 1]
    if not turned:
        return []
    path, number = turned[0]
    return [
        f"{len(turned)} of {len(paths)} images have an EXIF orientation, among them {path} ({number}): their masks are "
        "taken to fit the pixels as stored; if they were drawn on the upright image, as browsers show it, turn the "
        "files upright (Pillow: ImageOps.exif_transpose) and import again"
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
