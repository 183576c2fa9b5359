"""Proposals of many images in one file, and those of the original."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.mat_files import read_mat
from deconvnet_jax.npz import read_npz, write_npz
from deconvnet_jax.ops.boxes import checked_boxes

VERSION = 1
# Of each array its kinds of numbers, as NumPy abbreviates them, and its number of axes.
BOX_FIELDS = {"boxes": ("fiu", 2), "scores": ("fiu", 1)}
_FIELDS = {"names": ("U", 1), "offsets": ("iu", 1), **BOX_FIELDS, "description": ("U", 0)}
_CACHE = "expected the original's boxes_padded [n, 4] with x1 y1 x2 y2; bring other boxes over with write_proposals"


class Proposals(NamedTuple):
    """Boxes of the images of a split.

    Attributes:
      names: of the images, [n].
      boxes: of each image, float32 [n_i, 4], best first.
      scores: of each image, float32 [n_i].
      description: how they were made, JSON; "images" has a digest of each image, in files of older versions none.
    """

    names: list[str]
    boxes: list[np.ndarray]
    scores: list[np.ndarray]
    description: dict[str, Any]


def write_proposals(path: str | Path, proposals: Proposals) -> None:
    """Writes one .npz file, whole or not at all.

    Raises:
      InputError: if an image's boxes are none (`ops.checked_boxes`).
    """
    path = Path(path)
    for name, boxes in zip(proposals.names, proposals.boxes, strict=True):
        checked_boxes(boxes, f"proposals of image '{name}'")
    lengths = [len(boxes) for boxes in proposals.boxes]
    fields = {
        "names": np.array(proposals.names, dtype=np.str_),
        "offsets": np.cumsum([0, *lengths], dtype=np.int64),
        "boxes": np.concatenate([np.zeros((0, 4), np.float32), *proposals.boxes]).astype(np.float32),
        "scores": np.concatenate([np.zeros(0, np.float32), *proposals.scores]).astype(np.float32),
        "description": np.array(json.dumps({"version": VERSION, **proposals.description})),
    }
    write_npz(path, fields)


def read_fields(path: Path, fields: dict[str, tuple[str, int]]) -> list[np.ndarray]:
    """Reads arrays of an .npz.

    Args:
      path: of the file.
      fields: the kinds of numbers and the number of axes that each array must have.

    Raises:
      InputError: if the file is missing or damaged, or an array is missing or another one.
    """
    arrays = read_npz(path)
    for name, (kinds, axes) in fields.items():
        found = arrays.get(name, np.empty(0, object))
        if found.dtype.kind not in kinds or found.ndim != axes:
            there = ", ".join(f"{key} {array.dtype} {list(array.shape)}" for key, array in arrays.items())
            raise InputError(
                f"{path} is no file of proposals: '{name}' is missing or of another kind (there are "
                f"{there[:200] or 'no arrays'}); make it again"
            )
    return [arrays[name] for name in fields]


def load_proposals(path: str | Path) -> Proposals:
    """Reads what `write_proposals` wrote.

    Raises:
      InputError: if the file is missing, damaged, or something else.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no file of proposals {path}; make it with experiments.prepare_data")
    names, offsets, boxes, scores, description = read_fields(path, _FIELDS)
    offsets = offsets.astype(np.int64)
    try:
        described = json.loads(str(description))
    except (ValueError, RecursionError):
        described = None
    if not isinstance(described, dict):
        raise InputError(f"{path} is no file of proposals: its description is no JSON object; make it again")
    if described.get("version") != VERSION:
        raise InputError(
            f"{path} has version {described.get('version')} of the format, expected {VERSION}; make it again"
        )
    whole = len(offsets) == len(names) + 1 and offsets[0] == 0 and offsets[-1] == len(boxes) == len(scores)
    if not whole or boxes.shape[1:] != (4,) or (np.diff(offsets) < 0).any():
        raise InputError(f"{path} contradicts itself: the numbers of names, boxes and scores do not fit; make it again")
    boxes = _float32(boxes)
    checked_boxes(boxes, str(path))
    if not len(names):
        return Proposals([], [], [], described)
    return Proposals(
        names.tolist(), np.split(boxes, offsets[1:-1]), np.split(_float32(scores), offsets[1:-1]), described
    )


def read_proposals(
    path: str | Path,
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]] | None = None,
    images: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """The boxes of these images, float32 [n_i, 4], x0, y0, x1, y1, x1 and y1 exclusive.

    Args:
      path: an .npz of this project, or a folder with the original's NAME.mat, one an image.
      names: of the images.
      sizes: (height, width) of the images, for which the boxes are checked; needed for the original's.
      images: digests of the images (`DatasetSplit.digest`), which must be those that the file was made for.

    Raises:
      InputError: if the file is not usable, has no boxes for one of the images, or was made before one was changed.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if sizes is None:
            raise InputError(f"{path}: the original's boxes count from a padded image; the images' sizes are needed")
        return [original_boxes(path / f"{name}.mat", size) for name, size in zip(names, sizes, strict=True)]
    proposals = load_proposals(path)
    of_name = dict(zip(proposals.names, proposals.boxes, strict=True))
    missing = [name for name in names if name not in of_name]
    if missing:
        raise InputError(
            f"{path} has no proposals for {len(missing)} of {len(names)} images, among them '{missing[0]}'; was it "
            "made for another split?"
        )
    check_images(path, proposals, names, images)
    boxes = [of_name[name] for name in names]
    for i, size in enumerate(sizes or ()):
        checked_boxes(boxes[i], f"{path}: image '{names[i]}'", size)
    return boxes


def check_images(path: Path, proposals: Proposals, names: Sequence[str], images: Sequence[str] | None) -> None:
    """Raises InputError if proposals were computed before an image was changed, as far as their file tells.

    Args:
      path: of the file.
      proposals: in it.
      names: of images.
      images: their digests now; None if they are not known.
    """
    made_of = proposals.description.get("images")
    if images is None or not isinstance(made_of, list) or len(made_of) != len(proposals.names):
        return
    digests = dict(zip(proposals.names, made_of, strict=True))
    changed = [name for name, image in zip(names, images, strict=True) if digests.get(name, image) != image]
    if changed:
        raise InputError(
            f"{path} was computed before {len(changed)} of {len(names)} images were changed, among them "
            f"'{changed[0]}'; compute the proposals again (experiments.prepare_data --proposals)"
        )


def original_boxes(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """The boxes of one of the original's files (edgebox_cached), in pixels of the image itself.

    `boxes_padded` is [n, 4], x1, y1, x2, y2, counted from 1 and inclusive, in the image with its width added above and
    below and its height added left and right (inference/preprocess_image_bb.m).

    Args:
      path: NAME.mat.
      size: height and width of the image.

    Returns:
      float32 [n, 4]; they may reach beyond the image.

    Raises:
      InputError: if the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {path}, the proposals of that image; expected one .mat per image")
    boxes = read_mat(path, "boxes_padded", _CACHE)
    if boxes.dtype.kind not in "fiu" or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{path}: boxes_padded is {boxes.dtype} {list(boxes.shape)}; expected numbers [n, 4]")
    boxes = boxes.astype(np.float64)
    height, width = size
    boxes = _float32(boxes - np.array([height + 1, width + 1, height, width]))
    checked_boxes(boxes, str(path))
    return boxes


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinite, which is no box
        return array.astype(np.float32)
