"""Finds the splits of a folder in the VOC layout: those to train on, and those without masks, which are only predicted.

A split without masks may be a test set, or its masks may have other names than its images. The second is a mistake and
is reported.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconvnet_jax.data.image_names import Listed, NamedFiles, read_list
from deconvnet_jax.data.voc_layout import IMAGE_SUFFIXES, ExampleFiles, VocFolder, split_files
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import image_size, read_image
from deconvnet_jax.short_repr import short_repr

_LOOKED_AT = 20  # Number of images, in a split without masks, for which similar file names are searched.


class AnnotatedSplits(NamedTuple):
    """Splits of a folder that can be trained on.

    Attributes:
      examples: files of every image, by split.
      left_out: splits without masks, such as VOC's test, each with the reason why it is left out.
      warnings: messages about data that is usable but probably a mistake.
    """

    examples: dict[str, list[ExampleFiles]]
    left_out: dict[str, str]
    warnings: list[str]


def check_left_out(folder: VocFolder, split: str) -> None:
    """Raises InputError if a split seems to have no masks only because its files have other names.

    Args:
      folder: folder in the VOC layout.
      split: name of a split none of whose images has a mask.
    """
    listed = {name: folder.split(name) for name in split_files(folder.root)}
    used = {folder.labels.find(name) for found in listed.values() for name in found.names}
    _without_masks(folder, split, listed[split], used)


def annotated_splits(folder: VocFolder) -> AnnotatedSplits:
    """Finds the files of all splits. Splits without any mask are left out.

    Raises:
      InputError: if a list is not usable, a split lacks some or all of its images or some of its masks, masks have
        other names than their images, no split has masks, or a split's name has characters other than letters, digits
        and _.
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
            f"({reasons or 'there is no list'}); list images that have masks in train.txt"
        )
    for split in examples:
        if not re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) or split == "all":
            raise InputError(
                f"{folder.split_file(split)}: '{split}' cannot be the name of a split; expected letters, digits and _ "
                "only, and not 'all': rename the file"
            )
    return AnnotatedSplits(examples, left_out, _warnings(folder, examples, left_out))


def _files(folder: VocFolder, split: str, listed: Listed) -> list[ExampleFiles]:
    """Returns the files of a split.

    Raises:
      InputError: if a photograph or a class mask is missing. The message names the first and counts them.
    """
    _check_there(folder.photographs, folder.image, split, listed)
    _check_there(folder.labels, folder.files, split, listed)
    return [folder.files(name) for name in listed.names]


def _check_there(files: NamedFiles, missing: Callable[[str], object], split: str, listed: Listed) -> None:
    """Raises InputError if some images of a split have no file. The message names the first and counts them.

    Args:
      files: files among which each image must have one.
      missing: function that raises InputError about an image without one.
      split: name of the split.
      listed: images of the split.
    """
    without = [name for name in listed.names if files.find(name) is None]
    if not without:
        return
    try:
        missing(without[0])
    except InputError as error:
        count = f"split '{split}', {len(without)} of {len(listed.names)} images: " if len(without) > 1 else ""
        raise InputError(f"{count}{error}{_encoding(listed)}") from error


def _without_masks(folder: VocFolder, split: str, listed: Listed, used: set[str | None]) -> str:
    """Returns the reason why a split without masks is left out.

    Raises:
      InputError: if none of its photographs exists, some are missing, or its masks seem to have other names.
    """
    photographs = any(folder.photographs.find(name) for name in listed.names)
    if photographs:
        _check_there(folder.photographs, folder.image, split, listed)
    kind = "mask" if photographs else "photograph"
    files, part, suffix = (
        (folder.labels, "SegmentationClass", ".png") if photographs else (folder.photographs, "JPEGImages", ".jpg")
    )
    some = listed.names[:_LOOKED_AT]
    similar = {
        name: found for name in some if (found := files.similar(name)) and (not photographs or found not in used)
    }
    name = next(iter(similar), some[0])
    path = folder.root / part / (name if name.endswith(IMAGE_SUFFIXES) else f"{name}{suffix}")
    reason = f"none of its {len(listed.names)} images has a {kind}, for example no file {path}"
    if photographs and 2 * len(similar) <= len(some) and not _encoding(listed):
        return reason
    found = f" (there is {similar[name]})" if similar else ""
    remedy = "use the same name in the list and for the files of an image"
    if not similar and not _encoding(listed):
        remedy = "write the names of files in JPEGImages, one per line, or delete the list"
    raise InputError(f"split file {folder.split_file(split)}: {reason}{found}; {remedy}{_encoding(listed)}")


def _encoding(listed: Listed) -> str:
    return "" if listed.encoding == "UTF-8" else "; the list is not UTF-8 text: save it as UTF-8"


def _warnings(folder: VocFolder, examples: dict[str, list[ExampleFiles]], left_out: dict[str, str]) -> list[str]:
    warnings = [f"split '{split}' is left out: {reason}" for split, reason in left_out.items()]
    by_name = {files.name: files for split in examples.values() for files in split}
    without = [name for name, files in by_name.items() if files.instances is None]
    if folder.instances and without:
        warnings.append(
            f"{len(without)} of {len(by_name)} images have no mask in {folder.root / 'SegmentationObject'}, among them "
            f"'{without[0]}': connected parts of a class count as their objects; add the masks or remove that folder"
        )
    return warnings


class Photograph(NamedTuple):
    """Photograph without masks, with the fields of `images.Example`.

    Attributes:
      name: image name as in the split's file.
      image: pixels, uint8 RGB [H, W, 3].
      label: none.
      instances: none.
    """

    name: str
    image: np.ndarray
    label: None = None
    instances: None = None

    __repr__ = short_repr


class UnlabelledSplit:
    """Photographs of a split without masks, such as VOC's test, which are predicted but not scored.

    It offers `len(split)`, `split[i]`, `name` and `size`, like `data.DatasetSplit`. Photographs are read when needed.
    """

    def __init__(self, root: str | Path, split: str):
        """Reads the list of a split.

        Args:
          root: folder with JPEGImages and ImageSets/Segmentation.
          split: name of a file in ImageSets/Segmentation, without .txt.

        Raises:
          InputError: if the list is not usable (`image_names.read_list`), or photographs are missing.
        """
        self._folder = VocFolder(root)
        listed = read_list(self._folder.split_file(split), self._folder.photographs)
        _check_there(self._folder.photographs, self._folder.image, split, listed)
        self._names = listed.names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Photograph:
        """Reads one photograph.

        Raises:
          InputError: if it is missing or damaged.
        """
        name = self._names[index]
        return Photograph(name, read_image(self._folder.image(name)))

    def name(self, index: int) -> str:
        """Returns the name of an image as in the split's file."""
        return self._names[index]

    def size(self, index: int) -> tuple[int, int]:
        """Returns the height and the width of an image in pixels, without decoding it."""
        return image_size(self._folder.image(self._names[index]))


def has_no_masks(root: str | Path, split: str) -> bool:
    """Returns whether a split has photographs and a list, but no mask at all.

    Args:
      root: folder in the VOC layout; SegmentationClass may be missing.
      split: name of a split.

    Returns:
      True for a split without masks. False if there is at least one mask, no list of this name, or no JPEGImages.

    Raises:
      InputError: if the list is not usable, or the masks seem to exist under other names.
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
