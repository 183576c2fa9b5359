"""Reading a folder in the VOC layout, and saying clearly what is wrong with one.

ROOT/JPEGImages/NAME.jpg                photographs (.jpeg and .png are read too)
ROOT/SegmentationClass/NAME.png         class ids: indexed (palette) or greyscale PNG, 255 = ignore
ROOT/SegmentationObject/NAME.png        optional: object numbers, 0 = background, 255 = ignore
ROOT/ImageSets/Segmentation/SPLIT.txt   one NAME a line
ROOT/classes.txt                        optional: one class name a line, in the order of the ids, background first
"""

from collections import Counter
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.images import read_image, read_mask

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
IGNORE = 255
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_FOLDERS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


class Example(NamedTuple):
    """One annotated photograph.

    Attributes:
      name: as in the split's file.
      image: uint8 RGB [H, W, 3].
      label: uint8 [H, W], class ids and 255 = ignore; None only in `UnlabelledSplit`.
      instances: uint8 [H, W], 0 = background, 255 = ignore, else the object's number; None without instance masks.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None
    instances: np.ndarray | None


def class_names(root: str | Path) -> tuple[str, ...]:
    """Names in the order of the ids, background first: from classes.txt, else those of VOC.

    Raises:
      InputError: if the folder is not in the VOC layout, or classes.txt is no list of 2 to 255 different names.
    """
    root = _check_root(Path(root))
    path = root / "classes.txt"
    if not path.exists():
        return VOC_CLASSES
    return read_class_names(path)


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Names from a file, one a line in the order of the ids, background first.

    Raises:
      InputError: if the file cannot be read, is not UTF-8, or is no list of 2 to 255 different names.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"no file {path}; expected a list of class names, one a line, background first")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({_one_line(error)}); save it as such") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names) or len(names) > IGNORE:
        raise InputError(
            f"{path}: expected 2 to {IGNORE} different class names, one a line, background first; got "
            f"{len(names)}, {len(set(names))} different"
        )
    return tuple(names)


def split_files(root: str | Path) -> dict[str, Path]:
    """The files that list a split's images, by the split's name."""
    return {path.stem: path for path in sorted((_check_root(Path(root)) / "ImageSets/Segmentation").glob("*.txt"))}


def split_names(root: str | Path, split: str) -> list[str]:
    """The images of a split, in the file's order.

    Raises:
      InputError: if there is no such split, or its file cannot be used; see `read_split_file`.
    """
    files = split_files(root)
    if split not in files:
        path = Path(root) / "ImageSets/Segmentation" / f"{split}.txt"
        have = f"there are {', '.join(files)}" if files else "there is no split at all"
        raise InputError(f"no split file {path}: {have}; write one image name a line, without the suffix")
    return read_split_file(files[split])


def read_split_file(path: str | Path) -> list[str]:
    """The images that the file of a split names, in its order.

    Raises:
      InputError: if the file is empty, names an image twice, or one outside the data's folders.
    """
    names = _lines(Path(path))
    for name in names:  # results are written under these names
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise InputError(f"split file {path} names '{name}', which leads out of the folder; take the line out")
    if not names or len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        problem = f"names '{twice[0]}' more than once" if names else "is empty"
        raise InputError(f"split file {path} {problem}; expected one image name a line, each once")
    return names


def read_example(root: str | Path, name: str, num_classes: int) -> Example:
    """Reads one photograph with its masks and checks them.

    An EXIF orientation is not applied: masks fit the image as it is stored.

    Raises:
      InputError: for a file that is missing, damaged or of the wrong kind, sizes that differ, or unknown class ids.
    """
    root = Path(root)
    image = read_image(image_file(root, name))
    label = read_mask(_existing(root / "SegmentationClass" / f"{name}.png", f"the class mask of image '{name}'"))
    check_label(root / "SegmentationClass" / f"{name}.png", label, image, num_classes)
    objects = root / "SegmentationObject"
    if not objects.is_dir():
        return Example(name, image, label, None)
    instances = read_mask(_existing(objects / f"{name}.png", f"the object mask of image '{name}'"))
    _check_size(objects / f"{name}.png", instances, image)
    return Example(name, image, label, instances)


def image_file(root: str | Path, name: str) -> Path:
    """The photograph of that name.

    Raises:
      InputError: if there is none.
    """
    folder = Path(root) / "JPEGImages"
    for suffix in IMAGE_SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    remedy = "add it or take the name out of the split"
    if name.endswith(IMAGE_SUFFIXES):
        remedy = "split files name images without the suffix"
    raise InputError(f"no image {folder / name}.jpg, although a split names it; {remedy}")


def check_label(path: Path, label: np.ndarray, image: np.ndarray, num_classes: int) -> None:
    """Raises InputError unless the mask has the image's size and only the ids 0..num_classes-1 and 255."""
    _check_size(path, label, image)
    ids = np.unique(label)
    unknown = ids[(ids >= num_classes) & (ids != IGNORE)]
    if len(unknown):
        raise InputError(
            f"{path} has unknown class ids {', '.join(map(str, unknown[:9]))}; expected 0 to {num_classes - 1} and "
            "255 for ignored pixels: correct the mask, or name all classes in classes.txt"
        )


def _check_size(path: Path, mask: np.ndarray, image: np.ndarray) -> None:
    if mask.shape != image.shape[:2]:
        raise InputError(
            f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels, but its image is {image.shape[1]}x{image.shape[0]}; "
            "a mask needs the size of its image"
        )


def _check_root(root: Path) -> Path:
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give the folder that holds {', '.join(_FOLDERS)}")
    missing = [part for part in _FOLDERS if not (root / part).is_dir()]
    if missing:
        inner = [path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/JPEGImages")]
        remedy = f"did you mean {inner[0]}?" if inner else f"give the folder that holds {', '.join(_FOLDERS)}"
        raise InputError(f"{root} is not a folder in the VOC layout: it has no {', '.join(missing)}; {remedy}")
    return root


def _lines(path: Path) -> list[str]:
    # utf-8-sig: Windows editors put a mark at the beginning.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise InputError(f"no file {path}, {what}; add it or take the name out of the split")
    return path


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
