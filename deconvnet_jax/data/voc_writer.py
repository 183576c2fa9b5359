"""Writes folders in the VOC layout (`voc_layout`) from imported annotations, completely or not at all."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from deconvnet_jax.data.voc_layout import IMAGE_SUFFIXES
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import unfinished_folder
from deconvnet_jax.images import image_orientation, read_image, read_mask
from deconvnet_jax.labels import IGNORE, label_image

LISTS = "ImageSets/Segmentation"
_MASKS = ("SegmentationClass", "SegmentationObject")


class ClassCount(NamedTuple):
    """How often a class occurs in what was written.

    Attributes:
      name: class name.
      images: number of images that show the class.
      objects: number of visible objects; 0 for background.
      pixels: number of pixels.
    """

    name: str
    images: int
    objects: int
    pixels: int


class DrawnMasks(NamedTuple):
    """Masks of one image and the classes of its objects.

    Attributes:
      label: class ids, uint8 [H, W]; 255 marks ignored pixels.
      instances: object numbers 1, 2, ..., uint8 [H, W]; 255 marks ignored pixels.
      class_ids: class ids of the objects 1, 2, ..., uint8 [n].
    """

    label: np.ndarray
    instances: np.ndarray
    class_ids: np.ndarray


def number_objects(
    canvas: np.ndarray, class_ids: Sequence[int] | np.ndarray, where: str, remedy: str, background: int = 0
) -> DrawnMasks:
    """Returns the masks of an image whose objects are drawn, with new numbers for those that are visible.

    Args:
      canvas: position of the visible object in `class_ids`, from 1, int [H, W]; 0 where no object is.
      class_ids: class ids of all objects, 0 to 255 [n]. Those of the background and of class 255 get no number.
      where: what the error message names.
      remedy: end of the error message, after "remove the image".
      background: class id where no object is: 0, or 255 if these pixels are ignored.

    Returns:
      The masks, and the class ids of the numbered objects.

    Raises:
      InputError: if more than 254 objects are visible.
    """
    classes = np.array([background, *class_ids], np.uint8)
    is_object = (classes != background) & (classes != IGNORE)
    visible = np.flatnonzero(is_object & (np.bincount(canvas.ravel(), minlength=len(classes)) > 0))
    check_object_count(len(visible), where, remedy)
    numbers = np.where(classes == IGNORE, IGNORE, 0).astype(np.uint8)
    numbers[visible] = np.arange(1, len(visible) + 1)
    return DrawnMasks(classes[canvas], numbers[canvas], classes[visible])


def check_object_count(count: int, where: str, remedy: str) -> None:
    """Raises InputError if an image shows more objects than a mask has numbers for.

    Args:
      count: number of visible objects.
      where: what the error message names.
      remedy: end of the error message, after "remove the image".

    Raises:
      InputError: for more than 254 objects.
    """
    if count >= IGNORE:
        raise InputError(f"{where} shows {count} objects, expected at most {IGNORE - 1}; remove the image{remedy}")


def count_classes(label: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Returns what one image adds to the counts of the classes.

    Args:
      label: class ids, uint8 [H, W].
      class_ids: class ids of the visible objects, uint8 [n].

    Returns:
      For every class id: whether the image shows it, and its numbers of objects and pixels, int64 [3, 256].
    """
    pixels, objects = (np.bincount(ids.ravel(), minlength=IGNORE + 1) for ids in (label, class_ids))
    return np.stack([pixels > 0, objects, pixels])


def class_counts(classes: Sequence[str], counts: np.ndarray) -> tuple[ClassCount, ...]:
    """Returns the counts of every class.

    Args:
      classes: class names in the order of their ids.
      counts: sum of `count_classes` over the images, int64 [3, 256].
    """
    return tuple(map(ClassCount, classes, *counts.tolist()))


def has_files(output: Path) -> bool:
    """Returns whether a folder holds files, except hidden ones, which belong to the system or to unfinished imports."""
    files = (path.relative_to(output) for path in output.rglob("*") if path.is_file())
    return any(not any(part.startswith(".") for part in file.parts) for file in files)


