"""Divides imported images into splits: by lists, by the folders of an export, or by chance."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deconvnet_jax.data.image_names import NamedFiles, name_key, read_list
from deconvnet_jax.data.mask_files import PHOTOGRAPHS, Found, tails, without_parts
from deconvnet_jax.data.mask_pairs import Pair
from deconvnet_jax.errors import InputError, counted
from deconvnet_jax.files import no_file

DEFAULT_VAL = 0.2  # part of the images that is held out if nothing else says which
_SPLITS = {  # names of folders and lists in exports
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_YEAR = re.compile(r"[-_ ]?(19|20)\d\d$")  # of folders such as COCO's train2017
_LIKE_A_SPLIT = re.compile("train|val", re.IGNORECASE)
ORDER = ("train", "val", "test")
Splits = dict[str, list[str]]


class MaskDivision(NamedTuple):
    """How images are divided into splits.

    Attributes:
      val: part of the images that is held out, between 0 and 1; None takes the export's splits if it has some.
      seed: number that selects the images held out.
      train_list: list of the training images; None without one.
      val_list: list of the images held out; None without one.
    """

    val: float | None = None
    seed: int = 0
    train_list: Path | None = None
    val_list: Path | None = None


def divide(pairs: Sequence[Pair], division: MaskDivision, others: Sequence[Found]) -> tuple[Splits, str]:
    """Divides images into the splits train and val, and test if the export has it.

    Args:
      pairs: all images.
      division: what the caller says.
      others: further files of the export, among which are CVAT's lists.

    Returns:
      The image names of every split in the order of `pairs`, and a phrase that says how they were divided.

    Raises:
      InputError: if the division is contradictory, a list is not usable, or train or val would be empty.
    """
    if (division.train_list is None) != (division.val_list is None):
        raise InputError("only one of --train_list and --val_list is given; give both, or --val=0.2")
    if division.train_list and division.val_list:
        if division.val is not None:
            raise InputError("--val and --val_list are both given; give one of them")
        found, how = _by_lists(pairs, {"train": division.train_list, "val": division.val_list}), "by the lists"
    elif division.val is not None:
        found, how = {"train": [pair.name for pair in pairs]}, ""
    else:
        found, how = _of_export(pairs, others)
    if "val" not in found:
        share = DEFAULT_VAL if division.val is None else division.val
        found |= _by_chance(found["train"], share, division.seed)
        how = f"{how}; val={share:g} of train, seed {division.seed}" if how else f"val={share:g}, seed {division.seed}"
    for split in ("train", "val"):
        if not found.get(split):
            raise InputError(f"the split {split} would be empty; choose the images with --val, or with lists")
    return {split: found[split] for split in ORDER if found.get(split)}, how


def mixed_folders(pairs: Sequence[Pair], division: MaskDivision, divided: str) -> list[str]:
    """Returns a warning if images are divided by chance although some folders are called like splits.

    Args:
      pairs: all images.
      division: what the caller says.
      divided: how the images are divided, from `divide`.
    """
    folders = {part for pair in pairs for part in pair.below.parent.parts if _LIKE_A_SPLIT.match(part)}
    if not folders or division.val is not None or not divided.startswith("val="):
        return []
    shown = " and ".join(sorted(folders)[:2])
    return [
        f"folders such as {shown} are not taken as splits, so their images are mixed; rename them to "
        "train and val, or give --train_list and --val_list"
    ]


def _by_chance(names: Sequence[str], share: float, seed: int) -> Splits:
    """Returns the splits train and val. An image keeps its place if others are added or removed.

    Raises:
      InputError: if `share` is not between 0 and 1, or there are fewer than two images.
    """
    if not 0 < share < 1:
        raise InputError(f"--val={share:g}: expected a part of the images, more than 0 and less than 1, such as 0.2")
    if len(names) < 2:
        raise InputError(f"{counted(len(names), 'image')} cannot be divided into train and val; expected at least 2")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    by_digest = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    val = set(by_digest[:count])
    return {
        "train": [name for name in names if name not in val],
        "val": [name for name in names if name in val],
    }


def _of_export(pairs: Sequence[Pair], others: Sequence[Found]) -> tuple[Splits, str]:
    """Returns the splits by the export's folders or lists, and how they were found. Without any, all is train.

    Raises:
      InputError: if only some images lie in such folders, or there are images to hold out but none to train on.
    """
    of_pair = {pair.name: _split_of(without_parts(pair.below).parent.parts) for pair in pairs}
    inside = [split for split in of_pair.values() if split]
    if inside:
        lone = next((pair for pair in pairs if not of_pair[pair.name]), None)
        if lone:
            raise InputError(
                f"{len(inside)} of {len(pairs)} images lie in folders of splits, such as {inside[0]}, but {lone.image} "
                "does not; give --val=0.2 or lists to divide all of them"
            )
        found = {split: [name for name in of_pair if of_pair[name] == split] for split in ORDER if split in inside}
        how = f"by the folders {', '.join(found)}"
    else:
        lists = {
            split: file.path
            for file in others
            if file.below.suffix == ".txt"
            and file.below.parent.name == "Segmentation"
            and (split := _SPLITS.get(file.below.stem.casefold()))
        }
        if "train" not in lists:
            return {"train": list(of_pair)}, ""
        found, how = _by_lists(pairs, lists), "by the lists in ImageSets/Segmentation"
    if "train" not in found:
        raise InputError(
            f"all {len(pairs)} images belong to {' and '.join(found)}, none to train; give --val=0.2 or lists to "
            "divide all of them"
        )
    return found, how


def _split_of(folders: Sequence[str]) -> str:
    names = (_YEAR.sub("", part.casefold()) for part in folders)
    return next((_SPLITS[name] for name in names if name in _SPLITS), "")


def _by_lists(pairs: Sequence[Pair], lists: Mapping[str, Path]) -> Splits:
    """Returns the splits in lists of image names, file names or paths.

    Raises:
      InputError: if a list is not usable, names an image that does not exist, or shares an image with another list.
    """
    owners: dict[str, set[Path]] = {}  # Images by all ends of their paths, such as a/b and b.
    for pair in pairs:
        for tail in tails(pair.below.with_suffix("")):
            owners.setdefault(name_key(tail), set()).add(pair.image)
    ends = [(pair, tail) for pair in pairs for tail in tails(pair.below)]
    by_path = {
        **{tail: pair for pair, tail in ends if len(owners[name_key(tail.removesuffix(pair.below.suffix))]) == 1},
        **{str(pair.below): pair for pair in pairs},
    }
    suffixes = [suffix for lower in PHOTOGRAPHS for suffix in (lower, lower.upper())]
    files = NamedFiles(suffixes, lambda: by_path, by_path.__contains__)
    by_name: dict[str, list[Pair]] = {}
    for pair in pairs:
        for name in {pair.name, pair.below.stem, pair.below.name}:
            by_name.setdefault(name_key(name), []).append(pair)
    found: Splits = {}
    where: dict[str, str] = {}
    for split, path in lists.items():
        if not path.is_file():
            raise InputError(no_file(path, remedy=f"expected the list of the split {split}, one image name per line"))
        members: set[str] = set()
        names = read_list(path, files).names
        for name in names:
            fitting = by_name.get(name_key(name.replace("\\", "/").split("/")[-1]), [])
            pair = by_path.get(files.find(name) or "") or (fitting[0] if len(fitting) == 1 else None)
            if pair is None:
                reason = "fits several images" if fitting else "has no image with a mask"
                title = ", or delete the line if it is a title" if name == names[0] and not fitting else ""
                raise InputError(f"{path}: '{name}' {reason}; correct the list, or add the folders to the name{title}")
            if where.setdefault(pair.name, split) != split:
                raise InputError(f"{path}: '{name}' is in the list of {where[pair.name]}, too; remove it from one list")
            members.add(pair.name)
        found[split] = [pair.name for pair in pairs if pair.name in members]
    return found
