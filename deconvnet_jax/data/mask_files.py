"""Finds photographs and their masks in folders of any nesting, and decides which belong together."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deconvnet_jax.data.image_names import name_key, walk
from deconvnet_jax.errors import InputError, counted
from deconvnet_jax.files import no_file

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PICTURES = (*PHOTOGRAPHS, ".gif", ".ppm")
UNMATCHED = ("error", "skip", "background")
_PARTS = {  # What the files below folders of these names are, in the exports of annotation tools.
    **dict.fromkeys(("images", "image", "img", "imgs", "jpegimages"), "image"),
    **dict.fromkeys(("masks", "mask", "ann", "annotations", "labels", "segmentationclass"), "mask"),
    **dict.fromkeys(("segmentationobject",), "objects"),
}
ROBOFLOW = "_classes.csv"  # file of classes in Roboflow's exports of semantic masks
_SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # folders that macOS, Synology and Windows make
_NO_MASKS = ("meta.json", "key_id_map.json", "obj_class_to_machine_color.json")  # of Supervisely


class Found(NamedTuple):
    """File below a folder.

    Attributes:
      path: the file.
      below: path below the folder.
      part: "image", "mask" or "objects" if a folder around the file is called so; otherwise "".
    """

    path: Path
    below: PurePosixPath
    part: str


class Pair(NamedTuple):
    """Photograph and its mask.

    Attributes:
      name: name under which the image is written.
      image: file of the photograph.
      below: path of the photograph below the folder of images.
      mask: file of the mask; None if the image has none and counts as background.
      objects: file of CVAT's mask of objects; None without one.
    """

    name: str
    image: Path
    below: PurePosixPath
    mask: Path | None
    objects: Path | None


class MaskPairing(NamedTuple):
    """How masks are matched with photographs.

    Attributes:
      mask_suffix: end of the names of masks, before the file's suffix, that photographs do not have, such as "_mask".
        Other files are no masks. None stands for "_mask" in Roboflow's exports, and for "" elsewhere.
      image_suffix: end of the names of photographs that masks do not have, such as "_leftImg8bit". Other files are no
        photographs.
      unmatched: "error"; "skip" leaves out photographs and masks without a partner; "background" takes photographs
        without a mask as background.
    """

    mask_suffix: str | None = None
    image_suffix: str = ""
    unmatched: str = "error"


class Folders(NamedTuple):
    """Files of a data set, sorted into photographs and masks.

    Attributes:
      images: photographs.
      masks: masks, as pictures or JSON.
      objects: CVAT's masks of objects.
      others: files that are neither, such as tables of classes.
      shared: whether masks are searched in the folder of the photographs, or in a folder below it.
      image_suffix: end of the names of photographs that masks do not have.
      mask_suffix: end of the names of masks that photographs do not have.
    """

    images: list[Found]
    masks: list[Found]
    objects: list[Found]
    others: list[Found]
    shared: bool
    image_suffix: str
    mask_suffix: str


def files_below(folder: Path, flag: str) -> list[Found]:
    """Returns the files below a folder in the order of their names, without hidden ones and those of the system.

    Args:
      folder: the folder.
      flag: name of the flag that gives it, for error messages.

    Raises:
      InputError: if there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(no_file(folder, "folder", f"correct {flag}"))
    found: list[Found] = []
    for name, path in walk(folder):
        below = PurePosixPath(name)
        # Hidden files are no photographs: macOS writes ._a.jpg beside a.jpg.
        if any(part.startswith(".") or part in _SYSTEM for part in below.parts):
            continue
        parts = [_PARTS[part.casefold()] for part in below.parent.parts if part.casefold() in _PARTS]
        found.append(Found(path, below, parts[-1] if parts else ""))
    return found


