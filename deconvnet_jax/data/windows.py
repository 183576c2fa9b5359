"""Boxes around objects and images, and the square crops that they cut out, at random places (paper, section 4.1).

Boxes are float64 [n, 4]: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; they may reach beyond the image.
"""

import math
from typing import NamedTuple, overload

import cv2
import numpy as np

from deconvnet_jax.labels import IGNORE
from deconvnet_jax.ops.boxes import checked_boxes

Range = tuple[float, float]
Part = tuple[int, int, int]

# Parts of a class mask below this many pixels are annotation noise rather than objects.
MIN_COMPONENT_PIXELS = 64


class Objects(NamedTuple):
    """The annotated objects of one image.

    Attributes:
      boxes: float64 [n, 4], tight.
      class_ids: int64 [n].
      instance_ids: int64 [n], the objects' numbers in the instance mask, from 1.
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    instance_ids: np.ndarray


def instance_boxes(label: np.ndarray, instances: np.ndarray | None) -> Objects:
    """The tight box of every object, its class and its number.

    Args:
      label: uint8 [H, W] class ids, 255 = ignore.
      instances: uint8 [H, W] object numbers, 0 = background, 255 = ignore; without it every connected part of a class
        with at least MIN_COMPONENT_PIXELS pixels counts as an object.

    Returns:
      The objects; numbers as in `instances`, else counted from 1. The class is the most frequent class id of an
      object's pixels; objects without any (all background or ignored) are left out.
    """
    boxes, classes, numbers = [], [], []
    for number, mask in _object_masks(label, instances):
        ids = label[mask]
        ids = ids[(ids != 0) & (ids != IGNORE)]
        if not len(ids):
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        classes.append(np.bincount(ids).argmax())
        numbers.append(number)
    return Objects(np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64), np.array(numbers, np.int64))


def _object_masks(label: np.ndarray, instances: np.ndarray | None) -> list[tuple[int, np.ndarray]]:
    numbers = number_parts(label) if instances is None else instances
    return [(number, numbers == number) for number in np.unique(numbers) if number not in (0, IGNORE)]


def number_parts(label: np.ndarray) -> np.ndarray:
    """An instance mask from a class mask alone: its connected parts.

    Args:
      label: uint8 [H, W] class ids, 255 = ignore.

    Returns:
      uint16 [H, W], 1, 2, ... (never 255) for connected parts of a class with at least MIN_COMPONENT_PIXELS pixels, 0
      elsewhere.
    """
    numbers = np.zeros(label.shape, np.uint16)
    number = 0
    for class_id in np.unique(label):
        if class_id in (0, IGNORE):
            continue
        count, parts, stats, _ = cv2.connectedComponentsWithStats((label == class_id).astype(np.uint8))
        for part in range(1, count):
            if stats[part, cv2.CC_STAT_AREA] >= MIN_COMPONENT_PIXELS:
                number += 2 if number == IGNORE - 1 else 1
                numbers[parts == part] = number
    return numbers


def enlarge(boxes: np.ndarray, factor: float = 1.2) -> np.ndarray:
    """Boxes [n, 4] with both sides multiplied by `factor`, about the centre."""
    return _around(boxes, (boxes[:, 2:] - boxes[:, :2]) * factor)


def square(boxes: np.ndarray) -> np.ndarray:
    """Boxes [n, 4] with the shorter side made as long as the longer one, about the centre."""
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    return _around(boxes, np.broadcast_to(sides, (len(boxes), 2)))


def _around(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def image_box(height: int, width: int, factor: float = 1.0) -> np.ndarray:
    """The square box [4] centred on an image, its side `factor` times the longer side."""
    return enlarge(square(np.array([[0, 0, width, height]], np.float64)), factor)[0]


def zoomed_size(size: int, zoom: Range, rng: np.random.Generator) -> int:
    """Returns the size times a random factor between these two, as often below their geometric mean as above."""
    low, high = zoom
    return round(size * math.exp(rng.uniform(math.log(low), math.log(high)))) if low < high else round(size * low)


def crop_place(
    size: int, crop: int, rng: np.random.Generator | None, shown: tuple[Range, Range] | None = None
) -> tuple[int, int]:
    """Returns top and left of a crop x crop part of a size x size square: random, or the centre without `rng`.

    Args:
      size: of the square; if it is smaller than the crop, the crop shows all of it, and what is around it.
      crop: size of the part.
      rng: of the place.
      shown: the rows and the columns of the square, from and to, that show the image. With them a random part shows
        nothing else where that is possible; where the image is smaller than the part, it shows all of the image.
    """
    if rng is None:
        return (size - crop) // 2, (size - crop) // 2
    if shown is None:
        low, high = sorted((0, size - crop))
        top, left = rng.integers(low, high + 1, 2).tolist()
        return top, left
    top, left = (_start_inside(*extent, crop, rng) for extent in shown)
    return top, left


def _start_inside(begin: float, end: float, crop: int, rng: np.random.Generator) -> int:
    low, high = sorted((begin, end - crop))
    # A pixel shows the image if its centre does.
    return int(rng.integers(math.ceil(low - 0.5), math.ceil(high - 0.5) + 1))


def random_mirror(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns image [H, W, 3] and label [H, W], in half of the cases mirrored left to right."""
    return (image[:, ::-1], label[:, ::-1]) if rng.random() < 0.5 else (image, label)


