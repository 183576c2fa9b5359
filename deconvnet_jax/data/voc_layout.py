"""Reading a folder in the VOC layout, and saying clearly what is wrong with one.

ROOT/JPEGImages/NAME.jpg                photographs (.jpeg and .png are read too)
ROOT/SegmentationClass/NAME.png         class ids: indexed (palette) or greyscale PNG, 255 = ignore
ROOT/SegmentationObject/NAME.png        optional: object numbers, 0 = background, 255 = ignore
ROOT/ImageSets/Segmentation/SPLIT.txt   one NAME per line (`image_names` tells what else is read)
ROOT/classes.txt                        optional: one class name per line, in the order of the ids, background first

Names are looked up in any case and any Unicode form, folders and files may be links (`image_names`), and a mask may
keep the photograph's suffix: NAME.jpg.png.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.image_names import Listed, NamedFiles, lines_of, read_list, read_text
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.images import Example, check_mask_ids, check_mask_size, image_size, read_image, read_mask
from deconvnet_jax.labels import IGNORE, VOC_CLASSES

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
MASK_SUFFIXES = (".png", *(f"{suffix}.png" for suffix in IMAGE_SUFFIXES))
_LOOKED_AT = 20  # images of a split without masks whose files may have other names
_RESIZED = "a mask needs the size of its image: export both again"
_FOLDERS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


class ExampleFiles(NamedTuple):
    """The files of one annotated photograph.

    Attributes:
      name: as in the split's file, without folders before JPEGImages and without suffix.
      image: the photograph.
      label: the class mask.
      instances: the object mask; None without one.
    """

    name: str
    image: Path
    label: Path
    instances: Path | None


class VocFolder:
    """A folder in the VOC layout: its splits and the files of its images."""

    def __init__(self, root: str | Path):
        """
        Args:
          root: folder in the VOC layout.

        Raises:
          InputError: if it is an address or "".
        """
        self.root = user_path(root, "the VOC folder")
        self.photographs = NamedFiles.below(self.root / "JPEGImages", IMAGE_SUFFIXES)
        self.labels = NamedFiles.below(self.root / "SegmentationClass", MASK_SUFFIXES)

    @cached_property
    def instances(self) -> NamedFiles | None:
        """The object masks; None if there is no folder SegmentationObject."""
        folder = self.root / "SegmentationObject"
        return NamedFiles.below(folder, MASK_SUFFIXES) if folder.is_dir() else None

    def split_file(self, split: str) -> Path:
        """Returns the path of the file that lists a split's images."""
        return self.root / "ImageSets/Segmentation" / f"{split}.txt"

    def split(self, split: str) -> Listed:
        """Returns the images of a split.

        Raises:
          InputError: if there is no such split, its file cannot be used, or it names masks in another folder.
        """
        files = split_files(self.root)
        path = files.get(split, self.split_file(split))
        if split not in files:
            have = f"there are {', '.join(files)}" if files else "there is no split at all"
            raise InputError(f"no split file {path}: {have}; write one image name a line, without the suffix")
        _ = self.photographs.files, self.labels.files  # listed once, for many names
        listed = read_list(path, self.photographs)
        for name, mask in listed.masks.items():
            self._check_mask_folder(path, name, mask)
        return listed

    def image(self, name: str) -> Path:
        """Returns the photograph of a name.

        Raises:
          InputError: if there is none.
        """
        found = self.photographs.find(name)
        if found is None:
            path = self.root / "JPEGImages" / f"{name}.jpg"
            known = name.endswith(IMAGE_SUFFIXES)
            remedy = "write names without the suffix" if known else "add it or take the name out of the split"
            cause = self.cause(self.photographs, path, name)
            raise InputError(f"no image {path}, although a split names it{cause}; {remedy}")
        return self.root / "JPEGImages" / found

    def files(self, name: str) -> ExampleFiles:
        """Returns the files of an annotated photograph.

        Raises:
          InputError: if the photograph or the class mask is not there.
        """
        image, label = self.image(name), self.labels.find(name)
        if label is None:
            path = self.root / "SegmentationClass" / f"{name}.png"
            raise InputError(
                f"no file {path}, the class mask of image '{name}'{self.cause(self.labels, path, name)}; add it or "
                "take the name out of the split"
            )
        instances = self.instances.find(name) if self.instances else None
        return ExampleFiles(
            name,
            image,
            self.root / "SegmentationClass" / label,
            self.root / "SegmentationObject" / instances if instances else None,
        )

    def cause(self, files: NamedFiles, path: Path, name: str) -> str:
        """Returns why a file is probably missing, for messages; "" if nothing tells."""
        if path.is_symlink():
            return f" (it is a link to {path.readlink()}, which is not there)"
        similar = files.similar(name)
        return f" (there is {similar})" if similar else ""

    def _check_mask_folder(self, path: Path, name: str, mask: str) -> None:
        """Raises InputError if the list means a mask in a folder that is there, but not read."""
        for part in mask.replace("\\", "/").split("/")[:-1]:
            if part not in ("", ".", "..", "SegmentationClass") and (self.root / part).is_dir():
                raise InputError(
                    f"split file {path} names the mask {mask} of image '{name}', but masks are read from "
                    f"SegmentationClass; rename the folder {part} to SegmentationClass"
                )


