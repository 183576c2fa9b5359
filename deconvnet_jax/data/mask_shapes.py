"""Reads and draws the annotations of labelme and Supervisely, one JSON file per image.

Shapes are drawn as the tools draw them: labelme with Pillow, Supervisely with OpenCV. Later shapes cover earlier ones.
"""

import base64
import binascii
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw

from deconvnet_jax.data.mask_classes import Entry
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.images import open_image

_MOST_BYTES = 1 << 26  # of a decompressed bitmap
_NO_AREA = ("line", "linestrip", "point", "points", "polyline", "graph", "cuboid", "alpha_mask")
_SIDES = ("height", "width")
_KEYS = {"labelme": ("shapes", "imagePath"), "supervisely": ("objects", "size")}


class Shape(NamedTuple):
    """One shape of an annotation, not yet drawn.

    Attributes:
      where: file and place in it, for error messages.
      label: name of the class.
      instance: key that is equal for the shapes of one object.
      kind: kind of the shape, such as "polygon".
      data: points, or the whole entry of the JSON for bitmaps.
    """

    where: str
    label: str
    instance: object
    kind: str
    data: Any


class Annotation(NamedTuple):
    """Content of a JSON file.

    Attributes:
      path: the file.
      kind: "labelme" or "supervisely".
      size: height and width of the image in pixels; None if the file does not say them, as those of early labelme.
      shapes: shapes with an area, in the order of the file.
      left_out: kinds of the shapes without an area, such as "linestrip".
    """

    path: Path
    kind: str
    size: tuple[int, int] | None
    shapes: list[Shape]
    left_out: list[str]