def shown_extent(box: np.ndarray, size: int, height: int, width: int) -> tuple[Range, Range]:
    """Returns the rows and the columns, from and to, of a box resized to size x size that show the image."""
    x0, y0, x1, y1 = (float(value) for value in box)
    rows = (max(0.0, -y0) * size / (y1 - y0), (min(y1, height) - y0) * size / (y1 - y0))
    columns = (max(0.0, -x0) * size / (x1 - x0), (min(x1, width) - x0) * size / (x1 - x0))
    return rows, columns


@overload
def crop_window(
    image: np.ndarray, label: np.ndarray, box: np.ndarray, size: int, part: Part | None = None
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def crop_window(
    image: np.ndarray, label: None, box: np.ndarray, size: int, part: Part | None = None
) -> tuple[np.ndarray, None]: ...
def crop_window(
    image: np.ndarray, label: np.ndarray | None, box: np.ndarray, size: int, part: Part | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cuts a box out and resizes it to a square, or to a part of that square.

    What lies outside the image is black, its label 255 (original: window_seg_data_layer.cpp). Pixel centres are at
    half-integers in the box and in the result, and the box is not rounded: image (bilinear) and label (nearest) sample
    the same points (OpenCV's nearest neighbour, the original's, is up to half a pixel off).

    Args:
      image: uint8 RGB [H, W, 3].
      label: uint8 [H, W], or None.
      box: [4], any position and size.
      size: side of the square.
      part: top, left and side of the part of the square that is wanted; only that is computed.

    Returns:
      uint8 [side, side, 3] and uint8 [side, side] (or None); side is `size` without `part`.

    Raises:
      InputError: if the box is none (`ops.checked_boxes`).
    """
    top, left, side = part or (0, 0, size)
    x0, y0, x1, y1 = checked_boxes(np.asarray(box)[None])[0].tolist()
    scale_x, scale_y = (x1 - x0) / size, (y1 - y0) / size
    rows, first_row, end_row = _sampled(y0, scale_y, top, side, image.shape[0])
    columns, first_column, end_column = _sampled(x0, scale_x, left, side, image.shape[1])
    crop = np.zeros((side, side, 3), np.uint8)
    if rows.size and columns.size:
        # From a pixel of the result to its place in the image: (i + 0.5) * scale + origin - 0.5.
        origin_x = x0 + (left + first_column + 0.5) * scale_x - 0.5
        origin_y = y0 + (top + first_row + 0.5) * scale_y - 0.5
        cv2.warpAffine(
            image,
            np.array([[scale_x, 0, origin_x], [0, scale_y, origin_y]]),
            (columns.size, rows.size),
            dst=crop[first_row:end_row, first_column:end_column],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,  # the image's own border is not mixed with black
        )
    if label is None:
        return crop, None
    crop_label = np.full((side, side), IGNORE, np.uint8)
    crop_label[first_row:end_row, first_column:end_column] = label.take(rows, 0).take(columns, 1)
    return crop, crop_label


def _sampled(start: float, scale: float, first: int, count: int, length: int) -> tuple[np.ndarray, int, int]:
    """Along one side, the pixels of an image of that length that are sampled, and where they begin and end."""
    pixels = np.floor(start + scale * (np.arange(first, first + count) + 0.5)).astype(np.int64)
    begin, end = np.searchsorted(pixels, (0, length)).tolist()
    return pixels[begin:end], begin, end


def keep_class(label: np.ndarray, instances: np.ndarray | None, instance_id: int, class_id: int) -> np.ndarray:
    """Stage 1's labels: one object's class, everything else background; 255 stays.

    The paper labels the object that a crop is centred on and makes all other pixels background; we take that to include
    other objects of the same class. What the released crops contained cannot be told from public text.

    Args:
      label: uint8 [H, W] class ids, 255 = ignore.
      instances: uint8 [H, W] object numbers, or None, as for `instance_boxes`.
      instance_id: the object's number, from `instance_boxes`.
      class_id: its class.

    Returns:
      uint8 [H, W] of 0, class_id and 255.
    """
    mask = (number_parts(label) if instances is None else instances) == instance_id
    return np.where((label == IGNORE) | (mask & (label == class_id)), label, 0).astype(np.uint8)
