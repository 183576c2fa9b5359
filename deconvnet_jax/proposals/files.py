"""Proposals files: the proposals of many images in one .npz, and the original's .mat files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.mat_files import read_mat
from deconvnet_jax.npz import read_npz, write_npz
from deconvnet_jax.ops.boxes import checked_boxes
from deconvnet_jax.short_repr import short_repr

VERSION = 1
# For each array the allowed kinds of dtype (`numpy.dtype.kind`) and the number of axes.
BOX_FIELDS = {"boxes": ("fiu", 2), "scores": ("fiu", 1)}
_FIELDS = {"names": ("U", 1), "offsets": ("iu", 1), **BOX_FIELDS, "description": ("U", 0)}
_CACHE = "expected the original's boxes_padded [n, 4] with x1 y1 x2 y2; convert other boxes with write_proposals"


class Proposals(NamedTuple):
    """Boxes of the images of a split.

    Attributes:
      names: names of the n images.
      boxes: for each image, float32 [n_i, 4] as x0, y0, x1, y1 in pixels, x1 and y1 exclusive, best first.
      scores: for each image, float32 [n_i].
      description: how the boxes were made, JSON values. "images" lists one digest per image; files of older versions
        lack it.
    """

    names: list[str]
    boxes: list[np.ndarray]
    scores: list[np.ndarray]
    description: dict[str, Any]

    __repr__ = short_repr


def write_proposals(path: str | Path, proposals: Proposals) -> None:
    """Writes proposals to one .npz file; an interrupted call leaves no partial file.

    Args:
      path: the .npz file to write.
      proposals: boxes and scores of all images.

    Raises:
      InputError: if an image's boxes are not valid (`ops.checked_boxes`).
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
    """Reads arrays of an .npz file and checks their dtypes and numbers of axes.

    Args:
      path: the .npz file.
      fields: maps each array's name to (allowed kinds of dtype, as in `numpy.dtype.kind`; number of axes).

    Returns:
      The arrays in the order of `fields`.

    Raises:
      InputError: if the file is missing or damaged, or an array is missing or of another kind.
    """
    arrays = read_npz(path)
    for name, (kinds, axes) in fields.items():
        found = arrays.get(name, np.empty(0, object))
        if found.dtype.kind not in kinds or found.ndim != axes:
            there = ", ".join(f"{key} {array.dtype} {list(array.shape)}" for key, array in arrays.items())
            raise InputError(
                f"{path} is not a proposals file: '{name}' is missing or of another kind (found "
                f"{there[:200] or 'no arrays'}); compute the proposals again"
            )
    return [arrays[name] for name in fields]


def load_proposals(path: str | Path) -> Proposals:
    """Reads the file that `write_proposals` wrote.

    Raises:
      InputError: if the file is missing, damaged, or not a proposals file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no proposals file {path}; make it with experiments.prepare_data")
    names, offsets, boxes, scores, description = read_fields(path, _FIELDS)
    offsets = offsets.astype(np.int64)
    try:
        described = json.loads(str(description))
    except (ValueError, RecursionError):
        described = None
    if not isinstance(described, dict):
        raise InputError(f"{path} is not a proposals file: its description is not a JSON object; compute it again")
    if described.get("version") != VERSION:
        raise InputError(
            f"{path} has version {described.get('version')} of the format, expected {VERSION}; compute it again"
        )
    whole = len(offsets) == len(names) + 1 and offsets[0] == 0 and offsets[-1] == len(boxes) == len(scores)
    if not whole or boxes.shape[1:] != (4,) or (np.diff(offsets) < 0).any():
        raise InputError(f"{path} contradicts itself: the numbers of names, boxes and scores differ; compute it again")
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
    """Returns the boxes of the named images.

    Args:
      path: an .npz file of this project, or a folder with one of the original's NAME.mat per image.
      names: names of the images.
      sizes: (height, width) of each image, to check that the boxes fit. None skips the check; the original's files need
        the sizes.
      images: digest of each image (`DatasetSplit.digest`), to check that the images did not change since the file was
        made. None skips the check.

    Returns:
      One float32 [n_i, 4] per name: x0, y0, x1, y1 in pixels, x1 and y1 exclusive, best first.

    Raises:
      InputError: if the file cannot be used, lacks one of the images, or was made before an image changed.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        if sizes is None:
            raise InputError(f"{path}: the original's boxes refer to padded images; pass the images' sizes")
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
    """Raises InputError if an image changed after its proposals were computed; files without digests pass.

    Args:
      path: the proposals file, for the message.
      proposals: its content.
      names: names of the images to check.
      images: their current digests, in the same order; None if they are not known, which skips the check.
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
    """Returns the boxes of one of the original's files (edgebox_cached) in pixels of the unpadded image.

    The file holds `boxes_padded` [n, 4] as x1, y1, x2, y2, counted from 1 and inclusive. They refer to a padded image,
    with the image's width added above and below and its height added left and right (inference/preprocess_image_bb.m).

    Args:
      path: NAME.mat.
      size: (height, width) of the image in pixels.

    Returns:
      float32 [n, 4] as x0, y0, x1, y1, with x1 and y1 exclusive. Boxes may reach beyond the image.

    Raises:
      InputError: if the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no file {path} with the proposals of that image; expected one .mat per image")
    boxes = read_mat(path, "boxes_padded", _CACHE)
    if boxes.dtype.kind not in "fiu" or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{path}: boxes_padded is {boxes.dtype} {list(boxes.shape)}; expected numbers [n, 4]")
    boxes = boxes.astype(np.float64)
    height, width = size
    boxes = _float32(boxes - np.array([height + 1, width + 1, height, width]))
    checked_boxes(boxes, str(path))
    return boxes


def _float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # Too large values become infinite, which the check of boxes refuses.
        return array.astype(np.float32)
