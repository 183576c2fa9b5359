"""How much boxes overlap, and rankings in which boxes differ."""

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


def rank_varied(boxes: np.ndarray, scores: np.ndarray, power: float, picks: int) -> tuple[np.ndarray, np.ndarray]:
    """Soft non-maximum suppression (Bodla et al., ICCV 2017): boxes like a better one move back.

    Again and again the best box is taken, and the scores of those left are multiplied by 1 - IoU ** power with it.
    After `picks` boxes the others follow in the order of what their scores have become.

    Args:
      boxes: [n, 4].
      scores: [n], from 0.
      power: the larger, the more alike boxes must be to be moved back.
      picks: how many boxes are taken one by one; each costs a pass over all boxes.

    Returns:
      order int64 [n], indices of all boxes; and their new scores float64 [n], falling.
    """
    left, remaining = np.arange(len(boxes)), np.array(scores, np.float64)
    order, ranked = [], []
    for _ in range(min(picks, len(boxes))):
        best = int(remaining.argmax())
        order.append(left[best])
        ranked.append(remaining[best])
        decay = 1 - box_iou(boxes[left[best]][None], boxes[left])[0] ** power
        keep = np.arange(len(left)) != best
        left, remaining = left[keep], (remaining * decay)[keep]
    rest = np.argsort(-remaining, kind="stable")
    return np.concatenate([np.int64(order), left[rest]]), np.concatenate([ranked, remaining[rest]])
