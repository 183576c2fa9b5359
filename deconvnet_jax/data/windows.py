"""Boxes around objects and images, and the square crops that they cut out (paper, section 4.1).

Boxes are float64 [n, 4]: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; they may reach beyond the image.
"""

import cv2
import numpy as np

from deconvnet_jax.data.voc_layout import IGNORE

# Parts of a class mask below this many pixels are annotation noise rather than objects.
MIN_COMPONENT_PIXELS = 64


def instance_boxes(label: np.ndarray, instances: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tight box of every object, its class and its number.

    Args:
      label: uint8 [H, W] class ids, 255 = ignore.
      instances: uint8 [H, W] object numbers, 0 = background, 255 = ignore; without it every connected part of a class
        with at least MIN_COMPONENT_PIXELS pixels counts as an object.

    Returns:
      boxes float64 [n, 4], classes int64 [n], numbers int64 [n] (as in `instances`, else counted from 1). The class
      is the most frequent class id of its pixels; objects without any (all background or ignored) are left out.
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
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64), np.array(numbers, np.int64)


def _object_masks(label: np.ndarray, instances: np.ndarray | None) -> list[tuple[int, np.ndarray]]:
    if instances is not None:
        return [(number, instances == number) for number in np.unique(instances) if number not in (0, IGNORE)]
    masks = []
    for class_id in np.unique(label):
        if class_id in (0, IGNORE):
            continue
        count, parts, stats, _ = cv2.connectedComponentsWithStats((label == class_id).astype(np.uint8))
        masks += [parts == k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= MIN_COMPONENT_PIXELS]
    return list(enumerate(masks, 1))


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


def crop_window(
    image: np.ndarray, label: np.ndarray | None, box: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cuts a box out and resizes it to a square.

    What lies outside the image is black, its label 255 (original: window_seg_data_layer.cpp). Pixel centres are at
    half-integers, the image is sampled bilinearly without smoothing, as there, and the label by the nearest pixel, at
    the same points (OpenCV's nearest neighbour, the original's, is up to half a pixel off).

    Args:
      image: uint8 RGB [H, W, 3].
      label: uint8 [H, W], or None.
      box: [4], any position and size.
      size: side of the result.

    Returns:
      uint8 [size, size, 3] and uint8 [size, size] (or None).
    """
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    # From a pixel of the result to its place in the image: (i + 0.5) * scale + origin - 0.5.
    scale_x, scale_y = (x1 - x0) / size, (y1 - y0) / size
    inverse = np.array([[scale_x, 0, x0 + scale_x / 2 - 0.5], [0, scale_y, y0 + scale_y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # Replicated, then blackened: the image's own border is not mixed with black.
    crop = cv2.warpAffine(image, inverse, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    steps = np.arange(size) + 0.5
    columns, rows = (np.floor(start + scale * steps).astype(int) for start, scale in ((x0, scale_x), (y0, scale_y)))
    height, width = image.shape[:2]
    outside_rows, outside_columns = (rows < 0) | (rows >= height), (columns < 0) | (columns >= width)
    crop[outside_rows], crop[:, outside_columns] = 0, 0
    if label is None:
        return crop, None
    crop_label = label[np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)]
    crop_label[outside_rows], crop_label[:, outside_columns] = IGNORE, IGNORE
    return crop, crop_label


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
    mask = dict(_object_masks(label, instances))[instance_id] if instances is None else instances == instance_id
    return np.where((label == IGNORE) | (mask & (label == class_id)), label, 0).astype(np.uint8)
