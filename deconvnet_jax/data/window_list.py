"""The original's lists of training windows: one line `image mask x1 y1 x2 y2` a window.

Corners are whole pixels from 0, inclusive; they may be negative or beyond the image (window_seg_data_layer.cpp).
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.text_lists import lines_of, read_text
from deconvnet_jax.data.training_windows import Source, Windows, class_of_windows
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import not_written, user_path, write_text
from deconvnet_jax.images import image_digests

_LINE = "'image mask x1 y1 x2 y2'"
_MAX_COORDINATE = 1_000_000


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
    spaced = [names[i] for i in np.unique(windows.images) if len(names[i].split()) != 1]
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
    words = line.split()
    try:
        image, mask = words[:2]
        box = [int(word) for word in words[2:]]
        usable = len(box) == 4 and max(map(abs, box)) <= _MAX_COORDINATE and box[0] <= box[2] and box[1] <= box[3]
    except ValueError:
        usable = False
    if not usable:
        raise InputError(
            f"{where}: '{line.strip()[:80]}' is no window; expected {_LINE} in whole pixels with x1 <= x2 and y1 <= y2"
        )
    return image, mask, box
