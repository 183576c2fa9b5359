"""BSDS500 (Arbelaez et al., 2011): photographs, and where people drew boundaries.

Two layouts are read:
  ROOT/{images,groundTruth}/{train,val,test}/NAME.{jpg,mat}      the official one (BSR/BSDS500/data)
  ROOT/{train,val,test}/NAME.jpg and NAME_boundaries.png         255 x the share of people who drew a boundary there
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.mat_files import read_mat
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import read_image, read_mask

SPLITS = ("train", "val", "test")


class BoundaryExample(NamedTuple):
    """A photograph and its boundaries.

    Attributes:
      name: of the file.
      image: uint8 RGB [H, W, 3].
      share: float32 [H, W], 0..1: the share of its annotators who drew a boundary at a pixel.
    """

    name: str
    image: np.ndarray
    share: np.ndarray


def read_bsds500(root: str | Path, split: str) -> list[BoundaryExample]:
    """All photographs of a split, in the order of their names.

    Raises:
      InputError: if the folder has neither layout, or a file is missing, damaged or of another size.
    """
    root = Path(root).expanduser()
    official = (root / "images" / split).is_dir()
    folder = root / "images" / split if official else root / split
    images = sorted(folder.glob("*.jpg"))
    if not images:
        raise InputError(
            f"{root} holds no photographs of the split '{split}'; give the folder BSR/BSDS500/data of the BSDS500 "
            "download, or one with train/NAME.jpg and train/NAME_boundaries.png"
        )
    examples = []
    for path in images:
        truth = (
            root / "groundTruth" / split / f"{path.stem}.mat" if official else folder / f"{path.stem}_boundaries.png"
        )
        image = read_image(path)
        share = _annotators_share(truth) if official else read_mask(_existing(truth)).astype(np.float32) / 255
        if share.shape != image.shape[:2]:
            raise InputError(
                f"{truth} is {share.shape[1]}x{share.shape[0]} pixels, but {path.name} is {image.shape[1]}x"
                f"{image.shape[0]}; they belong together pixel by pixel"
            )
        examples.append(BoundaryExample(path.stem, image, share))
    return examples


def _annotators_share(path: Path) -> np.ndarray:
    """From an official file: a cell array of structs, one a person, with the field Boundaries."""
    try:
        people = read_mat(_existing(path), "groundTruth", "download it again").ravel()
        drawn = np.stack([person["Boundaries"][0, 0] for person in people]) > 0
        if drawn.ndim != 3:
            raise ValueError("not one map a person")
        return drawn.mean(axis=0, dtype=np.float32)
    except InputError:
        raise
    except Exception as error:  # SciPy raises whatever a damaged file leads it to
        raise InputError(f"{path} is no ground truth of BSDS500 ({type(error).__name__}); download it again") from error


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"no file {path}, the boundaries of the photograph of that name; add it")
    return path
