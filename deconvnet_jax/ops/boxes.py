"""How much boxes overlap."""

import numpy as np


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other box.

    Args:
      boxes: [n, 4], x0, y0, x1, y1, x1 and y1 exclusive.
      others: [m, 4].

    Returns:
      float64 [n, m] in 0..1; 0 where both boxes are empty.
    """
    boxes, others = np.asarray(boxes, np.float64)[:, None], np.asarray(others, np.float64)[None]
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    union = np.prod(boxes[..., 2:] - boxes[..., :2], -1) + np.prod(others[..., 2:] - others[..., :2], -1) - shared
    return np.divide(shared, union, out=np.zeros(union.shape), where=union > 0)
