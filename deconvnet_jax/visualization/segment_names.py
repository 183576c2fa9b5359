"""Writes the names of classes on their segments in a picture."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE, IGNORE_16, is_ignored
from deconvnet_jax.visualization.fonts import drawable, font_of_size

# A name is written where at least this share of its box lies on the segment.
_INSIDE = 0.75
_SMALLEST, _LINES = 11, 26  # Text is at least this high, in pixels, and at most this fraction of the picture's side.


def write_names(picture: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Returns a picture with the name of its class on each segment that is large enough for the text.

    The text is white with a black outline, which is readable on any colour. Background and ignored pixels get no name.

    Args:
      picture: uint8 RGB [H, W, 3].
      labels: class ids, uint8 or uint16 [H, W].
      class_names: names in the order of the ids.

    Returns:
      uint8 RGB [H, W, 3], a new array.

    Raises:
      InputError: if the id of a segment has no name.
    """
    font = font_of_size(max(_SMALLEST, max(picture.shape[:2]) // _LINES))
    outline = max(1, round(font.size / 9))
    free = np.ones(labels.shape, bool)  # pixels that no name covers yet
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for class_id, segment, (x0, y0) in _segments(labels, least=round(font.size**2)):
        name = drawable(class_name(class_id, class_names), class_id)
        left, top, right, bottom = draw.textbbox((0, 0), name, font=font, stroke_width=outline)
        size = int(right - left), int(bottom - top)
        rows, columns = slice(y0, y0 + segment.shape[0]), slice(x0, x0 + segment.shape[1])
        place = _place(segment & free[rows, columns], size)
        if place is not None:
            x, y = x0 + place[0], y0 + place[1]
            position = (x - left, y - top)
            draw.text(position, name, "white", font, stroke_width=outline, stroke_fill="black")
            free[y : y + size[1], x : x + size[0]] = False
    return np.array(canvas)


def class_name(class_id: int, class_names: Sequence[str]) -> str:
    """Returns the name of a class id; "(ignored)" for 255 and 65535 unless they are class ids.

    Args:
      class_id: the id.
      class_names: names in the order of the ids.

    Raises:
      InputError: if the id has no name.
    """
    if class_id < len(class_names):
        return class_names[class_id]
    if class_id in (IGNORE, IGNORE_16):
        return "(ignored)"
    raise InputError(f"class id {class_id} has no name; expected ids 0 to {len(class_names) - 1}, one per class name")


def _segments(labels: np.ndarray, least: int) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """Yields the connected segments, the largest first: class id, mask of its bounding box, upper left corner.

    Args:
      labels: class ids, uint8 or uint16 [H, W].
      least: smallest number of pixels of a segment.
    """
    found = []
    for class_id in np.unique(labels[~is_ignored(labels) & (labels > 0)]).tolist():
        _, numbers, boxes, _ = cv2.connectedComponentsWithStats((labels == class_id).astype(np.uint8))
        found += [
            (area, class_id, i, numbers, (x, y, width, height))
            for i, (x, y, width, height, area) in enumerate(boxes.tolist())
            if i > 0 and area >= least
        ]
    for _, class_id, i, numbers, (x, y, width, height) in sorted(found, key=lambda each: -each[0]):
        yield class_id, numbers[y : y + height, x : x + width] == i, (x, y)


def _place(mask: np.ndarray, size: tuple[int, int]) -> tuple[int, int] | None:
    """Returns the upper left corner of the box that lies on the mask as much as possible, and far from its edge.

    Args:
      mask: bool [h, w].
      size: width and height of the box.

    Returns:
      x and y within the mask; None if no box lies on the mask with the share `_INSIDE`.
    """
    width, height = size
    if width > mask.shape[1] or height > mask.shape[0] or mask.sum() < _INSIDE * width * height:
        return None
    on_mask = mask.astype(np.float32)
    share = cv2.boxFilter(on_mask, -1, size, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    share = share[: mask.shape[0] - height + 1, : mask.shape[1] - width + 1]
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    centre = depth[height // 2 :, width // 2 :][: share.shape[0], : share.shape[1]]
    if share.max() < _INSIDE:
        return None
    deep = np.where(share >= share.max() - 0.01, centre, 0)
    ys, xs = np.nonzero(deep >= 0.95 * deep.max())  # Along the middle of a long segment, all places are equally deep.
    nearest = int(np.hypot(ys - ys.mean(), xs - xs.mean()).argmin())
    return int(xs[nearest]), int(ys[nearest])
