"""Chooses the windows to train on: squares around objects, proposals or whole images.

In the paper (section 6.1), stage 1 trains on one window around every object, and stage 2 on proposals that overlap an
object. Both are enlarged 1.2 times and made square, and windows of rare classes are repeated.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from deconvnet_jax.data.windows import MIN_COMPONENT_PIXELS, Objects, enlarge, image_box, instance_boxes, square
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import Examples
from deconvnet_jax.ops.boxes import box_iou
from deconvnet_jax.short_repr import short_repr

WINDOWS = ("instance", "proposal", "image")
_SMALL_IMAGE = 8  # In an image whose longer side is less than this times `min_window`, smaller windows are kept.
ENLARGE = 1.2  # Factor by which windows are larger than their objects (paper, section 6.1).
_READ_THREADS = 4


@runtime_checkable
class Source(Examples, Protocol):
    """Annotated images whose objects, names and sizes are known without decoding, as those of `open_split`."""

    def objects(self, index: int) -> Objects:
        """Returns the annotated objects of an image without decoding it."""
        ...

    def name(self, index: int) -> str:
        """Returns the name of an image as in the split's file."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Returns the height and the width of an image in pixels, without decoding it."""
        ...


class Windows(NamedTuple):
    """Squares to cut out of the images of a source.

    Attributes:
      images: index of the image in the source, int32 [n].
      boxes: boxes x0, y0, x1, y1 in pixels, float32 [n, 4]; x1 and y1 are exclusive. Boxes may reach beyond the image.
      instance_ids: number of the object that the window was made for, int32 [n]. 0 means no single object: all classes
        are labelled in the crop.
      class_ids: class by which windows are balanced, int32 [n]: that of the object, or of the object that a proposal
        overlaps most. 0 for whole images.
    """

    images: np.ndarray
    boxes: np.ndarray
    instance_ids: np.ndarray
    class_ids: np.ndarray

    __repr__ = short_repr

    def take(self, indices: np.ndarray) -> "Windows":
        """Returns the selected windows.

        Args:
          indices: positions of the windows, int [m], in the wanted order. Positions may repeat.

        Returns:
          The windows at these positions.
        """
        return Windows(*(field[indices] for field in self))


