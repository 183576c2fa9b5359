"""Reads and writes lists of training windows in the original's format: `image mask x1 y1 x2 y2`.

Corners are inclusive whole pixels, counted from 0. They may be negative or lie beyond the image (original:
window_seg_data_layer.cpp).
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.image_names import lines_of, read_text
from deconvnet_jax.data.training_windows import Source, Windows, class_of_windows
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import not_written, user_path, write_text
from deconvnet_jax.images import image_digests
from deconvnet_jax.short_repr import short_repr

_LINE = "'image mask x1 y1 x2 y2'"  # Form of a line.
_MAX_COORDINATE = 1_000_000  # Largest allowed number in a line, to find damaged ones.


class WindowList(NamedTuple):
    """Content of a window list.

    Attributes:
      images: paths of the images as written, one per window.
      masks: paths of the masks as written, one per window.
      boxes: boxes x0, y0, x1, y1 in pixels, float32 [n, 4]; x1 and y1 are exclusive.
    """

    images: list[str]
    masks: list[str]
    boxes: np.ndarray

    __repr__ = short_repr


def read_window_list(path: str | Path) -> WindowList:
    """Reads a window list, whose lines have the form `image mask x1 y1 x2 y2`. Empty lines are skipped.

    Raises:
      InputError: if the file cannot be read, holds no window, or has a line of another form. The message names the
        line.
    """
    path = user_path(path, "the window list")
    try:
        lines = lines_of(read_text(path))
    except InputError as error:
        raise InputError(f"window list {error}") from error
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
    """Writes a window list for the VOC layout: /JPEGImages/NAME.jpg /SegmentationClass/NAME.png x1 y1 x2 y2.

    Boxes are rounded to whole pixels; squares stay squares. The file is written completely or not at all.

    Args:
      path: file to write.
      windows: windows to write. Their instance and class ids are not written.
      names: image names; `windows.images` counts them from 0.
      suffix: suffix of the photographs.
      images: digest of every image and its masks (`DatasetSplit.digest`), in the order of `names`. They are stored in a
        folder beside that of the list, so that `listed_windows` notices changed images. None stores none.

    Raises:
      InputError: if a name contains a space, which separates the parts of a line, or if a file cannot be written.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.data import Windows, read_window_list, write_window_list
      >>> zero = np.zeros(1, np.int32)
      >>> write_window_list("list.txt", Windows(zero, np.array([[-2.0, 3, 8, 13]], np.float32), zero, zero), ["a"])
      >>> read_window_list("list.txt").images, read_window_list("list.txt").boxes.tolist()
      (['/JPEGImages/a.jpg'], [[-2.0, 3.0, 8.0, 13.0]])
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
    """Reads a window list and finds its images in a source. All classes are labelled in these windows.

    Folders and suffixes in the list need not match: /VOC2012_SEG_AUG/images/2009_004507.png means image 2009_004507.

    Args:
      path: window list (`read_window_list`).
      source: training images.

    Returns:
      The windows in the order of the list. Their class is that of the object that the window fits best.

    Raises:
      InputError: if the list is not usable, the source lacks one of its images or has several of that name, or images
        or masks have changed since the list was written. Changes are noticed only if digests were stored with the list.
    """
    found = read_window_list(path)
    numbers = _numbers(set(found.images), [source.name(i) for i in range(len(source))])
    missing = sorted(image for image, number in numbers.items() if number is None)
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(
            f"window list {path} names image '{PurePosixPath(missing[0]).stem}'{others}, which the training split "
            "lacks or has more than once; choose the split that the list was made for (data.train_split)"
        )
    _check_unchanged(path, source, sorted(number for number in numbers.values() if number is not None))
    images = np.array([numbers[image] for image in found.images], np.int32)
    class_ids = np.zeros(len(images), np.int32)
    order = np.argsort(images, kind="stable")
    for of_image in np.split(order, np.flatnonzero(np.diff(images[order])) + 1):
        class_ids[of_image] = class_of_windows(found.boxes[of_image], source.objects(int(images[of_image[0]])))
    return Windows(images, found.boxes, np.zeros(len(images), np.int32), class_ids)


def _digests_file(path: Path) -> Path:
    """Returns the path of the digests that belong to a list.

    They lie in another folder, because the folder of the lists holds only files in the original's format.
    """
    return path.parent.with_name(f"{path.parent.name}_images") / f"{path.stem}.json"


def _check_unchanged(path: str | Path, source: Source, used: Sequence[int]) -> None:
    """Raises InputError if the digests stored with a list differ from those of the source's images or masks."""
    path = user_path(path, "the window list")
    try:
        made_of = json.loads(_digests_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    digests = image_digests(source, masks=True) if isinstance(made_of, dict) else None
    changed = [source.name(i) for i in used if digests and made_of.get(source.name(i), digests[i]) != digests[i]]
    if changed:
        raise InputError(
            f"window list {path} was made before {len(changed)} images or their masks changed, among them "
            f"'{changed[0]}'; make it again with experiments.prepare_data --proposals"
        )


def _numbers(images: set[str], names: Sequence[str]) -> dict[str, int | None]:
    """Returns, for each path in a list, the index of the image in the source.

    The value is None if there is no such image, or if it could be one of several.
    """
    whole = {name: i for i, name in enumerate(names)}
    by_stem: dict[str, list[int]] = {}
    for name, i in whole.items():
        by_stem.setdefault(PurePosixPath(name).name, []).append(i)
    found: dict[str, int | None] = {}
    for image in images:
        name = image.rpartition("JPEGImages/")[2].rpartition(".")[0]  # Names may contain folders and dots.
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
        f"{where}: '{line.strip()[:80]}' is not a window; expected {_LINE} in whole pixels with x1 <= x2 and y1 <= y2"
    )
