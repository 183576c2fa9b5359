"""Recognises masks that nothing can be learned from, and explains numbers in masks that are no class ids."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE, VOC_CLASSES, voc_palette

_IMPORT = "python -m experiments.import_masks"
_HALVES = (127, 128, 254)  # numbers for "object" in masks of two values, besides 255
_MANY = 24  # Only smoothing or JPEG puts more different wrong numbers into one mask.
_SUSPICIOUS = 0.1  # share of the masks of a split that may hold only 0 and 255 without a warning


@dataclass
class SplitIds:
    """Ids in the masks of one split.

    Attributes:
      masks: number of masks.
      ids: all ids, 255 included.
      binary: names of the images whose masks hold both 0 and 255 and nothing else.
    """

    masks: int = 0
    ids: set[int] = field(default_factory=set)
    binary: list[str] = field(default_factory=list)

    def add(self, name: str, label: np.ndarray) -> None:
        """Adds the mask of one image.

        Args:
          name: image name.
          label: class ids, uint8 [H, W].
        """
        ids = set(np.flatnonzero(np.bincount(label.ravel(), minlength=1)).tolist())
        self.masks += 1
        self.ids |= ids
        if ids == {0, IGNORE}:
            self.binary.append(name)

    def warnings(self, split: str, class_names: Sequence[str]) -> list[str]:
        """Returns the warnings about masks that are usable but probably a mistake.

        Args:
          split: name of the split.
          class_names: class names in the order of their ids.
        """
        shown = self.ids - {IGNORE}
        if len(shown) == 1:
            name = class_names[min(shown)]
            return [f"the masks of the split '{split}' show only '{name}'; check them before training"]
        if len(self.binary) > _SUSPICIOUS * self.masks:
            return [
                f"{len(self.binary)} of {self.masks} masks of the split '{split}' hold only 0 and {IGNORE}, among them "
                f"that of '{self.binary[0]}', although others hold class ids, and {IGNORE} marks ignored pixels: save "
                f"mask // {IGNORE} if {IGNORE} marks the object there"
            ]
        return []


def check_ids(ids: set[int], where: str | Path, split: str, class_names: Sequence[str], trained: bool) -> None:
    """Raises InputError if nothing can be learned from the masks of a split.

    Args:
      ids: ids in the masks, 255 included.
      where: folder of the data, for the message.
      split: name of the split.
      class_names: class names in the order of their ids.
      trained: whether the split is trained on, which takes two classes.

    Raises:
      InputError: if the masks hold only 0 and 255, or no class at all, or with `trained` only one class.
    """
    shown, what = ids - {IGNORE}, f"{where}: the masks of the split '{split}'"
    if ids == {0, IGNORE}:
        name = class_names[1] if len(class_names) == 2 else "NAME"
        raise InputError(
            f"{what} hold only 0 and {IGNORE}, and {IGNORE} marks ignored pixels; expected class ids 0, 1, ...: import "
            f"them with {_IMPORT} --binary={name}, or save mask // {IGNORE}"
        )
    if not shown:
        raise InputError(
            f"{what} hold only {IGNORE}, which marks ignored pixels; expected class ids 0, 1, ...: export the masks "
            "again with class ids"
        )
    if trained and len(shown) == 1:
        one = min(shown)
        remedy = "write 1, 2, ... where objects are" if one == 0 else "write 0 where the background is"
        if one and IGNORE in ids:
            remedy += f", instead of {IGNORE}, which marks ignored pixels"
        raise InputError(
            f"{what} show only '{class_names[one]}' (id {one}), so a network would learn to predict it everywhere; "
            f"expected at least two classes: {remedy}"
        )


def is_trained_on(split: str, splits: Sequence[str]) -> bool:
    """Returns whether a split of packed data is probably trained on: by its name, or because there is no other.

    Args:
      split: name of the split.
      splits: names of all splits.
    """
    return split.startswith("train") or len(splits) == 1


def unknown_ids_remedy(label: np.ndarray, num_classes: int, named: bool = True) -> str:
    """Returns what to do about a mask that holds other numbers than class ids.

    Args:
      label: the numbers in the mask, uint8 [H, W].
      num_classes: number of classes; their ids are 0 to num_classes - 1.
      named: whether classes.txt names the classes. Without it they are VOC's.

    Returns:
      Advice for the end of an error message.
    """
    ids = np.setdiff1d(label, (0, IGNORE)).tolist()
    unknown = [i for i in ids if i >= num_classes]
    greys = _greys_of_voc()
    if len(unknown) > _MANY:
        return "that many numbers come from smoothing or JPEG; export the mask as PNG, without interpolation"
    if len(ids) == 1 and ids[0] in _HALVES:
        return f"if {ids[0]} marks the object, import the masks: {_IMPORT} --binary=NAME --threshold={ids[0]}"
    if all(i in greys for i in ids):
        return (
            f"these are the greys of VOC's colours, {unknown[0]} of id {greys[unknown[0]]}, so the mask was "
            f"converted to grey; use the coloured mask, with {_IMPORT} if it is no palette PNG"
        )
    if not named:
        return "without classes.txt the classes are VOC's; name yours there, one per line, background first"
    return "correct the mask, or name all classes in classes.txt"


def _greys_of_voc() -> dict[int, int]:
    """Returns the ids of VOC's masks by the greys that a conversion makes of their colours; the lowest id of a grey."""
    ids = [IGNORE, *reversed(range(len(VOC_CLASSES)))]
    converted = Image.fromarray(voc_palette()[ids][None]).convert("L")
    return dict(zip(np.array(converted)[0].tolist(), ids, strict=True))
