"""Decides which mask belongs to which photograph, and how each image is called."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from deconvnet_jax.data.image_names import name_key
from deconvnet_jax.data.mask_files import PICTURES, Folders, Found, path_key, plain_path, tails
from deconvnet_jax.errors import InputError, counted

UNMATCHED = ("error", "skip", "background")


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


def pair_files(folders: Folders, unmatched: str) -> tuple[list[Pair], list[str]]:
    """Finds the mask of every photograph.

    A mask belongs to the photograph with the same path below its folder, without suffixes and without folders such as
    images or masks. If there is none, it belongs to the only photograph with the same name in any folder. If there is
    none either, an annotation of labelme belongs to the photograph that it names.

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
    names = _names([plain_path(file.below, image_suffix) for file in kept])
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
      InputError: if a mask fits several photographs, a photograph has several masks, or an annotation names another
        photograph than that of the same name.
    """
    by_tail: dict[str, list[Found]] = {}
    if any(file.below.suffix.lower() == ".json" for file in masks):
        for file in images:
            for tail in tails(file.below.with_suffix("")):
                by_tail.setdefault(name_key(tail), []).append(file)
    by_path: dict[str, list[Found]] = {}
    by_name: dict[str, list[Found]] = {}
    for file in images:
        whole, plain = path_key(file.below), path_key(plain_path(file.below, image_suffix))
        for key in {whole, plain}:
            by_path.setdefault(key, []).append(file)
            by_name.setdefault(key.split("/")[-1], []).append(file)
    found: dict[Path, Path] = {}
    lone: list[Found] = []
    names = Counter(path_key(plain_path(file.below, mask_suffix)).split("/")[-1] for file in masks)
    for file in masks:
        key = path_key(plain_path(file.below, mask_suffix))
        fitting = by_path.get(key, [])
        if not fitting and names[key.split("/")[-1]] == 1:
            fitting = by_name.get(key.split("/")[-1], [])
        if file.below.suffix.lower() == ".json":
            fitting = _named_by(file, fitting, by_tail)
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


def _named_by(file: Found, fitting: list[Found], by_tail: Mapping[str, list[Found]]) -> list[Found]:
    """Returns the photographs that a JSON file belongs to, by its name or by the `imagePath` of labelme.

    Args:
      file: the JSON file.
      fitting: photographs with its name.
      by_tail: photographs by all ends of their paths without suffixes.

    Raises:
      InputError: if its name and its `imagePath` belong to different photographs.
    """
    text = _json_object(file.path).get("imagePath")
    parts = PurePosixPath(text.replace("\\", "/")).parts if isinstance(text, str) else ()
    path = PurePosixPath(*(part for part in parts if part not in ("..", "/")))
    keys = [name_key(tail) for tail in tails(path.with_suffix(""))] if path.name else []
    # Paths without a photograph are left from before it was renamed.
    named = next((by_tail[key] for key in keys if key in by_tail), [])
    if not named or any(image in named for image in fitting):
        return fitting
    if fitting:
        raise InputError(
            f"{file.path} has the name of {fitting[0].path}, but its imagePath is that of {named[0].path}; correct "
            "imagePath, or rename the file"
        )
    return named


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
        same_name = name_key(plain_path(lone[0].below, folders.mask_suffix).name)
        other = next((file.path for file in folders.others if name_key(file.below.stem) == same_name), None)
        hint = f" (there is {other}, which is not read)" if other else _suggestion(folders)
        raise InputError(
            f"{len(lone)} of {len(folders.masks)} masks have no image, for example {lone[0].path}{hint}; add the "
            "images, correct the names or give --unmatched=skip"
        )


def _is_coco(path: Path) -> bool:
    return {"images", "annotations", "categories"} <= set(_json_object(path))


def _json_object(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one if there is none, which is an error when it is imported."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}


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