def read_annotation(path: Path) -> Annotation:
    """Reads a JSON file of labelme or Supervisely.

    Raises:
      InputError: if it is neither, or an entry is not usable.
    """
    data = read_json(path)
    kind = next((kind for kind, keys in _KEYS.items() if all(key in data for key in keys)), None)
    if kind is None:
        raise InputError(
            f"{path} is not an annotation of labelme (with the keys {', '.join(_KEYS['labelme'])}) or Supervisely "
            f"({', '.join(_KEYS['supervisely'])}); export one of them"
        )
    given = data["size"] if kind == "supervisely" else {key: data.get(f"image{key.title()}") for key in _SIDES}
    sides = [given.get(key) if isinstance(given, dict) else None for key in _SIDES]
    whole = [isinstance(side, int | float) and float(side).is_integer() and side > 0 for side in sides]
    if sides != [None, None] and not all(whole):
        raise InputError(f"{path} has the height {sides[0]!r:.40} and the width {sides[1]!r:.40}; expected pixels")
    size = None if sides == [None, None] else (int(sides[0] or 0), int(sides[1] or 0))
    entries = data["shapes" if kind == "labelme" else "objects"]
    if not isinstance(entries, list):
        raise InputError(f"{path} has no list of shapes; expected an annotation of labelme or Supervisely")
    shapes = [_shape(path, kind, i, entry) for i, entry in enumerate(entries)]
    drawn = [shape for shape in shapes if shape.kind not in _NO_AREA]
    return Annotation(path, kind, size, drawn, [shape.kind for shape in shapes if shape.kind in _NO_AREA])


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
      InputError: if the file is not complete, or holds something else.
    """
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a complete JSON file ({one_line(error, 120)}); export it again") from error
    if not isinstance(data, dict):
        raise InputError(f"{path} holds no JSON object; expected an annotation of labelme or Supervisely")
    return data


def _shape(path: Path, kind: str, number: int, entry: Any) -> Shape:
    """Returns one shape; raises InputError if its class or kind is not usable."""
    names = ("shapes", "label", "shape_type") if kind == "labelme" else ("objects", "classTitle", "geometryType")
    where = f"{path}: {names[0]}[{number}]"
    label = entry.get(names[1]) if isinstance(entry, dict) else None
    if not isinstance(label, str) or not label.strip():
        raise InputError(f"{where} has the {names[1]} {label!r:.80}; expected the name of a class")
    shape = str(entry.get(names[2]) or "polygon")  # Early versions of labelme have only polygons.
    group = entry.get("group_id") if kind == "labelme" else None
    instance = ("shape", number) if group is None else (label, str(group))
    data = entry.get("points") if shape in ("polygon", "rectangle", "circle", "oriented_rectangle") else entry
    return Shape(where, label.strip(), instance, shape, data)


def entries_of(annotations: Mapping[Path, Annotation], metas: list[Path]) -> tuple[str, list[Entry]]:
    """Returns the classes of annotations: background, then those of Supervisely's meta.json, then the others by name.

    Args:
      annotations: all annotations.
      metas: the files meta.json of the export.

    Returns:
      Where the classes come from, for messages; and the classes.

    Raises:
      InputError: if a meta.json is not usable.
    """
    names = ["background"]
    for path in metas:
        classes = read_json(path).get("classes")
        titles = [entry.get("title") if isinstance(entry, dict) else None for entry in classes or []]
        if not isinstance(classes, list) or not all(isinstance(title, str) and title.strip() for title in titles):
            raise InputError(f"{path} has no usable list 'classes'; export the project again")
        names += [str(title).strip() for title in titles]
    names += sorted({shape.label for annotation in annotations.values() for shape in annotation.shapes})
    where = ", ".join(map(str, metas)) or "the annotations"
    return where, [Entry(name) for name in dict.fromkeys(names)]


def draw(
    annotation: Annotation, size: tuple[int, int], class_id: Callable[[Shape], int]
) -> tuple[np.ndarray, list[int]]:
    """Draws the shapes of an annotation. Shapes of one object get one number.

    Args:
      annotation: the annotation.
      size: height and width of the image.
      class_id: function that returns the class id of a shape: 0 for background, 255 for ignored pixels.

    Returns:
      Position of the visible object of each pixel, from 1, int32 [H, W], 0 where no object is; and the class ids of
      all objects.

    Raises:
      InputError: if a shape is not usable.
    """
    canvas = np.zeros(size, np.int32)
    places: dict[object, int] = {}
    class_ids: list[int] = []
    for shape in annotation.shapes:
        mask = _drawn(shape, annotation.kind, size)
        found = class_id(shape)
        place = places.setdefault((shape.instance, found), len(places) + 1)
        if place > len(class_ids):
            class_ids.append(found)
        canvas[mask] = place
    return canvas, class_ids


def _drawn(shape: Shape, kind: str, size: tuple[int, int]) -> np.ndarray:
    """Returns which pixels a shape covers, bool [H, W].

    Raises:
      InputError: if its points or its bitmap are not usable.
    """
    try:
        if kind == "labelme":
            return _placed(*_labelme_bitmap(shape.data), size) if shape.kind == "mask" else _labelme(shape, size)
        return _placed(*_bitmap(shape.data), size) if shape.kind == "bitmap" else _supervisely(shape, size)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, zlib.error, binascii.Error, cv2.error) as error:
        reason = one_line(error, 80) if isinstance(error, ValueError | zlib.error) else "its data has another form"
        raise InputError(
            f"{shape.where} ({shape.kind:.40}) cannot be drawn ({reason}); correct or delete it"
        ) from error


def _points(points: Any, least: int, size: tuple[int, int]) -> list[tuple[float, float]]:
    """Returns points (x, y). Raises ValueError for too few, or points far from the image."""
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise ValueError("expected a list of points [x, y]")
    found = [(float(x), float(y)) for x, y in points]
    height, width = size
    # Points a little outside the image are common. Pillow would need memory for those far away.
    if len(found) < least or not all(-width <= x <= 2 * width and -height <= y <= 2 * height for x, y in found):
        raise ValueError(f"expected {least} points or more, in or near the image")
    return found


def _two_points(points: Any, size: tuple[int, int]) -> list[tuple[float, float]]:
    found = _points(points, 2, size)
    if len(found) > 2:
        raise ValueError(f"expected 2 points, got {len(found)}")
    return found


def _labelme(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels of a polygon, rectangle or circle of labelme, bool [H, W]."""
    mask = Image.new("L", (size[1], size[0]))
    drawing = ImageDraw.Draw(mask)
    if shape.kind in ("polygon", "oriented_rectangle"):
        drawing.polygon(_points(shape.data, 3, size), outline=1, fill=1)
    elif shape.kind == "rectangle":
        xs, ys = zip(*_points(shape.data, 2, size), strict=True)  # Newer versions write four corners.
        drawing.rectangle([min(xs), min(ys), max(xs), max(ys)], outline=1, fill=1)
    elif shape.kind == "circle":
        (x, y), (x1, y1) = _two_points(shape.data, size)
        radius = math.hypot(x - x1, y - y1)
        drawing.ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)
    else:
        raise ValueError("expected polygon, rectangle, oriented_rectangle, circle or mask")
    return np.array(mask) > 0


