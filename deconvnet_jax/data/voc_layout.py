"""Reads a folder in the VOC layout and explains what is wrong with a damaged one.

ROOT/JPEGImages/NAME.jpg                photographs (.jpeg and .png are read too)
ROOT/SegmentationClass/NAME.png         class ids: indexed (palette) or greyscale PNG, 255 = ignore
ROOT/SegmentationObject/NAME.png        optional: object numbers, 0 = background, 255 = ignore
ROOT/ImageSets/Segmentation/SPLIT.txt   one NAME per line (`image_names.read_list` accepts other forms too)
ROOT/classes.txt                        optional: one class name per line, in the order of the ids, background first

Names match files in any case and Unicode form, and folders and files may be links (`image_names`). A mask may keep the
suffix of its photograph: NAME.jpg.png.
"""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.image_names import Listed, NamedFiles, lines_of, read_list, read_text
from deconvnet_jax.data.mask_ids import unknown_ids_remedy
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import no_file, user_path
from deconvnet_jax.images import Example, check_mask_ids, check_mask_size, read_image, read_mask
from deconvnet_jax.labels import IGNORE, VOC_CLASSES

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
MASK_SUFFIXES = (".png", *(f"{suffix}.png" for suffix in IMAGE_SUFFIXES))
_RESIZED = "a mask needs the size of its image: export both again"
_FOLDERS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


class ExampleFiles(NamedTuple):
    """Files of one annotated photograph.

    Attributes:
      name: image name as in the split's file, without the folders up to JPEGImages and without the suffix.
      image: path of the photograph.
      label: path of the class mask.
      instances: path of the object mask; None without one.
    """

    name: str
    image: Path
    label: Path
    instances: Path | None


class VocFolder:
    """Folder in the VOC layout: its splits and the files of its images.

    Attributes:
      root: the folder.
      photographs: files below JPEGImages.
      labels: files below SegmentationClass.
    """

    def __init__(self, root: str | Path):
        """Stores the folder; nothing is read yet.

        Args:
          root: folder in the VOC layout, on a local or mounted disk.

        Raises:
          InputError: if `root` is empty or an address such as gs://BUCKET.
        """
        self.root = user_path(root, "the VOC folder")
        self.photographs = NamedFiles.below(self.root / "JPEGImages", IMAGE_SUFFIXES)
        self.labels = NamedFiles.below(self.root / "SegmentationClass", MASK_SUFFIXES)

    @cached_property
    def instances(self) -> NamedFiles | None:
        """The files below SegmentationObject; None if there is no such folder."""
        folder = self.root / "SegmentationObject"
        return NamedFiles.below(folder, MASK_SUFFIXES) if folder.is_dir() else None

    def split_file(self, split: str) -> Path:
        """Returns the path of the file that lists the images of a split, whether it exists or not."""
        return self.root / "ImageSets/Segmentation" / f"{split}.txt"

    def split(self, split: str) -> Listed:
        """Reads the list of the images of a split.

        Raises:
          InputError: if there is no such split, its file is not usable, or it names masks in a folder that is not read.
        """
        files = split_files(self.root)
        path = files.get(split, self.split_file(split))
        if split not in files:
            have = f"there are {', '.join(files)}" if files else "there is no other split"
            raise InputError(f"no split file {path}: {have}; write it with one image name per line, without the suffix")
        _ = self.photographs.files, self.labels.files  # Listing the folders once is faster than one look-up per name.
        listed = read_list(path, self.photographs)
        for name, mask in listed.masks.items():
            self._check_mask_folder(path, name, mask)
        return listed

    def image(self, name: str) -> Path:
        """Returns the path of the photograph of an image name.

        Raises:
          InputError: if there is none.
        """
        found = self.photographs.find(name)
        if found is None:
            path = self.root / "JPEGImages" / f"{name}.jpg"
            known = name.endswith(IMAGE_SUFFIXES)
            remedy = "write names without the suffix" if known else "add it or delete the name from the split file"
            cause = self.cause(self.photographs, path, name)
            raise InputError(f"no image {path}, although a split names it{cause}; {remedy}")
        return self.root / "JPEGImages" / found

    def files(self, name: str) -> ExampleFiles:
        """Returns the files of an annotated photograph.

        Raises:
          InputError: if the photograph or the class mask is missing.
        """
        image, label = self.image(name), self.labels.find(name)
        if label is None:
            path = self.root / "SegmentationClass" / f"{name}.png"
            raise InputError(
                f"no file {path}, the class mask of image '{name}'{self.cause(self.labels, path, name)}; add it or "
                "delete the name from the split file"
            )
        instances = self.instances.find(name) if self.instances else None
        return ExampleFiles(
            name,
            image,
            self.root / "SegmentationClass" / label,
            self.root / "SegmentationObject" / instances if instances else None,
        )

    def cause(self, files: NamedFiles, path: Path, name: str) -> str:
        """Returns the probable reason why a file is missing, for error messages.

        Args:
          files: files among which it was expected.
          path: path of the missing file.
          name: image name.

        Returns:
          The reason in parentheses after a space; "" if none is known.
        """
        if path.is_symlink():
            return f" (it is a link to {path.readlink()}, which does not exist)"
        similar = files.similar(name)
        return f" (there is {similar})" if similar else ""

    def _check_mask_folder(self, path: Path, name: str, mask: str) -> None:
        """Raises InputError if a list names a mask in a folder that exists but is not read."""
        for part in mask.replace("\\", "/").split("/")[:-1]:
            if part not in ("", ".", "..", "SegmentationClass") and (self.root / part).is_dir():
                raise InputError(
                    f"split file {path} names the mask {mask} of image '{name}', but masks are read from "
                    f"SegmentationClass; rename the folder {part} to SegmentationClass"
                )


