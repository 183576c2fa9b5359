"""Finds photographs and masks in folders of any nesting, as annotation tools export them."""

import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from deconvnet_jax.data.image_names import name_key, walk
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import no_file

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PICTURES = (*PHOTOGRAPHS, ".gif", ".ppm")
_LOSSY = (".jpg", ".jpeg", ".webp")  # Masks of these formats are found and refused.
_PARTS = {  # What the files below folders of these names are, in the exports of annotation tools.
    **dict.fromkeys(("images", "image", "img", "imgs", "jpegimages"), "image"),
    **dict.fromkeys(("masks", "mask", "ann", "annot", "annotations", "labels", "segmentationclass"), "mask"),
    **dict.fromkeys(("segmentationobject",), "objects"),
}
_SPLIT_PART = re.compile(  # train_images, train_labels, trainannot
    rf"(?P<split>train(ing)?|val(id(ation)?)?|test(ing)?)[-_ ]?(?P<part>{'|'.join(_PARTS)})", re.IGNORECASE
)
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


def tails(below: PurePosixPath) -> list[str]:
    """Returns all ends of a path, long ones first, such as a/b.jpg and b.jpg, also without folders such as images."""
    ends = (parts[i:] for parts in (below.parts, without_parts(below).parts) for i in range(len(parts)))
    return sorted({"/".join(end) for end in ends}, key=len, reverse=True)


def without_parts(below: PurePosixPath) -> PurePosixPath:
    """Returns a path without folders that only say what a file is; of train_masks the word train remains.

    Args:
      below: path below the folder of images or masks.
    """
    return PurePosixPath(*(rest for _, rest in map(_part_and_rest, below.parent.parts) if rest), below.name)


def _part_and_rest(folder: str) -> tuple[str, str]:
    """Returns what the files of a folder are ("" if its name does not say), and what else the name says."""
    if folder.casefold() in _PARTS:
        return _PARTS[folder.casefold()], ""
    named = _SPLIT_PART.fullmatch(folder)
    return (_PARTS[named["part"].casefold()], named["split"]) if named else ("", folder)


def plain_path(below: PurePosixPath, end: str) -> PurePosixPath:
    """Returns a path without folders that only say what a file is, and without its suffixes.

    Args:
      below: path below the folder of images or masks.
      end: end of the name that is left out, too, if it is there.
    """
    return PurePosixPath(without_parts(below).parent, below.stem.removesuffix(end))


def path_key(below: PurePosixPath) -> str:
    """Returns a key that is equal for paths that differ only in case, Unicode form and folders such as images."""
    return name_key(str(without_parts(below)))


def files_below(folder: Path, flag: str) -> list[Found]:
    """Returns the files below a folder in the order of their names, without hidden ones and those of the system.

    Args:
      folder: the folder.
      flag: name of the flag that gives it, for error messages.

    Raises:
      InputError: if there is no such folder, or it cannot be read.
    """
    if folder.is_file():
        raise InputError(f"{flag}={folder} is a file; expected a folder: unpack an archive first")
    if not folder.is_dir():
        raise InputError(no_file(folder, "folder", f"correct {flag}"))
    found: list[Found] = []
    for name, path in walk(folder):
        below = PurePosixPath(name)
        # Hidden files are no photographs: macOS writes ._a.jpg beside a.jpg.
        if any(part.startswith(".") or part in _SYSTEM for part in below.parts):
            continue
        parts = [part for part, _ in map(_part_and_rest, below.parent.parts) if part]
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
    best = next((part for part in ("mask", "", "image") if any(file.part == part for file in candidates)), "")
    found_masks = [file for file in candidates if file.part == best]
    taken = {file.path for file in found_masks}
    pictures = [
        file
        for file in ours.values()
        if file.path not in taken
        and file.part != "objects"
        and file.below.suffix.lower() in PHOTOGRAPHS
        and file.below.stem.endswith(image_suffix)
    ]
    image_keys = {file.path: path_key(plain_path(file.below, image_suffix)) for file in pictures}
    mask_keys = {file.path: path_key(plain_path(file.below, mask_suffix)) for file in candidates}
    found_images = _photographs(pictures, shared, image_keys, set(mask_keys.values()))
    if not same:
        known = {image_keys[file.path] for file in found_images}
        found_masks = _with_other_masks(found_masks, candidates, known, mask_keys)
    objects = [file for file in theirs.values() if file.part == "objects" and file.below.suffix.lower() in PICTURES]
    used = {file.path for file in (*found_images, *found_masks, *objects)}
    others = [file for path, file in {**ours, **theirs}.items() if file.path not in used]
    if not found_images:
        hint = "; photographs in another folder: --images=FOLDER --masks=" + str(masks) if same and candidates else ""
        raise InputError(_nothing("photograph", images, "--images", image_suffix, PHOTOGRAPHS) + hint)
    if not found_masks:
        hint = "; masks in the same folder need --mask_suffix, such as --mask_suffix=_mask" if same else ""
        expected = [kind for kind in kinds if kind not in _LOSSY]
        raise InputError(_nothing("mask", masks, "--masks", mask_suffix, expected) + hint)
    return Folders(found_images, found_masks, objects, others, shared, image_suffix, mask_suffix)


def _photographs(pictures: Sequence[Found], shared: bool, keys: Mapping[Path, str], mask_keys: Set[str]) -> list[Found]:
    """Returns which pictures in the folder of the photographs are photographs.

    Args:
      pictures: the pictures.
      shared: as in `Folders`.
      keys: path of every picture below its folder, without folders such as images.
      mask_keys: the same of the masks.
    """
    plain = [file for file in pictures if file.part != "mask"]
    if shared:
        return [file for file in plain if file.part == "image"] or plain
    # A folder that is called masks holds photographs if the separate masks repeat its name, and none are beside it.
    others = [file for file in pictures if file.part == "mask" and keys[file.path] in mask_keys]
    is_export = {keys[file.path] for file in plain} & {keys[file.path] for file in others}
    return plain if is_export else [*plain, *others]


def _with_other_masks(
    masks: list[Found], candidates: Sequence[Found], image_keys: Set[str], keys: Mapping[Path, str]
) -> list[Found]:
    """Returns the masks in a separate folder, with those in folders such as images that a photograph lies in, too.

    Args:
      masks: masks that are certain.
      candidates: all files that may be masks.
      image_keys: paths of the photographs below their folder, without folders such as images.
      keys: the same of every candidate.
    """
    for part in ("", "image"):
        more = [file for file in candidates if file.part == part != masks[0].part]
        # An export may hold photographs or drawings beside its masks, under the same names.
        if not {keys[file.path] for file in more} & {keys[file.path] for file in masks}:
            masks = [*masks, *(file for file in more if keys[file.path] in image_keys)]
    return masks


def _is_mask(file: Found, mask_suffix: str, same: bool, kinds: Sequence[str]) -> bool:
    suffix = file.below.suffix.lower()
    if suffix not in kinds or file.part == "objects" or file.below.name in _NO_MASKS:
        return False
    if file.part == "image" and (suffix in _LOSSY or (same and suffix != ".json")):
        return False
    is_marked = not same or bool(mask_suffix) or file.part == "mask" or suffix == ".json"
    return is_marked and file.below.stem.endswith(mask_suffix)


def _nothing(kind: str, folder: Path, flag: str, end: str, suffixes: Sequence[str]) -> str:
    named = f" whose name ends with '{end}' before the suffix" if end else ""
    return f"{flag}={folder} has no {kind}{named}; expected files that end in {', '.join(suffixes)}"