def _supervisely(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """Returns the pixels of a polygon or rectangle of Supervisely, bool [H, W]."""
    mask = np.zeros(size, np.uint8)
    if shape.kind not in ("polygon", "rectangle"):
        raise ValueError("expected bitmap, polygon or rectangle")
    if shape.kind == "rectangle":
        (x0, y0), (x1, y1) = _two_points(shape.data["exterior"], size)
        exterior = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    else:
        exterior = _points(shape.data["exterior"], 3, size)
    holes = [_points(hole, 3, size) for hole in shape.data.get("interior") or []]
    for points, value in ((exterior, 1), *((hole, 0) for hole in holes)):
        cv2.fillPoly(mask, [np.round(points).astype(np.int32)], value)
    return mask == 1


def _labelme_bitmap(entry: Any) -> tuple[np.ndarray, int, int]:
    """Returns labelme's mask, bool [h, w], and the column and row of its upper left pixel."""
    (x, y), _ = entry["points"]
    return _png(base64.b64decode(entry["mask"], validate=True)), int(x), int(y)


def _bitmap(entry: Any) -> tuple[np.ndarray, int, int]:
    """Returns Supervisely's bitmap, bool [h, w], and the column and row of its upper left pixel."""
    x, y = entry["bitmap"]["origin"]
    stream = zlib.decompressobj()
    content = stream.decompress(base64.b64decode(entry["bitmap"]["data"], validate=True), _MOST_BYTES)
    if not stream.eof:
        raise ValueError("its data is truncated or too large")
    return _png(content), int(x), int(y)


def _png(content: bytes) -> np.ndarray:
    """Returns which pixels of a picture are set: those that are not transparent, or not black without transparency."""
    with open_image(io.BytesIO(content)) as image:
        if image.has_transparency_data:
            return np.array(image.convert("RGBA"))[..., 3] > 0
        return np.array(image.convert("L")) > 0


def _placed(bitmap: np.ndarray, x: int, y: int, size: tuple[int, int]) -> np.ndarray:
    """Returns a bitmap at its place in an image, bool [H, W]. What lies outside the image is cut off.

    Raises:
      ValueError: if the bitmap lies outside the image completely.
    """
    height, width = bitmap.shape
    top, left, bottom, right = max(y, 0), max(x, 0), min(y + height, size[0]), min(x + width, size[1])
    if top >= bottom or left >= right:
        raise ValueError(f"it lies at ({x}, {y}), outside the image of {size[1]}x{size[0]} pixels")
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = bitmap[top - y : bottom - y, left - x : right - x]
    return mask


def left_out_shapes(annotations: Mapping[Path, Annotation]) -> list[str]:
    """Returns a warning if shapes without an area were left out, otherwise an empty list."""
    found = Counter(kind for annotation in annotations.values() for kind in annotation.left_out)
    shown = ", ".join(f"{count} {kind}" for kind, count in found.items())
    return [f"shapes without an area are left out: {shown}"] if found else []
