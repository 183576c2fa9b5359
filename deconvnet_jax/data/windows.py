"""Boxes around objects and images, and the square crops that are cut out of them (paper, section 6.1).

A box is x0, y0, x1, y1 in pixels; x1 and y1 are exclusive. Boxes are float64 [n, 4] and may reach beyond the image.
"""

import math
from typing import NamedTuple, overload

import cv2
import numpy as np

from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE
from deconvnet_jax.ops.boxes import checked_boxes
from deconvnet_jax.short_repr import short_repr

Range = tuple[float, float]
Part = tuple[int, int, int]

_BITS = 20  # fractional bits of fixed-point positions
# Connected parts of a class mask with fewer pixels are annotation noise, not objects.
MIN_COMPONENT_PIXELS = 64


class Objects(NamedTuple):
    """Annotated objects of one image.

    Attributes:
      boxes: tight boxes, float64 [n, 4].
      class_ids: class ids, int64 [n], never 0 or 255.
      instance_ids: numbers of the objects in the instance mask, int64 [n], from 1.
    """

    boxes: np.ndarray
    class_ids: np.ndarray
    instance_ids: np.ndarray

    __repr__ = short_repr


def instance_boxes(label: np.ndarray, instances: np.ndarray | None) -> Objects:
    """Returns the tight box, the class and the number of every object.

    Args:
      label: class ids, uint8 [H, W]; 255 marks ignored pixels.
      instances: object numbers, uint8 [H, W]; 0 is background, 255 is ignored. With None, every connected part of a
        class with at least MIN_COMPONENT_PIXELS pixels counts as one object (`number_parts`).

    Returns:
      The objects in increasing order of their numbers. The class is the most frequent class id among an object's
      pixels, the lowest of several equally frequent ones. Objects whose pixels are all background or ignored are left
      out.

    Raises:
      InputError: if an array has another shape or dtype, or the sizes differ.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.data import instance_boxes
      >>> label = np.zeros((40, 60), np.uint8)
      >>> label[5:25, 10:40] = 3
      >>> objects = instance_boxes(label, (label == 3).astype(np.uint8))
      >>> objects.boxes.tolist(), objects.class_ids.tolist(), objects.instance_ids.tolist()
      ([[10.0, 5.0, 40.0, 25.0]], [3], [1])
    """
    _check_maps("instance_boxes", label, instances)
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
    """Returns an instance mask made from a class mask alone: one number for each connected part of a class.

    Args:
      label: class ids, uint8 [H, W]; 255 marks ignored pixels. Pixels that touch at a corner are connected.

    Returns:
      Object numbers, uint16 [H, W]: 1, 2, ... (never 255) for parts with at least MIN_COMPONENT_PIXELS pixels, 0
      elsewhere.
    """
    check_arrays("number_parts", label=(label, "H W", "integer"))
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
    """Returns boxes with both sides multiplied by `factor` and the same centres.

    Args:
      boxes: boxes, float [n, 4].
      factor: factor of both sides, above 0. The default is that of the paper.

    Returns:
      Boxes, float64 [n, 4].

    Raises:
      InputError: if the boxes have another shape or dtype.
    """
    check_arrays("enlarge", boxes=(boxes, "n 4", "number"))
    return _around(boxes, (boxes[:, 2:] - boxes[:, :2]) * factor)


def square(boxes: np.ndarray) -> np.ndarray:
    """Returns boxes whose shorter side is made as long as the longer one, with the same centres.

    Args:
      boxes: boxes, float [n, 4].

    Returns:
      Square boxes, float64 [n, 4].

    Raises:
      InputError: if the boxes have another shape or dtype.
    """
    check_arrays("square", boxes=(boxes, "n 4", "number"))
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    return _around(boxes, np.broadcast_to(sides, (len(boxes), 2)))


def _check_maps(function: str, label: np.ndarray, instances: np.ndarray | None) -> None:
    maps = {"label": label} | ({} if instances is None else {"instances": instances})
    check_arrays(function, **{name: (array, "H W", "integer") for name, array in maps.items()})


