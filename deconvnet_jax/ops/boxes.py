"""Box arrays: validation, intersection over union, and a ranking that moves near-duplicates back."""

import numpy as np
from numpy.typing import ArrayLike

from deconvnet_jax.array_checks import host_array
from deconvnet_jax.errors import InputError


def checked_boxes(
    boxes: ArrayLike, where: str = "", size: tuple[int, int] | None = None, *, may_be_empty: bool = False
) -> np.ndarray:
    """Returns boxes as float64 [n, 4] after checking each of them.

    Args:
      boxes: numbers [n, 4] as x0, y0, x1, y1 in pixels, x1 and y1 exclusive. Boxes may reach beyond the image. `[]`
        means zero boxes.
      where: the file or argument that holds the boxes; error messages start with it.
      size: (height, width) of the image in pixels. None skips the checks against the image.
      may_be_empty: True accepts boxes with x0 = x1 or y0 = y1.

    Returns:
      float64 [n, 4], a new array.

    Raises:
      InputError: if the array is not numeric [n, 4], or if a box is not finite or has no area (often x, y, width,
        height). With `size`, also if all boxes lie outside the image or between 0 and 1.
    """
    prefix = f"{where}: " if where else ""
    array = host_array(where or "boxes", boxes)
    if array.shape == (0,):
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "iuf":
        raise InputError(
            f"{prefix}expected boxes [n, 4], x0, y0, x1, y1 in pixels, got an array of shape {list(array.shape)} and "
            f"type {array.dtype}"
        )
    array = array.astype(np.float64)
    with np.errstate(invalid="ignore"):  # Infinite boxes give inf - inf; the next check refuses them.
        sides = array[:, 2:] - array[:, :2]
    wrong = ~np.isfinite(array).all(axis=1) | ~((sides >= 0) if may_be_empty else (sides > 0)).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{prefix}box {row} is {array[row].tolist()}; expected x0 < x1 and y0 < y1 in pixels. Convert x, y, "
            "width, height to x, y, x + width, y + height"
        )
    if size is not None and len(array):
        _check_place(array, prefix, size)
    return array


def _check_place(boxes: np.ndarray, prefix: str, size: tuple[int, int]) -> None:
    height, width = size
    if boxes.max() < 2 < min(size):
        raise InputError(
            f"{prefix}box 0 is {boxes[0].tolist()}, and all boxes lie between 0 and 1; expected pixels of the "
            f"{width}x{height} image. Multiply fractions by its width and height"
        )
    if ((boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, :2] >= (width, height)).any(axis=1)).all():
        raise InputError(
            f"{prefix}box 0 is {boxes[0].tolist()}, and all boxes lie outside the image of {width}x{height} pixels; "
            "expected boxes of this image at this size"
        )


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of every box in `boxes` with every box in `others`.

    Args:
      boxes: numbers [n, 4] as x0, y0, x1, y1, with x1 and y1 exclusive.
      others: numbers [m, 4] in the same format.

    Returns:
      float64 [n, m] in 0..1. The value is 0 where both boxes are empty.

    Raises:
      InputError: if an array does not hold boxes (see `checked_boxes`; empty boxes are allowed).

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.ops import box_iou
      >>> boxes = np.array([[0, 0, 10, 10], [10, 0, 30, 10]])
      >>> box_iou(boxes, np.array([[0, 0, 20, 10]]))
      array([[0.5       ],
             [0.33333333]])
    """
    first = checked_boxes(boxes, "box_iou: boxes", may_be_empty=True)
    return _iou(first, checked_boxes(others, "box_iou: others", may_be_empty=True))


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    boxes, others = boxes[:, None], others[None]
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    union = np.prod(boxes[..., 2:] - boxes[..., :2], -1) + np.prod(others[..., 2:] - others[..., :2], -1) - shared
    return np.divide(shared, union, out=np.zeros(union.shape), where=union > 0)


def rank_varied(boxes: np.ndarray, scores: np.ndarray, power: float, picks: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns an order of the boxes in which boxes that overlap a better one move back (soft non-maximum suppression).

    Each round takes the box with the highest score. It then multiplies every remaining score by 1 - IoU ** power, where
    IoU is the overlap with the box just taken. After `picks` rounds the other boxes follow by their reduced scores. Of
    equal scores the earlier box comes first. Source: Bodla et al., "Soft-NMS", ICCV 2017.

    Args:
      boxes: numbers [n, 4] as x0, y0, x1, y1, with x1 and y1 exclusive.
      scores: numbers [n], 0 or higher.
      power: exponent of the overlap, above 0. With a larger power only boxes that are more alike move back.
      picks: number of rounds. Each round costs one pass over all boxes.

    Returns:
      int64 [n], the indices of all boxes in the new order; and float64 [n], their reduced scores in that order,
      falling.

    Raises:
      InputError: if `boxes` does not hold boxes (see `checked_boxes`), or `scores` does not have one number per box.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.ops import rank_varied
      >>> boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]])
      >>> order, scores = rank_varied(boxes, np.array([0.9, 0.8, 0.5]), power=2.0, picks=2)
      >>> order
      array([0, 2, 1])
    """
    boxes = checked_boxes(boxes, "rank_varied: boxes", may_be_empty=True)
    scores = host_array("rank_varied: scores", scores)
    if scores.shape != (len(boxes),):
        raise InputError(f"rank_varied: scores have shape {list(scores.shape)}; expected one per box, [{len(boxes)}]")
    left, remaining = np.arange(len(boxes)), scores.astype(np.float64)
    order, ranked = [], []
    for _ in range(min(picks, len(boxes))):
        best = int(remaining.argmax())
        order.append(left[best])
        ranked.append(remaining[best])
        decay = 1 - _iou(boxes[left[best]][None], boxes[left])[0] ** power
        keep = np.arange(len(left)) != best
        left, remaining = left[keep], (remaining * decay)[keep]
    rest = np.argsort(-remaining, kind="stable")
    return np.concatenate([np.array(order, np.int64), left[rest]]), np.concatenate([ranked, remaining[rest]])
