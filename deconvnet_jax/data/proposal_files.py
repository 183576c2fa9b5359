"""Proposals of many images in one file, and those of the original."""

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops.boxes import checked_boxes

VERSION = 1
_FIELDS = ("names", "offsets", "boxes", "scores", "description")


class Proposals(NamedTuple):
    """Boxes of the images of a split.

    Attributes:
      names: of the images, [n].
      boxes: of each image, float32 [n_i, 4], best first.
      scores: of each image, float32 [n_i].
      description: how they were made, JSON.
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


def write_npz(path: Path, fields: dict[str, np.ndarray]) -> None:
    """A compressed .npz that appears under its name when it is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **fields)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_proposals(path: str | Path) -> Proposals:
    """Reads what `write_proposals` wrote.

    Raises:
      InputError: if the file is missing, damaged, or something else.
    """
    path = Path(path)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            names, offsets, boxes, scores, description = (file[field] for field in _FIELDS)
        described = json.loads(str(description))
    except FileNotFoundError as error:
        raise InputError(f"no file of proposals {path}; make it with experiments.prepare_data") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no complete file of proposals ({type(error).__name__}); make it again") from error
    if described.get("version") != VERSION:
        raise InputError(
            f"{path} has version {described.get('version')} of the format, expected {VERSION}; make it again"
        )
    whole = len(offsets) == len(names) + 1 and offsets[0] == 0 and offsets[-1] == len(boxes) == len(scores)
    if not whole or boxes.shape[1:] != (4,) or (np.diff(offsets) < 0).any():
        raise InputError(f"{path} contradicts itself: the numbers of names, boxes and scores do not fit; make it again")
    checked_boxes(boxes, str(path))
    if not len(names):
        return Proposals([], [], [], described)
    return Proposals(names.tolist(), np.split(boxes, offsets[1:-1]), np.split(scores, offsets[1:-1]), described)


def read_proposals(
    path: str | Path, names: Sequence[str], sizes: Sequence[tuple[int, int]] | None = None
) -> list[np.ndarray]:
    """The boxes of these images, float32 [n_i, 4], x0, y0, x1, y1, x1 and y1 exclusive.

    Args:
      path: an .npz of this project, or a folder with the original's NAME.mat, one an image.
      names: of the images.
      sizes: (height, width) of the images, for which the boxes are checked; needed for the original's.

    Raises:
      InputError: if the file is not usable, or has no boxes for one of the images.
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
    boxes = [of_name[name] for name in names]
    for i, size in enumerate(sizes or ()):
        checked_boxes(boxes[i], f"{path}: image '{names[i]}'", size)
    return boxes


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
        raise InputError(f"no file {path}, the proposals of that image; expected one .mat an image")
    try:
        boxes = np.asarray(scipy.io.loadmat(path)["boxes_padded"], np.float64)
    except Exception as error:  # SciPy raises whatever a damaged file leads it to
        raise InputError(f"{path} is no .mat file with boxes_padded ({type(error).__name__})") from error
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{path}: boxes_padded is {list(boxes.shape)}; expected [n, 4]")
    height, width = size
    shift = np.array([height + 1, width + 1, height, width])
    boxes = (boxes - shift).astype(np.float32)
    checked_boxes(boxes, str(path))
    return boxes