def _around(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def image_box(height: int, width: int, factor: float = 1.0) -> np.ndarray:
    """Returns the square box that is centred on an image.

    Args:
      height: height of the image, in pixels.
      width: width of the image, in pixels.
      factor: side of the box divided by the longer side of the image.

    Returns:
      One box, float64 [4].
    """
    return enlarge(square(np.array([[0, 0, width, height]], np.float64)), factor)[0]


def zoomed_size(size: int, zoom: Range, rng: np.random.Generator) -> int:
    """Returns `size` multiplied by a random factor from the range `zoom`, rounded.

    The logarithm of the factor is uniform: half of the factors lie below the geometric mean of the two limits.

    Args:
      size: side of a square, in pixels.
      zoom: smallest and largest factor. If they are equal, no random number is drawn.
      rng: random generator.

    Returns:
      The zoomed side, in pixels.
    """
    low, high = zoom
    return round(size * math.exp(rng.uniform(math.log(low), math.log(high)))) if low < high else round(size * low)


def crop_place(
    size: int, crop: int, rng: np.random.Generator | None, shown: tuple[Range, Range] | None = None
) -> tuple[int, int]:
    """Returns the top and left of a `crop` x `crop` part of a `size` x `size` square: random, or central without `rng`.

    Args:
      size: side of the square, in pixels. If it is smaller than `crop`, the part shows the whole square and, around it,
        what lies outside; top and left are then negative.
      crop: side of the part, in pixels.
      rng: random generator that chooses the place. None takes the centre, and `shown` is ignored.
      shown: rows (from, to) and columns (from, to) of the square that show the image (`shown_extent`). A random part
        then shows only the image where the image is large enough, and all of the image where it is smaller than the
        part. None allows every place in the square.

    Returns:
      Top and left, in pixels of the square.

    Example:
      >>> from deconvnet_jax.data import crop_place
      >>> crop_place(250, 224, None)
      (13, 13)
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
    # A pixel of the square shows the image if its centre lies inside the image.
    return int(rng.integers(math.ceil(low - 0.5), math.ceil(high - 0.5) + 1))


def random_mirror(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image and its label, both mirrored left to right with a probability of one half.

    Args:
      image: image, [H, W, 3].
      label: class ids, [H, W].
      rng: random generator.

    Returns:
      The image and the label; mirrored ones are views of the input.
    """
    return (image[:, ::-1], label[:, ::-1]) if rng.random() < 0.5 else (image, label)


def random_angle(most: float, rng: np.random.Generator) -> float:
    """Returns a random angle, uniform between -`most` and `most`.

    Args:
      most: largest angle, in degrees. 0 draws no random number.
      rng: random generator.

    Returns:
      The angle, in degrees.
    """
    return rng.uniform(-most, most) if most else 0.0


def shown_extent(box: np.ndarray, size: int, height: int, width: int) -> tuple[Range, Range]:
    """Returns which rows and columns of a box, resized to `size` x `size`, show the image.

    Args:
      box: box in the image, float [4].
      size: side of the resized box, in pixels.
      height: height of the image, in pixels.
      width: width of the image, in pixels.

    Returns:
      Rows (from, to) and columns (from, to), in fractional pixels of the resized box.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    rows = (max(0.0, -y0) * size / (y1 - y0), (min(y1, height) - y0) * size / (y1 - y0))
    columns = (max(0.0, -x0) * size / (x1 - x0), (min(x1, width) - x0) * size / (x1 - x0))
    return rows, columns


@overload
def crop_window(
    image: np.ndarray, label: np.ndarray, box: np.ndarray, size: int, part: Part | None = None, angle: float = 0.0
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def crop_window(
    image: np.ndarray, label: None, box: np.ndarray, size: int, part: Part | None = None, angle: float = 0.0
) -> tuple[np.ndarray, None]: ...
def crop_window(
    image: np.ndarray,
    label: np.ndarray | None,
    box: np.ndarray,
    size: int,
    part: Part | None = None,
    angle: float = 0.0,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cuts a box out of an image and its label and resizes it to a square, or to a part of that square.

    Pixels outside the image become black, with the label 255 (original: window_seg_data_layer.cpp). Pixel centres are
    at half-integers in the box and in the result, and the box is not rounded. So the image (bilinear) and the label
    (nearest neighbour) sample the same points; the original's OpenCV nearest neighbour is off by up to half a pixel.

    Args:
      image: image, uint8 RGB [H, W, 3].
      label: class ids, uint8 [H, W], or None if no label is needed.
      box: box to cut out, float [4], of any place and size with x0 < x1 and y0 < y1.
      size: side of the square that the whole box is resized to, in pixels.
      part: top, left and side of the part of the square to return, in pixels. Only this part is computed. None returns
        the whole square.
      angle: degrees by which the content is turned counter-clockwise, about the centre of the part.

    Returns:
      The crop, uint8 RGB [side, side, 3], and its label, uint8 [side, side], or None without `label`.

    Raises:
      InputError: if an array has another shape or dtype, the box is not finite or has no area (`ops.checked_boxes`),
        or the angle is not finite.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.data import crop_window
      >>> image, label = np.full((40, 60, 3), 128, np.uint8), np.ones((40, 60), np.uint8)
      >>> crop, crop_label = crop_window(image, label, np.array([30, 10, 90, 70]), size=8)
      >>> crop.shape, crop_label[0].tolist()
      ((8, 8, 3), [1, 1, 1, 1, 255, 255, 255, 255])
    """
    arrays = {"image": (image, "H W 3", "uint8")} | ({} if label is None else {"label": (label, "H W", "integer")})
    check_arrays("crop_window", **arrays)
    top, left, side = part or (0, 0, size)
    x0, y0, x1, y1 = checked_boxes(np.asarray(box)[None])[0].tolist()
    scale_x, scale_y = (x1 - x0) / size, (y1 - y0) / size
    if not math.isfinite(angle):
        raise InputError(f"crop_window: angle={angle}; expected a finite number of degrees")
    if angle:
        centre = left + side / 2, top + side / 2
        return _turned(image, label, (x0, y0), (scale_x, scale_y), centre, side, angle)
    rows, first_row, end_row = _sampled(y0, scale_y, top, side, image.shape[0])
    columns, first_column, end_column = _sampled(x0, scale_x, left, side, image.shape[1])
    crop = np.zeros((side, side, 3), np.uint8)
    if rows.size and columns.size:
        # Pixel i of the result lies at (i + 0.5) * scale + origin - 0.5 in the image.
        origin_x = x0 + (left + first_column + 0.5) * scale_x - 0.5
        origin_y = y0 + (top + first_row + 0.5) * scale_y - 0.5
        cv2.warpAffine(
            image,
            np.array([[scale_x, 0, origin_x], [0, scale_y, origin_y]]),
            (columns.size, rows.size),
            dst=crop[first_row:end_row, first_column:end_column],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,  # Black must not bleed into the pixels at the image's border.
        )
    if label is None:
        return crop, None
    crop_label = np.full((side, side), IGNORE, np.uint8)
    crop_label[first_row:end_row, first_column:end_column] = label.take(rows, 0).take(columns, 1)
    return crop, crop_label


def _turned(
    image: np.ndarray,
    label: np.ndarray | None,
    corner: Range,
    scale: Range,
    centre: Range,
    side: int,
    angle: float,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns a part of a resized box, turned about its centre; the rules are those of `crop_window`.

    Args:
      image: image, uint8 RGB [H, W, 3].
      label: class ids, uint8 [H, W], or None.
      corner: x and y of the box's upper left corner, in pixels of the image.
      scale: width and height of a pixel of the resized box, in pixels of the image.
      centre: x and y of the part's centre, in pixels of the resized box.
      side: side of the part, in pixels.
      angle: degrees, counter-clockwise.
    """
    turn = math.radians(angle)
    axes = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = np.diag(scale) @ axes  # from a step in the part to a step in the image
    origin = np.add(corner, np.multiply(scale, centre)) - matrix @ [side / 2, side / 2]
    # The pixel under each centre, in fixed-point numbers: as good as floats here, and faster.
    steps = np.outer(matrix * 2**_BITS, np.arange(side) + 0.5).round().astype(np.int64).reshape(2, 2, side)
    across, down = steps[:, 0], steps[:, 1] + (origin * 2**_BITS).round().astype(np.int64)[:, None]
    columns, rows = (np.add.outer(down[axis], across[axis]) >> _BITS for axis in (0, 1))
    height, width = image.shape[:2]
    # Read as unsigned, a negative number is a large one.
    inside = (columns.view(np.uint64) < width) & (rows.view(np.uint64) < height)
    shift = origin + matrix @ [0.5, 0.5] - 0.5  # OpenCV puts the centres of pixels at whole numbers.
    crop = cv2.warpAffine(
        image,
        np.hstack([matrix, shift[:, None]]),
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    crop = cv2.bitwise_and(crop, crop, mask=inside.view(np.uint8))
    if label is None:
        return crop, None
    crop_label = label.ravel().take(rows * width + columns, mode="clip").astype(np.uint8, copy=False)
    crop_label[~inside] = IGNORE
    return crop, crop_label


def _sampled(start: float, scale: float, first: int, count: int, length: int) -> tuple[np.ndarray, int, int]:
    """Returns which pixels of one side of an image are sampled, and the range of the result that they fill."""
    pixels = np.floor(start + scale * (np.arange(first, first + count) + 0.5)).astype(np.int64)
    begin, end = np.searchsorted(pixels, (0, length)).tolist()
    return pixels[begin:end], begin, end


def keep_class(label: np.ndarray, instances: np.ndarray | None, instance_id: int, class_id: int) -> np.ndarray:
    """Returns the label of stage 1: one object keeps its class, all other pixels become background, and 255 stays.

    The paper labels the object that a crop is centred on and makes all other pixels background. We take this to include
    other objects of the same class; no public text says what the released crops contained.

    Args:
      label: class ids, uint8 [H, W]; 255 marks ignored pixels.
      instances: object numbers, uint8 [H, W], or None for connected parts, as in `instance_boxes`.
      instance_id: number of the object to keep, from `instance_boxes`.
      class_id: class of that object. Its pixels of other classes become background.

    Returns:
      Label with the values 0, `class_id` and 255, uint8 [H, W].

    Raises:
      InputError: if an array has another shape or dtype, or the sizes differ.
    """
    _check_maps("keep_class", label, instances)
    mask = (number_parts(label) if instances is None else instances) == instance_id
    return np.where((label == IGNORE) | (mask & (label == class_id)), label, 0).astype(np.uint8)
