"""What a box is, how much boxes overlap, and rankings in which boxes differ."""

import numpy as np
from numpy.typing import ArrayLike

from deconvnet_jax.errors import InputError


def checked_boxes(
    boxes: ArrayLike, where: str = "", size: tuple[int, int] | None = None, *, may_be_empty: bool = False
) -> np.ndarray:
    """Returns boxes as float64 [n, 4], once all of them have turned out to be boxes.

    Args:
      boxes: numbers [n, 4], x0, y0, x1, y1 in pixels, x1 and y1 exclusive; they may reach beyond the image. `[]` is
        zero boxes.
      where: file or argument that they are from, for messages.
      size: height and width of the image that they are on; None: not known.
      may_be_empty: accept boxes with x0 = x1 or y0 = y1.

    Raises:
      InputError: for another array, a box that is not finite or has no area, such as one given as x, y, width, height;
        and with `size` if all boxes lie outside the image or are fractions of it.
    """
    prefix = f"{where}: " if where else ""
    try:
        array = np.asarray(boxes)
    except ValueError:  # rows of several lengths
        array = np.array(None)
    if array.shape == (0,):
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "iuf":
        raise InputError(
            f"{prefix}expected boxes [n, 4], x0, y0, x1, y1 in pixels, got an array of shape {list(array.shape)} and "
            f"type {array.dtype}"
        )
    array = array.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf, in boxes that are refused
        sides = array[:, 2:] - array[:, :2]
    wrong = ~np.isfinite(array).all(axis=1) | ~((sides >= 0) if may_be_empty else (sides > 0)).all(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{prefix}box {row} is {array[row].tolist()}; expected x0 < x1 and y0 < y1 in pixels: of x, y, width, "
            "height make x, y, x + width, y + height"
        )
    if size is not None and len(array):
        _check_place(array, prefix, size)
    return array


def _check_place(boxes: np.ndarray, prefix: str, size: tuple[int, int]) -> None:
    height, width = size
    if boxes.max() < 2 < min(size):
        raise InputError(
            f"{prefix}box 0 is {boxes[0].tolist()}, and all boxes lie between 0 and 1; expected pixels of the image "
            f"of {width}x{height}: multiply fractions by its width and height"
        )
    if ((boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, :2] >= (width, height)).any(axis=1)).all():
        raise InputError(
            f"{prefix}box 0 is {boxes[0].tolist()}, and all boxes lie outside the image of {width}x{height} pixels; "
            "expected boxes of this image at this size"
        )


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other box.

    Args:
      boxes: [n, 4], x0, y0, x1, y1, x1 and y1 exclusive.
      others: [m, 4].

    Returns:
      float64 [n, m] in 0..1; 0 where both boxes are empty.

    Raises:
      InputError: for arrays that hold no boxes (`checked_boxes`).
    """
    return _iou(checked_boxes(boxes, "boxes", may_be_empty=True), checked_boxes(others, "others", may_be_empty=True))


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    boxes, others = boxes[:, None], others[None]
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

    Raises:
      InputError: for arrays that hold no boxes (`checked_boxes`), or not one score per box.
    """
    boxes = checked_boxes(boxes, "boxes", may_be_empty=True)
    if np.shape(scores) != (len(boxes),):
        raise InputError(f"scores have shape {list(np.shape(scores))}; expected one per box, [{len(boxes)}]")
    left, remaining = np.arange(len(boxes)), np.array(scores, np.float64)
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