def class_names(root: str | Path) -> tuple[str, ...]:
    """Returns the class names of a folder in the order of their ids: from classes.txt, or VOC's without that file.

    Raises:
      InputError: if the folder is not in the VOC layout, or classes.txt is not a list of 2 to 255 different names.

    Example:
      >>> from deconvnet_jax.data import class_names
      >>> class_names("scenes")
      ('background', 'leaf', 'fish', 'kite', 'tyre', 'flower')
    """
    root = _check_root(user_path(root, "the VOC folder"))
    return read_class_names(root / "classes.txt") if has_class_names(root) else VOC_CLASSES


def has_class_names(root: Path) -> bool:
    """Returns whether a folder has a file classes.txt. A broken link counts, so that reading it reports the link."""
    path = root / "classes.txt"
    return path.exists() or path.is_symlink()


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Returns the class names in a file: one per line, in the order of their ids, background first.

    Raises:
      InputError: if the file cannot be read, is not Unicode text, or does not hold 2 to 255 different names.
    """
    path = user_path(path, "the file of class names")
    if not path.is_file():
        raise InputError(no_file(path, remedy="expected class names, one per line, background first: correct the path"))
    names = [line.strip() for line in lines_of(read_text(path)) if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names) or len(names) > IGNORE:
        raise InputError(
            f"{path} has {len(names)} class names, {len(set(names))} of them different; expected 2 to {IGNORE} "
            "different class names, one per line, background first"
        )
    return tuple(names)


def split_files(root: str | Path) -> dict[str, Path]:
    """Returns the files that list the images of a folder's splits, by the names of the splits.

    Raises:
      InputError: if the folder is not in the VOC layout.
    """
    folder = _check_root(Path(root)) / "ImageSets/Segmentation"
    return {path.stem: path for path in sorted(folder.iterdir()) if _is_list(path)}


def split_names(root: str | Path, split: str) -> list[str]:
    """Returns the image names of a split, in the order of its file.

    Args:
      root: folder in the VOC layout.
      split: name of a file in ImageSets/Segmentation, without .txt.

    Returns:
      The names, without suffixes.

    Raises:
      InputError: if there is no such split, or its file is not usable (`image_names.read_list`).

    Example:
      >>> from deconvnet_jax.data import split_names
      >>> split_names("scenes", "train")
      ['train_0000', 'train_0001']
    """
    return VocFolder(root).split(split).names


def read_example(root: str | Path, name: str, num_classes: int) -> Example:
    """Reads one photograph with its masks and checks them.

    An EXIF orientation is not applied, because masks fit the image as it is stored.

    Args:
      root: folder in the VOC layout.
      name: image name as in the split's file, without a suffix.
      num_classes: number of classes, background included. The masks may contain ids below it, and 255.

    Returns:
      The photograph and its masks. `instances` is None without an object mask.

    Raises:
      InputError: if a file is missing, damaged or of the wrong kind, if sizes differ, or if a class id is unknown.

    Example:
      >>> from deconvnet_jax.data import read_example
      >>> example = read_example("scenes", "train_0000", num_classes=6)
      >>> example.name, example.image.shape == (*example.label.shape, 3)
      ('train_0000', True)
    """
    folder = VocFolder(root)
    return read_files(folder.files(name), num_classes, has_class_names(folder.root))


def read_files(files: ExampleFiles, num_classes: int, named: bool = True) -> Example:
    """Reads one photograph with its masks from known files and checks them, like `read_example`.

    Args:
      files: files of the photograph, from `VocFolder.files`.
      num_classes: number of classes, background included.
      named: whether classes.txt names the classes, for error messages.

    Returns:
      The photograph and its masks. `instances` is None without an object mask.

    Raises:
      InputError: as in `read_example`.
    """
    image, label = read_image(files.image), read_mask(files.label)
    check_mask_size(files.label, label, image, _RESIZED)
    if np.where(label == IGNORE, 0, label).max() >= num_classes:
        check_mask_ids(files.label, label, num_classes, unknown_ids_remedy(label, num_classes, named))
    if files.instances is None:
        return Example(files.name, image, label, None)
    instances = read_mask(files.instances)
    check_mask_size(files.instances, instances, image, _RESIZED)
    return Example(files.name, image, label, instances)


def _check_root(root: Path) -> Path:
    if not root.is_dir():
        raise InputError(no_file(root, "folder", f"give the folder that holds {', '.join(_FOLDERS)}"))
    missing = [part for part in _FOLDERS if not (root / part).is_dir()]
    if missing:
        around = [parent for parent in root.resolve().parents[:2] if all((parent / part).is_dir() for part in _FOLDERS)]
        inner = [path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/JPEGImages")]
        broken = [root / part for part in missing if (root / part).is_symlink()]
        remedy = f"give the folder that holds {', '.join(_FOLDERS)}"
        if broken:
            remedy = f"correct the link {broken[0]}, which leads to {broken[0].readlink()}"
        elif around or inner:
            remedy = f"did you mean {(around + inner)[0]}?"
        raise InputError(f"{root} is not a folder in the VOC layout: it has no {', '.join(missing)}; {remedy}")
    return root


def _is_list(path: Path) -> bool:
    """Returns whether a file lists a split. Hidden files, such as ._train.txt of macOS, do not."""
    return path.suffix.lower() == ".txt" and not path.name.startswith(".") and not path.is_dir()
