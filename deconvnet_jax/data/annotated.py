"""The splits of a folder in the VOC layout whose images have masks, all files of which are there."""

import re
from typing import NamedTuple

from deconvnet_jax.data.text_lists import Listed
from deconvnet_jax.data.voc_layout import ExampleFiles, VocFolder, split_files
from deconvnet_jax.errors import InputError

_LOOKED_AT = 20  # images of a split without masks whose files may have other names


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