class VocWriter:
    """Folder in the VOC layout to which images are added. Nothing is visible in it until `finish`."""

    def __init__(self, output: Path, folder: Path):
        """Makes the folders.

        Args:
          output: the folder in the VOC layout; it may exist.
          folder: temporary folder on the same disk.
        """
        self._output, self._folder = output, folder
        for part in ("JPEGImages", *_MASKS, LISTS):
            (folder / part).mkdir(parents=True)

    def add(self, name: str, source: Path, label: np.ndarray, instances: np.ndarray | None) -> None:
        """Writes what the folder lacks of an image and its masks.

        Args:
          name: image name, without a suffix.
          source: file of the photograph. JPEG and PNG are copied unchanged, other formats are stored as PNG.
          label: class ids, uint8 [H, W].
          instances: object numbers, uint8 [H, W]; None without objects.

        Raises:
          InputError: if the folder has another image or another mask of the same name, or the photograph is damaged.
        """
        images = [self._output / f"JPEGImages/{name}{suffix}" for suffix in IMAGE_SUFFIXES]
        there = [path for path in images if path.is_file()]
        if not there:
            self._add_photograph(name, source)
        elif there[0].read_bytes() != source.read_bytes():
            raise InputError(
                f"{source} and {there[0]} are different images of the same name; rename one or name another --output"
            )
        for part, mask in zip(_MASKS, (label, instances), strict=True):
            path = self._output / f"{part}/{name}.png"
            if mask is None:
                continue
            if not path.is_file():
                label_image(mask).save(self._folder / f"{part}/{name}.png")
            elif not np.array_equal(read_mask(path), mask):
                raise InputError(
                    f"{path} differs from the new mask of {source}, although the image is the same; correct the "
                    "annotations or name another --output"
                )

    def _add_photograph(self, name: str, source: Path) -> None:
        suffix = source.suffix if source.suffix in IMAGE_SUFFIXES else source.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            # Errors of `shutil.copyfile` name the source, even if it is the disk of the copy that is full.
            (self._folder / f"JPEGImages/{name}{suffix}").write_bytes(source.read_bytes())
        else:
            Image.fromarray(read_image(source)).save(self._folder / f"JPEGImages/{name}.png")

    def finish(self, classes: Sequence[str], splits: Mapping[str, Sequence[str]]) -> None:
        """Writes the class names and the lists, and moves all files to the output.

        Args:
          classes: class names in the order of their ids.
          splits: image names of each split.
        """
        (self._folder / "classes.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
        for split, names in splits.items():
            text = "".join(f"{name}\n" for name in names)
            (self._folder / LISTS / f"{split}.txt").write_text(text, encoding="utf-8")
        objects = self._folder / _MASKS[1]
        if not any(objects.iterdir()):  # An empty folder would promise objects.
            objects.rmdir()
        _move_in(self._folder, self._output)


@contextlib.contextmanager
def voc_writer(output: Path) -> Iterator[VocWriter]:
    """Yields a writer of a folder in the VOC layout. Without `VocWriter.finish` the folder stays as it was.

    Args:
      output: absolute path of the folder, which may exist.

    Raises:
      InputError: if the folder cannot be written.
    """
    # Files can be moved only within one disk, so the unfinished folder lies inside an existing output.
    with unfinished_folder(output, output if output.exists() else None) as folder:
        yield VocWriter(output, folder)


def turned_photographs(paths: Sequence[Path]) -> list[str]:
    """Returns a warning if photographs have an EXIF orientation, otherwise an empty list.

    Their annotations may have been drawn on the stored or on the upright image.
    """
    turned = [(path, number) for path in paths if (number := image_orientation(path)) != 1]
    return [
        f"{len(turned)} of {len(paths)} images have an EXIF orientation, among them {path} ({number}), and their "
        "annotations must fit the pixels as stored; if they were drawn on the upright image, as browsers show it, turn "
        "the files upright (Pillow: ImageOps.exif_transpose) and import again"
        for path, number in turned[:1]
    ]


def _move_in(folder: Path, output: Path) -> None:
    """Moves the finished files to the output.

    The classes are moved first and the lists of the splits last. Without a list the other files are not read, so a
    killed import can simply be run again.
    """
    if not output.exists():
        folder.rename(output)
        return
    order = lambda path: (path.is_file(), path.parent == folder / LISTS, path.parent != folder, path)  # noqa: E731
    for path in sorted(folder.rglob("*"), key=order):
        target = output / path.relative_to(folder)
        if not target.exists():
            _ = target.mkdir() if path.is_dir() else path.rename(target)