def class_names(root: str | Path) -> tuple[str, ...]:
    """Names in the order of the ids, background first: from classes.txt, else those of VOC.

    Raises:
      InputError: if the folder is not in the VOC layout, or classes.txt is no list of 2 to 255 different names.
    """
    root = _check_root(user_path(root, "the VOC folder"))
    path = root / "classes.txt"
    if not path.exists() and not path.is_symlink():
        return VOC_CLASSES
    return read_class_names(path)


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Names from a file, one a line in the order of the ids, background first.

    Raises:
      InputError: if the file cannot be read, is neither UTF-8 nor UTF-16, or is no list of 2 to 255 different names.
    """
    path = user_path(path, "the file of class names")
    if not path.is_file():
        raise InputError(f"no file {path}; expected a list of class names, one a line, background first")
    names = [line.strip() for line in lines_of(read_text(path)) if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names) or len(names) > IGNORE:
        raise InputError(
            f"{path}: expected 2 to {IGNORE} different class names, one a line, background first; got "
            f"{len(names)}, {len(set(names))} different"
        )
    return tuple(names)


def split_files(root: str | Path) -> dict[str, Path]:
    """The files that list a split's images, by the split's name."""
    folder = _check_root(Path(root)) / "ImageSets/Segmentation"
    return {path.stem: path for path in sorted(folder.iterdir()) if _is_list(path)}


def split_names(root: str | Path, split: str) -> list[str]:
    """The images of a split, in the file's order.

    Raises:
      InputError: if there is no such split, or its file cannot be used; see `image_names.read_list`.
    """
    return VocFolder(root).split(split).names


def read_example(root: str | Path, name: str, num_classes: int) -> Example:
    """Reads one photograph with its masks and checks them.

    An EXIF orientation is not applied: masks fit the image as it is stored.

    Raises:
      InputError: for a file that is missing, damaged or of the wrong kind, sizes that differ, or unknown class ids.
    """
    return read_files(VocFolder(root).files(name), num_classes)


def read_files(files: ExampleFiles, num_classes: int) -> Example:
    """Reads one photograph with its masks and checks them, as `read_example`."""
    image, label = read_image(files.image), read_mask(files.label)
    check_mask_size(files.label, label, image, _RESIZED)
    check_mask_ids(files.label, label, num_classes, "correct the mask, or name all classes in classes.txt")
    if files.instances is None:
        return Example(files.name, image, label, None)
    instances = read_mask(files.instances)
    check_mask_size(files.instances, instances, image, _RESIZED)
    return Example(files.name, image, label, instances)


def _check_root(root: Path) -> Path:
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give the folder that holds {', '.join(_FOLDERS)}")
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
    """Returns whether a file lists a split; hidden ones, such as macOS's ._train.txt, do not."""
    return path.suffix.lower() == ".txt" and not path.name.startswith(".") and not path.is_dir()


class AnnotatedSplits(NamedTuple):
    """What can be trained on.

    Attributes:
      examples: the files of every image, by split.
      left_out: the splits without masks (VOC's test), each with the reason.
      warnings: about data that can be used, but seldom as it was meant.
    """

    examples: dict[str, list[ExampleFiles]]
    left_out: dict[str, str]
    warnings: list[str]


def check_left_out(folder: VocFolder, split: str) -> None:
    """Raises InputError if a split without masks seems to have some, under other names."""
    listed = {name: folder.split(name) for name in split_files(folder.root)}
    used = {folder.labels.find(name) for found in listed.values() for name in found.names}
    _without_masks(folder, split, listed[split], used)


def annotated_splits(folder: VocFolder) -> AnnotatedSplits:
    """Finds the files of all splits; splits without any mask are left out.

    Raises:
      InputError: if a list cannot be used, an image or a mask of a split is missing, masks have other names than the
        images, no split has masks, or the name of a split has other characters than letters, digits and _.
    """
    listed = {split: folder.split(split) for split in split_files(folder.root)}
    labels = {split: [folder.labels.find(name) for name in found.names] for split, found in listed.items()}
    used = {label for found in labels.values() for label in found}
    examples: dict[str, list[ExampleFiles]] = {}
    left_out: dict[str, str] = {}
    for split, found in labels.items():
        if any(found):
            examples[split] = _files(folder, split, listed[split])
        else:
            left_out[split] = _without_masks(folder, split, listed[split], used)
    if not examples:
        reasons = "; ".join(f"'{split}': {reason}" for split, reason in left_out.items())
        raise InputError(
            f"{folder.root / 'ImageSets/Segmentation'}: no split whose images have masks in SegmentationClass "
            f"({reasons or 'there is no list'})"
        )
    for split in examples:
        if not re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) or split == "all":
            raise InputError(
                f"{folder.split_file(split)}: '{split}' cannot name a split; rename the file, "
                "with letters, digits and _ only, not 'all'"
            )
    return AnnotatedSplits(examples, left_out, _warnings(folder, examples, left_out))