def sort_files(images: Path, masks: Path, pairing: MaskPairing, kinds: Sequence[str]) -> Folders:
    """Sorts the files below two folders into photographs and masks. Both may be the same folder, or one in the other.

    In a common folder, a file is a mask if its name ends with `pairing.mask_suffix`, if it is JSON, or if a folder
    around it has a name such as masks or SegmentationClass.

    Args:
      images: folder of the photographs.
      masks: folder of the masks.
      pairing: ends of the names of masks and photographs.
      kinds: suffixes of the files that may be masks, such as ".json".

    Returns:
      The files. Without a table of Roboflow and without `pairing.mask_suffix`, the end of the masks' names is "".

    Raises:
      InputError: if there is no such folder, or it has no photograph or no mask.
    """
    mask_suffix, image_suffix = pairing.mask_suffix, pairing.image_suffix
    same = images.resolve() == masks.resolve()
    of_images = files_below(images, "--images")
    of_masks = of_images if same else files_below(masks, "--masks")
    if mask_suffix is None:
        mask_suffix = "_mask" if any(file.below.name == ROBOFLOW for file in of_masks) else ""
    ours = {images.resolve() / file.below: file for file in of_images}
    theirs = {masks.resolve() / file.below: file for file in of_masks}
    shared = masks.resolve().is_relative_to(images.resolve())
    if not same:  # One folder may lie in the other; the inner one then has its files to itself.
        if shared:
            ours = {path: file for path, file in ours.items() if path not in theirs}
        else:
            theirs = {path: file for path, file in theirs.items() if path not in ours}
    candidates = [file for file in theirs.values() if _is_mask(file, mask_suffix, same, kinds)]
    named = [file for file in candidates if file.part == "mask"]
    found_masks = named or [file for file in candidates if file.part == ""]
    taken = {file.path for file in found_masks}
    pictures = [
        file
        for file in ours.values()
        if file.path not in taken
        and file.part in ("", "image")
        and file.below.suffix.lower() in PHOTOGRAPHS
        and file.below.stem.endswith(image_suffix)
    ]
    named = [file for file in pictures if file.part == "image"]
    found_images = named if shared and named else pictures
    objects = [file for file in theirs.values() if file.part == "objects" and file.below.suffix.lower() in PICTURES]
    used = {file.path for file in (*found_images, *found_masks, *objects)}
    others = [file for path, file in {**ours, **theirs}.items() if file.path not in used]
    if not found_images:
        raise InputError(_nothing("photograph", images, "--images", image_suffix, PHOTOGRAPHS))
    if not found_masks:
        hint = "; masks in the same folder need --mask_suffix, such as --mask_suffix=_mask" if same else ""
        raise InputError(_nothing("mask", masks, "--masks", mask_suffix, kinds) + hint)
    return Folders(found_images, found_masks, objects, others, shared, image_suffix, mask_suffix)


def _is_mask(file: Found, mask_suffix: str, same: bool, kinds: Sequence[str]) -> bool:
    suffix = file.below.suffix.lower()
    if suffix not in kinds or file.part not in ("", "mask") or file.below.name in _NO_MASKS:
        return False
    is_marked = not same or bool(mask_suffix) or file.part == "mask" or suffix == ".json"
    return is_marked and file.below.stem.endswith(mask_suffix)


def _nothing(kind: str, folder: Path, flag: str, end: str, suffixes: Sequence[str]) -> str:
    named = f" whose name ends with '{end}' before the suffix" if end else ""
    return f"{flag}={folder} has no {kind}{named}; expected files that end in {', '.join(suffixes)}"


def pair_files(folders: Folders, unmatched: str) -> tuple[list[Pair], list[str]]:
    """Finds the mask of every photograph.

    A mask belongs to the photograph with the same path below its folder, without suffixes and without folders such as
    images or masks. If there is none, it belongs to the only photograph with the same name in any folder.

    Args:
      folders: the files.
      unmatched: as in `MaskPairing`.

    Returns:
      The pairs in the order of the photographs' paths, and warnings, one line each.

    Raises:
      InputError: if a partner is missing or not unique, or a name cannot be written to a list.
    """
    if unmatched not in UNMATCHED:
        raise InputError(f"--unmatched={unmatched}: expected one of {', '.join(UNMATCHED)}")
    image_suffix = folders.image_suffix
    masks, lone = _match(folders.images, folders.masks, image_suffix, folders.mask_suffix)
    objects, _ = _match(folders.images, folders.objects, image_suffix, "")
    without = [file for file in folders.images if file.path not in masks]
    _check_partners(folders, masks, without, lone, unmatched)
    kept = folders.images if unmatched == "background" else [file for file in folders.images if file.path in masks]
    left = [file for file in folders.others if file.below.suffix.lower() in PICTURES]
    warnings: list[str] = []
    if left and folders.shared and not image_suffix:
        warnings.append(
            f"{counted(len(left), 'picture')} in other folders than those of images and masks are not read, among "
            f"them {left[0].path}"
        )
    if without:
        done = "count as background" if unmatched == "background" else "are left out"
        number = f"{len(without)} of {len(folders.images)}"
        warnings.append(f"{number} images have no mask and {done}, among them {without[0].path}")
    if lone:
        number = f"{len(lone)} of {len(folders.masks)}"
        warnings.append(f"{number} masks have no image and are left out, among them {lone[0].path}")
    names = _names([_plain(file.below, image_suffix) for file in kept])
    pairs = [
        Pair(name, file.path, file.below, masks.get(file.path), objects.get(file.path))
        for name, file in zip(names, kept, strict=True)
    ]
    for pair in pairs:
        _check_name(pair)
    return pairs, warnings


