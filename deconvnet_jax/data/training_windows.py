"""Which squares of the training images a network is shown: objects, proposals, whole images, or a list of windows.

Paper, section 4: stage 1 trains on one window around every object, stage 2 on proposals that overlap an object; both
enlarged 1.2 times, made square, and with redundant examples of rare classes.
"""

import contextlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from deconvnet_jax.data.image_names import lines_of, read_text
from deconvnet_jax.data.windows import Objects, enlarge, image_box, instance_boxes, square
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import not_written, user_path, write_text
from deconvnet_jax.images import Examples, image_digests
from deconvnet_jax.ops.boxes import box_iou

WINDOWS = ("instance", "proposal", "image")
ENLARGE = 1.2  # paper, section 4.1
_READ_THREADS = 4
_LINE = "'image mask x1 y1 x2 y2'"  # of a list of windows
_MAX_COORDINATE = 1_000_000


@runtime_checkable
class Source(Examples, Protocol):
    """Annotated images of which more is known, as `open_split` returns them."""

    def objects(self, index: int) -> Objects:
        """The annotated objects of an image; reads no pixels."""
        ...

    def name(self, index: int) -> str:
        """An image's name in the split's file; reads no pixels."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image; reads no pixels."""
        ...


class Windows(NamedTuple):
    """Squares to cut out of the images of a source.

    Attributes:
      images: int32 [n], index of the image in the source.
      boxes: float32 [n, 4], x0, y0, x1, y1 in pixels, x1 and y1 exclusive; may leave the image.
      instance_ids: int32 [n], the object that a window was made for; 0 for none: all classes are labelled.
      class_ids: int32 [n], the class for balancing: of the object, or of the object that a proposal overlaps most; 0
        for whole images.
    """

    images: np.ndarray
    boxes: np.ndarray
    instance_ids: np.ndarray
    class_ids: np.ndarray

    def take(self, indices: np.ndarray) -> "Windows":
        """These windows, in this order."""
        return Windows(*(field[indices] for field in self))