def _files(folder: VocFolder, split: str, listed: Listed) -> list[ExampleFiles]:
    """Returns the files of a split.

    Raises:
      InputError: if a photograph or a class mask is missing; names the first and how many there are.
    """
    for files, missing in ((folder.photographs, folder.image), (folder.labels, folder.files)):
        without = [name for name in listed.names if files.find(name) is None]
        if without:
            try:
                missing(without[0])
            except InputError as error:
                count = f"split '{split}', {len(without)} of {len(listed.names)} images: " if len(without) > 1 else ""
                raise InputError(f"{count}{error}{_encoding(listed)}") from error
    return [folder.files(name) for name in listed.names]


def _without_masks(folder: VocFolder, split: str, listed: Listed, used: set[str | None]) -> str:
    """Returns why a split without masks is left out.

    Raises:
      InputError: if its images or masks seem to be there, under other names.
    """
    photographs = [name for name in listed.names if folder.photographs.find(name)]
    kind = "mask" if photographs else "photograph"
    files, part, suffix = (
        (folder.labels, "SegmentationClass", ".png") if photographs else (folder.photographs, "JPEGImages", ".jpg")
    )
    some = (photographs or listed.names)[:_LOOKED_AT]
    similar = {
        name: found for name in some if (found := files.similar(name)) and (not photographs or found not in used)
    }
    name = next(iter(similar), some[0])
    path = folder.root / part / f"{name}{suffix}"
    reason = f"none of its {len(listed.names)} images has a {kind}, for example no file {path}"
    if 2 * len(similar) > len(some) or _encoding(listed):
        found = f" (there is {similar[name]})" if similar else ""
        raise InputError(
            f"split file {folder.split_file(split)}: {reason}{found}; name files and images alike{_encoding(listed)}"
        )
    return reason


def _encoding(listed: Listed) -> str:
    return "" if listed.encoding == "UTF-8" else "; the list is not UTF-8 text: save it as such"


def _warnings(folder: VocFolder, examples: dict[str, list[ExampleFiles]], left_out: dict[str, str]) -> list[str]:
    warnings = [f"split '{split}' is left out: {reason}" for split, reason in left_out.items()]
    by_name = {files.name: files for split in examples.values() for files in split}
    without = [name for name, files in by_name.items() if files.instances is None]
    if folder.instances and without:
        warnings.append(
            f"{len(without)} of {len(by_name)} images have no mask in {folder.root / 'SegmentationObject'}, among them "
            f"'{without[0]}': connected parts of a class are their objects; add the masks, or take that folder away"
        )
    return warnings


class Photograph(NamedTuple):
    """A photograph without masks: its name in the split's file and its pixels, uint8 RGB [H, W, 3]."""

    name: str
    image: np.ndarray
    label: None = None
    instances: None = None


class UnlabelledSplit:
    """Photographs of a split that has no masks, like VOC's test: predicted, not scored; used as `data.DatasetSplit`."""

    def __init__(self, root: str | Path, split: str):
        """
        Args:
          root: with JPEGImages and ImageSets/Segmentation.
          split: name of a file in ImageSets/Segmentation.

        Raises:
          InputError: if the file is empty or names an image twice.
        """
        self._folder = VocFolder(root)
        self._names = read_list(self._folder.split_file(split), self._folder.photographs).names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Photograph:
        """Raises InputError if the photograph is missing or damaged."""
        name = self._names[index]
        return Photograph(name, read_image(self._folder.image(name)))

    def name(self, index: int) -> str:
        """The name of an image in the split's file."""
        return self._names[index]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image; no pixels are decoded."""
        return image_size(self._folder.image(self._names[index]))


def has_no_masks(root: str | Path, split: str) -> bool:
    """Whether there are photographs and a file of this split, but not one mask of its images.

    Raises:
      InputError: if the file cannot be used, or the masks seem to be there under other names.
    """
    folder = VocFolder(root)
    if not folder.split_file(split).is_file() or not (folder.root / "JPEGImages").is_dir():
        return False
    names = read_list(folder.split_file(split), folder.photographs).names
    if not (folder.root / "SegmentationClass").is_dir():
        return True
    if any(folder.labels.find(name) for name in names):
        return False
    check_left_out(folder, split)
    return True