def _match(
    images: Sequence[Found], masks: Sequence[Found], image_suffix: str, mask_suffix: str
) -> tuple[dict[Path, Path], list[Found]]:
    """Returns the mask of every photograph that has one, and the masks without a photograph.

    Raises:
      InputError: if a mask fits several photographs, or a photograph has several masks.
    """
    by_path: dict[str, list[Found]] = {}
    by_name: dict[str, list[Found]] = {}
    for file in images:
        whole, plain = _key(file.below), _key(_plain(file.below, image_suffix))
        for key in {whole, plain}:
            by_path.setdefault(key, []).append(file)
            by_name.setdefault(key.split("/")[-1], []).append(file)
    found: dict[Path, Path] = {}
    lone: list[Found] = []
    names = Counter(_key(_plain(file.below, mask_suffix)).split("/")[-1] for file in masks)
    for file in masks:
        key = _key(_plain(file.below, mask_suffix))
        fitting = by_path.get(key, [])
        if not fitting and names[key.split("/")[-1]] == 1:
            fitting = by_name.get(key.split("/")[-1], [])
        if len(fitting) > 1:
            raise InputError(
                f"the mask {file.path} fits several images, {fitting[0].path} and {fitting[1].path}; rename one, or "
                "put images and masks into folders of the same names"
            )
        if not fitting:
            lone.append(file)
        elif (other := found.setdefault(fitting[0].path, file.path)) != file.path:
            raise InputError(
                f"the image {fitting[0].path} has several masks, {other} and {file.path}; choose with --mask_suffix, "
                "--kind or another folder --masks"
            )
    return found, lone


def _check_partners(
    folders: Folders, masks: dict[Path, Path], without: Sequence[Found], lone: Sequence[Found], unmatched: str
) -> None:
    """Raises InputError if photographs or masks without a partner are not allowed, or nothing has a partner."""
    coco = next((file.path for file in lone if file.below.suffix.lower() == ".json" and _is_coco(file.path)), None)
    if coco:
        raise InputError(f"{coco} is a file in COCO's format; import it with python -m experiments.import_coco")
    if not masks:
        image, mask = folders.images[0], folders.masks[0]
        raise InputError(
            f"no mask belongs to an image: there are {image.path} and {mask.path}{_suggestion(folders)}; expected the "
            "same names"
        )
    if without and unmatched == "error":
        raise InputError(
            f"{len(without)} of {len(folders.images)} images have no mask, for example {without[0].path}"
            f"{_suggestion(folders)}; add the masks, or give --unmatched=skip to leave these images out or "
            "--unmatched=background to take them as background"
        )
    if lone and unmatched != "skip":
        same_name = name_key(_plain(lone[0].below, folders.mask_suffix).name)
        other = next((file.path for file in folders.others if name_key(file.below.stem) == same_name), None)
        hint = f" (there is {other}, which is not read)" if other else _suggestion(folders)
        raise InputError(
            f"{len(lone)} of {len(folders.masks)} masks have no image, for example {lone[0].path}{hint}; add the "
            "images, correct the names or give --unmatched=skip"
        )


def _is_coco(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_bytes())
        return isinstance(found, dict) and {"images", "annotations", "categories"} <= set(found)
    return False


def _suggestion(folders: Folders) -> str:
    """Returns " (--mask_suffix=END matches N images)" if the masks' names are those of images with another end."""
    stems = {name_key(file.below.stem) for file in folders.images}
    ends = Counter(
        file.below.stem[i:]
        for file in folders.masks
        for i in range(1, len(file.below.stem))
        if name_key(file.below.stem[:i]) in stems and not file.below.stem[i].isalnum()
    )
    return "".join(f" (--mask_suffix={end} would match {counted(count, 'mask')})" for end, count in ends.most_common(1))


def _plain(below: PurePosixPath, end: str) -> PurePosixPath:
    """Returns a path without folders that only say what a file is, and without its suffixes."""
    folders = [part for part in below.parent.parts if part.casefold() not in _PARTS]
    return PurePosixPath(*folders, below.stem.removesuffix(end))


def _key(below: PurePosixPath) -> str:
    folders = [part for part in below.parent.parts if part.casefold() not in _PARTS]
    return name_key("/".join((*folders, below.name)))


def _names(paths: Sequence[PurePosixPath]) -> list[str]:
    """Returns a name for every image: its file name if all are different, otherwise with its folders."""
    names = [path.name for path in paths]
    if len({name_key(name) for name in names}) < len(names):
        names = ["_".join(path.parts) for path in paths]
    twice = [name for name, count in Counter(map(name_key, names)).items() if count > 1]
    if twice:
        same = [str(path) for path, name in zip(paths, names, strict=True) if name_key(name) == twice[0]]
        raise InputError(
            f"the images {' and '.join(same[:2])} would get the same name '{twice[0]}'; rename one of them"
        )
    return names


def _check_name(pair: Pair) -> None:
    """Raises InputError if a name cannot stand on a line of a UTF-8 file."""
    is_text = not re.search("[\ud800-\udfff]", pair.name)  # Such characters stand for bytes that are not UTF-8.
    if pair.name.splitlines() != [pair.name.strip()] or not is_text:
        raise InputError(
            f"the image {str(pair.below)!r} has a name that a list cannot hold; expected one line of UTF-8 text "
            "without blanks at its ends: rename the image and its mask"
        )