def training_windows(
    source: Source | Examples,
    kinds: Sequence[str] = ("instance",),
    *,
    image_factor: float = 250 / 224,
    proposals: Sequence[np.ndarray] | None = None,
    min_overlap: float = 0.5,
    min_window: float = 0,
) -> Windows:
    """Returns the windows to train on, in the order of the source's images.

    Args:
      source: annotated images. A plain list of `images.Example` works too.
      kinds: kinds of windows, each at most once. "instance" gives one window for every object: its tight box, enlarged
        and made square. "proposal" gives one for every proposal that overlaps an object. "image" gives one for every
        image: the square around it.
      image_factor: side of an "image" window divided by the longer side of the image. The default is resize size / crop
        size, so that the random crop shows objects at the scale that they have in a whole image at test time.
      proposals: for "proposal": boxes, float [n_i, 4], of every image of the source, in its order.
      min_overlap: for "proposal": smallest intersection over union (IoU) of a proposal with the tight box of an object.
        Above 0, up to 1.
      min_window: least side in pixels of a window around a connected part of a class mask, for images without object
        masks; smaller parts count as no objects. In small images, it is at most an eighth of the longer side. 0 takes
        every part. Annotated objects of any size keep their windows.

    Returns:
      The windows. Those of one image follow the order of `kinds`.

    Raises:
      InputError: if a kind, `min_overlap` or `min_window` is not usable, proposals are missing, or a kind finds no
        window.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.data import Example, training_windows
      >>> label = np.zeros((100, 100), np.uint8)
      >>> label[40:60, 40:60] = 2
      >>> example = Example("a", np.zeros((100, 100, 3), np.uint8), label, (label > 0).astype(np.uint8))
      >>> windows = training_windows([example])
      >>> windows.boxes.tolist(), windows.class_ids.tolist()
      ([[38.0, 38.0, 62.0, 62.0]], [2])
    """
    unknown = [kind for kind in kinds if kind not in WINDOWS]
    if unknown or not kinds or len(set(kinds)) < len(kinds):
        raise InputError(f"data.windows={tuple(kinds)}: expected one or several of {', '.join(WINDOWS)}, each once")
    if "proposal" in kinds and len(proposals or ()) != len(source):
        raise InputError("data.windows with 'proposal' needs the proposals of every training image; compute them first")
    if not 0 < min_overlap <= 1:
        raise InputError(f"data.min_overlap={min_overlap}: expected an intersection over union, above 0 and up to 1")
    if min_window < 0:
        raise InputError(f"data.min_window={min_window}: expected a number of pixels from 0")
    objects, sizes, small_parts = _described(source, min_window)
    found = {
        "instance": lambda: _instance_windows(objects),
        "proposal": lambda: _proposal_windows(objects, proposals or (), min_overlap),
        "image": lambda: _image_windows(sizes, image_factor),
    }
    parts = [found[kind]() for kind in kinds]
    for kind, part in zip(kinds, parts, strict=True):
        least = min(min_window, sizes.max(initial=0) / _SMALL_IMAGE)
        _check_found(kind, part, objects, min_overlap, least, small_parts)
    windows = Windows(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
    return windows.take(np.argsort(windows.images, kind="stable"))


def count_small_parts(source: Source | Examples, min_window: float) -> int:
    """Returns the number of connected parts that `training_windows` leaves out because they are too small.

    Args:
      source: annotated images.
      min_window: as in `training_windows`.
    """
    return _described(source, min_window)[2]


def repeat_rare(windows: Windows, strength: float, seed: int = 0) -> Windows:
    """Repeats windows of rare classes (paper, section 6.1: "redundant examples"). No window is dropped.

    A window of a class with n windows comes (most / n) ** strength times, where `most` is n of the most frequent class.
    Where this is not a whole number, randomly chosen windows of the class come once more. With strength 1, each of
    VOC's 20 classes comes as often as its ten thousand persons, which makes the paper's 0.2 million examples.

    Args:
      windows: windows to repeat. Those of class 0 (whole images) come once.
      strength: from 0 (every window once) to 1 (all classes equally often).
      seed: seed, from 0, that chooses the windows that come once more.

    Returns:
      The windows, with repetitions next to each other.

    Raises:
      InputError: if `strength` is not in 0..1 or `seed` is negative, or if `strength` is above 0 and no window has a
        class.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.data import Windows, class_windows, repeat_rare
      >>> class_ids = np.array([1, 1, 1, 1, 2], np.int32)
      >>> windows = Windows(np.arange(5), np.zeros((5, 4), np.float32), np.ones(5, np.int32), class_ids)
      >>> class_windows(repeat_rare(windows, 1), num_classes=3).tolist()
      [0, 4, 4]
    """
    if not 0 <= strength <= 1:
        raise InputError(f"data.balance={strength}: expected 0 (as annotated) to 1 (every class equally often)")
    if strength and not windows.class_ids.any():
        raise InputError(
            f"data.balance={strength}: no window has a class; add 'instance' or 'proposal' to data.windows, "
            "or set it to 0"
        )
    if seed < 0:
        raise InputError(f"seed={seed}: expected 0 or more")
    counts = np.bincount(windows.class_ids, minlength=1)
    counts[0] = 0
    rng = np.random.default_rng([seed, 0xBA1A])
    times = np.ones(len(windows.images), np.int64)
    for class_id in np.flatnonzero(counts):
        members = rng.permutation(np.flatnonzero(windows.class_ids == class_id))
        wanted = round(counts[class_id] * (counts.max() / counts[class_id]) ** strength)
        times[members] = wanted // len(members)
        times[members[: wanted % len(members)]] += 1
    return windows.take(np.repeat(np.arange(len(times)), times))


def class_of_windows(boxes: np.ndarray, objects: Objects) -> np.ndarray:
    """Returns the class of the object that each window fits best.

    Args:
      boxes: boxes of windows on one image, float [n, 4], enlarged and square.
      objects: objects of that image.

    Returns:
      Class ids, int64 [n]; 0 for a window that touches no object.
    """
    if not len(objects.boxes):
        return np.zeros(len(boxes), np.int64)
    overlaps = box_iou(enlarge(boxes, 1 / ENLARGE), square(objects.boxes))
    return np.where(overlaps.max(axis=1) > 0, objects.class_ids[overlaps.argmax(axis=1)], 0)


def class_windows(windows: Windows, num_classes: int) -> np.ndarray:
    """Returns the number of windows of each class.

    Args:
      windows: windows to count. Whole images count as class 0.
      num_classes: number of classes, background included.

    Returns:
      Numbers of windows, int64 [num_classes].
    """
    return np.bincount(windows.class_ids, minlength=num_classes)[:num_classes]


def _described(source: Source | Examples, min_window: float) -> tuple[list[Objects], np.ndarray, int]:
    """Returns the objects and sizes, int64 [n, 2], of all images, and the number of small parts that were left out.

    A `Source` is not decoded for this. If it has no method `has_object_mask`, its objects count as annotated.
    """
    has_object_mask: Callable[[int], bool] = getattr(source, "has_object_mask", lambda index: True)

    def describe(index: int) -> tuple[Objects, tuple[int, ...], int]:
        if isinstance(source, Source):
            objects, size, annotated = source.objects(index), source.size(index), has_object_mask(index)
        else:
            example = source[index]
            objects = instance_boxes(example.label, example.instances)
            size, annotated = example.label.shape, example.instances is not None
        kept = objects if annotated else _without_small_parts(objects, min(min_window, max(size) / _SMALL_IMAGE))
        return kept, size, len(objects.boxes) - len(kept.boxes)

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        described = list(pool.map(describe, range(len(source))))
    sizes = np.array([size for _, size, _ in described], np.int64).reshape(-1, 2)
    return [kept for kept, _, _ in described], sizes, sum(small for _, _, small in described)


def _without_small_parts(objects: Objects, least: float) -> Objects:
    """Returns the objects of an image whose windows have a side of `least` pixels or more."""
    kept = ENLARGE * (objects.boxes[:, 2:] - objects.boxes[:, :2]).max(axis=1, initial=0) >= least
    return Objects(*(field[kept] for field in objects))


def _instance_windows(objects: Sequence[Objects]) -> Windows:
    images = np.repeat(np.arange(len(objects)), [len(one.boxes) for one in objects])
    boxes = square(enlarge(_joined([one.boxes for one in objects]), ENLARGE))
    return _windows(
        images,
        boxes,
        _joined([one.instance_ids for one in objects], 0),
        _joined([one.class_ids for one in objects], 0),
    )


def _proposal_windows(objects: Sequence[Objects], proposals: Sequence[np.ndarray], min_overlap: float) -> Windows:
    images, boxes, class_ids = [], [], []
    for index, (found, proposed) in enumerate(zip(objects, proposals, strict=True)):
        if not len(found.boxes) or not len(proposed):
            continue
        overlaps = box_iou(proposed, found.boxes)
        kept = overlaps.max(axis=1) >= min_overlap
        images.append(np.full(int(kept.sum()), index))
        boxes.append(square(enlarge(np.asarray(proposed, np.float64)[kept], ENLARGE)))
        class_ids.append(found.class_ids[overlaps[kept].argmax(axis=1)])
    joined = _joined(images, 0)
    return _windows(joined, _joined(boxes), np.zeros(len(joined)), _joined(class_ids, 0))


def _image_windows(sizes: np.ndarray, factor: float) -> Windows:
    boxes = np.array([image_box(height, width, factor) for height, width in sizes]).reshape(-1, 4)
    nothing = np.zeros(len(sizes))
    return _windows(np.arange(len(sizes)), boxes, nothing, nothing)


def _windows(images: np.ndarray, boxes: np.ndarray, instance_ids: np.ndarray, class_ids: np.ndarray) -> Windows:
    # There may be millions of windows. float32 is precise to a thousandth of a pixel and takes half the memory.
    return Windows(
        images.astype(np.int32), boxes.astype(np.float32), instance_ids.astype(np.int32), class_ids.astype(np.int32)
    )


def _joined(arrays: Sequence[np.ndarray], columns: int = 4) -> np.ndarray:
    """Returns arrays concatenated; without any array, an empty one with `columns` columns, or one-dimensional for 0."""
    return np.concatenate([np.zeros((0, columns) if columns else 0), *arrays])


def _check_found(
    kind: str, windows: Windows, objects: Sequence[Objects], min_overlap: float, least: float, small_parts: int
) -> None:
    """Raises InputError if a kind of windows found none, with the probable reason.

    Windows need a side of `least` pixels in the largest image.
    """
    if len(windows.images):
        return
    if not any(len(found.boxes) for found in objects):
        if small_parts:
            raise InputError(
                f"data.windows: the windows around all {small_parts:,} connected parts of the class masks are smaller "
                f"than {least:g} pixels; set data.min_window below {least:g}, or train on whole images: "
                "data.windows=('image',) data.label_mode=all"
            )
        raise InputError(
            f"data.windows: no object in any of the {len(objects)} training images; expected masks with class ids 1, "
            f"2, ... in connected parts of {MIN_COMPONENT_PIXELS} pixels or more: correct the masks"
        )
    raise InputError(
        f"data.windows='{kind}': no proposal overlaps an object with an IoU of data.min_overlap={min_overlap}; check "
        "that the proposals belong to these images, or lower data.min_overlap"
    )