def training_windows(
    source: Source | Examples,
    kinds: Sequence[str] = ("instance",),
    *,
    image_factor: float = 250 / 224,
    proposals: Sequence[np.ndarray] | None = None,
    min_overlap: float = 0.5,
) -> Windows:
    """What there is to train on, in the order of the source.

    Args:
      source: annotated images; also a plain list of examples.
      kinds: "instance", one for every object: its tight box, enlarged and made square; "proposal", one for every
        proposal that overlaps an object; "image", one for every image: the square about it.
      image_factor: side of an "image" window / longer side of the image; resize size / crop size, so that the random
        crop shows objects at the scale that a whole image has at test time.
      proposals: for "proposal", boxes [n_i, 4] of every image of the source.
      min_overlap: smallest intersection over union of a proposal with the tight box of an object.

    Raises:
      InputError: if a kind is unknown, or one finds nothing.
    """
    unknown = [kind for kind in kinds if kind not in WINDOWS]
    if unknown or not kinds or len(set(kinds)) < len(kinds):
        raise InputError(f"data.windows={tuple(kinds)}: expected one or several of {', '.join(WINDOWS)}, each once")
    if "proposal" in kinds and len(proposals or ()) != len(source):
        raise InputError("data.windows with 'proposal' needs the proposals of every training image; compute them first")
    if not 0 < min_overlap <= 1:
        raise InputError(f"data.min_overlap={min_overlap}: expected an intersection over union, above 0 and up to 1")
    objects, sizes = _described(source)
    found = {
        "instance": lambda: _instance_windows(objects),
        "proposal": lambda: _proposal_windows(objects, proposals or (), min_overlap),
        "image": lambda: _image_windows(sizes, image_factor),
    }
    parts = [found[kind]() for kind in kinds]
    for kind, part in zip(kinds, parts, strict=True):
        _check_found(kind, part, objects, min_overlap)
    windows = Windows(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
    return windows.take(np.argsort(windows.images, kind="stable"))


def repeat_rare(windows: Windows, strength: float, seed: int = 0) -> Windows:
    """Repeats windows of rare classes (paper, section 4.1: "redundant examples"); none is dropped.

    Every window of a class with n windows comes (most / n) ** strength times, where `most` is the number of the most
    frequent class; of the broken part, as many windows as it takes, chosen by the seed, come once more. With strength 1
    all classes are equally frequent: VOC's 20 classes, each as often as its ten thousand persons, make the paper's 0.2
    million examples. Windows of class 0 (whole images) come once.

    Raises:
      InputError: if the strength is not in 0..1, or above 0 without a window that has a class.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"data.balance={strength}: expected 0 (as annotated) to 1 (every class equally often)")
    if strength and not windows.class_ids.any():
        raise InputError(f"data.balance={strength}: no window has a class; use windows of instances or proposals, or 0")
    if seed < 0:
        raise InputError(f"seed={seed}: expected a number from 0")
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
    """The class of the object of an image that each window fits best, int64 [n]; 0 if it touches none.

    Args:
      boxes: float [n, 4], enlarged and square.
      objects: of the image.
    """
    if not len(objects.boxes):
        return np.zeros(len(boxes), np.int64)
    overlaps = box_iou(enlarge(boxes, 1 / ENLARGE), square(objects.boxes))
    return np.where(overlaps.max(axis=1) > 0, objects.class_ids[overlaps.argmax(axis=1)], 0)


def class_windows(windows: Windows, num_classes: int) -> np.ndarray:
    """Number of windows of each class, int64 [num_classes]; whole images count as class 0."""
    return np.bincount(windows.class_ids, minlength=num_classes)[:num_classes]


def _described(source: Source | Examples) -> tuple[list[Objects], np.ndarray]:
    """Objects and sizes [n, 2] of all images, without decoding where the source knows them."""

    def describe(index: int) -> tuple[Objects, tuple[int, int]]:
        if isinstance(source, Source):
            return source.objects(index), source.size(index)
        example = source[index]
        return instance_boxes(example.label, example.instances), example.label.shape

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        described = list(pool.map(describe, range(len(source))))
    return [objects for objects, _ in described], np.array([size for _, size in described], np.int64).reshape(-1, 2)


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
    # Millions of them: float32 places a corner to a thousandth of a pixel.
    return Windows(
        images.astype(np.int32), boxes.astype(np.float32), instance_ids.astype(np.int32), class_ids.astype(np.int32)
    )


def _joined(arrays: Sequence[np.ndarray], columns: int = 4) -> np.ndarray:
    """Concatenated; empty with that many columns (0: one-dimensional) if there is no array."""
    return np.concatenate([np.zeros((0, columns) if columns else 0), *arrays])


def _check_found(kind: str, windows: Windows, objects: Sequence[Objects], min_overlap: float) -> None:
    if len(windows.images):
        return
    if not any(len(found.boxes) for found in objects):
        raise InputError(
            f"data.windows: no object in any of the {len(objects)} training images; check the masks, or use "
            "data.windows=('image',)"
        )
    raise InputError(
        f"data.windows='{kind}': no proposal overlaps an object by data.min_overlap={min_overlap}; check that the "
        "proposals belong to these images, or lower it"
    )


# Lists of windows in the original's form: `image mask x1 y1 x2 y2`. Corners are whole pixels from 0, inclusive, and may
# be negative or beyond the image (window_seg_data_layer.cpp).


class WindowList(NamedTuple):
    """The lines of a list.

    Attributes:
      images: paths as written, [n].
      masks: paths as written, [n].
      boxes: float32 [n, 4], x0, y0, x1, y1, x1 and y1 exclusive.
    """

    images: list[str]
    masks: list[str]
    boxes: np.ndarray


def read_window_list(path: str | Path) -> WindowList:
    """Reads a list.

    Raises:
      InputError: if the file is missing, empty, or a line has another form; names the line.
    """
    path = user_path(path, "the window list")
    try:
        lines = lines_of(read_text(path))
    except InputError as error:
        raise InputError(f"window list {error}, with lines 'image mask x1 y1 x2 y2'") from error
    images, masks, corners = [], [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        image, mask, box = _parsed(line, f"{path}, line {number}")
        images.append(image)
        masks.append(mask)
        corners.append(box)
    if not images:
        raise InputError(f"window list {path} is empty; expected lines {_LINE}")
    return WindowList(images, masks, np.array(corners, np.float32) + np.array([0, 0, 1, 1], np.float32))


def write_window_list(
    path: str | Path,
    windows: Windows,
    names: Sequence[str],
    suffix: str = ".jpg",
    images: Sequence[str] | None = None,
) -> None:
    """Writes windows as a list for the layout of VOC: /JPEGImages/NAME.jpg /SegmentationClass/NAME.png x1 y1 x2 y2.

    Boxes are rounded to whole pixels; squares stay squares. The file appears whole or not at all.

    Args:
      path: of the file.
      windows: to write.
      names: of the images that the windows count.
      suffix: of the photographs.
      images: digests of images and masks (`DatasetSplit.digest`); kept in a folder beside that of the list,
        by which `listed_windows` notices that they have changed.

    Raises:
      InputError: if a name has a space, which separates the parts of a line.
    """
    path = user_path(path, "the window list")
    spaced = [names[int(i)] for i in np.unique(windows.images) if len(names[int(i)].split()) != 1]
    if spaced:
        raise InputError(f"image '{spaced[0]}' has a space in its name, which a window list cannot hold; rename it")
    sides = np.maximum(np.rint(windows.boxes[:, 2:] - windows.boxes[:, :2]), 1)
    low = np.rint(windows.boxes[:, :2])
    corners = np.concatenate([low, low + sides - 1], axis=1).astype(np.int64)
    lines = []
    for image, box in zip(windows.images.tolist(), corners.tolist(), strict=True):
        files = f"/JPEGImages/{names[image]}{suffix} /SegmentationClass/{names[image]}.png"
        lines.append(f"{files} {' '.join(map(str, box))}\n")
    write_text(path, "".join(lines))
    if images is not None:
        with not_written(path):
            _digests_file(path).parent.mkdir(exist_ok=True)
        write_text(_digests_file(path), json.dumps(dict(zip(names, images, strict=True))))


def listed_windows(path: str | Path, source: Source) -> Windows:
    """The windows of a list on the images of a source; all classes are labelled in them.

    The list's folders and suffixes do not matter: /VOC2012_SEG_AUG/images/2009_004507.png is image 2009_004507.

    Raises:
      InputError: as `read_window_list`, for an image that the source does not have, and for one that was changed since
        the list was made, as far as the digests kept with it tell.
    """
    found = read_window_list(path)
    numbers = _numbers(set(found.images), [source.name(i) for i in range(len(source))])
    missing = sorted(image for image, number in numbers.items() if number is None)
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(
            f"window list {path} names image '{PurePosixPath(missing[0]).stem}'{others}, not in the training split or "
            "more than once; choose the split that the list was made for (data.train_split)"
        )
    _check_unchanged(path, source, sorted(number for number in numbers.values() if number is not None))
    images = np.array([numbers[image] for image in found.images], np.int32)
    class_ids = np.zeros(len(images), np.int32)
    order = np.argsort(images, kind="stable")
    for of_image in np.split(order, np.flatnonzero(np.diff(images[order])) + 1):
        class_ids[of_image] = class_of_windows(found.boxes[of_image], source.objects(int(images[of_image[0]])))
    return Windows(images, found.boxes, np.zeros(len(images), np.int32), class_ids)


def _digests_file(path: Path) -> Path:
    """Returns the path of a list's digests; `windows` itself holds nothing but lists in the original's format."""
    return path.parent.with_name(f"{path.parent.name}_images") / f"{path.stem}.json"


def _check_unchanged(path: str | Path, source: Source, used: Sequence[int]) -> None:
    """Raises InputError if the digests kept with a list are of other images or masks than the source has."""
    path = user_path(path, "the window list")
    try:
        made_of = json.loads(_digests_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    digests = image_digests(source, masks=True) if isinstance(made_of, dict) else None
    changed = [source.name(i) for i in used if digests and made_of.get(source.name(i), digests[i]) != digests[i]]
    if changed:
        raise InputError(
            f"window list {path} was made before {len(changed)} images or their masks were changed, among them "
            f"'{changed[0]}'; make it again (experiments.prepare_data --proposals)"
        )


def _numbers(images: set[str], names: Sequence[str]) -> dict[str, int | None]:
    """The image of the source that each path of a list means; None if there is none, or if it could be several."""
    whole = {name: i for i, name in enumerate(names)}
    by_stem: dict[str, list[int]] = {}
    for name, i in whole.items():
        by_stem.setdefault(PurePosixPath(name).name, []).append(i)
    found: dict[str, int | None] = {}
    for image in images:
        name = image.rpartition("JPEGImages/")[2].rpartition(".")[0]  # names may have folders, and dots
        candidates = by_stem.get(PurePosixPath(image).stem, [])
        found[image] = whole.get(name, candidates[0] if len(candidates) == 1 else None)
    return found


def _parsed(line: str, where: str) -> tuple[str, str, list[int]]:
    with contextlib.suppress(ValueError):
        image, mask, *corners = line.split()
        x1, y1, x2, y2 = box = [int(word) for word in corners]
        if max(map(abs, box)) <= _MAX_COORDINATE and x1 <= x2 and y1 <= y2:
            return image, mask, box
    raise InputError(
        f"{where}: '{line.strip()[:80]}' is no window; expected {_LINE} in whole pixels with x1 <= x2 and y1 <= y2"
    )
