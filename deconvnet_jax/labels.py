"""Label maps: which numbers stand in them, the colours of the classes, and how they are stored.

A label map of up to 255 classes has 8 bits, of more classes 16; its largest number marks ignored pixels.

Masks of data sets are read and refused in `images`: `read_mask`, `check_mask_size`, `check_mask_ids`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import as_path, whole_file
from deconvnet_jax.images import open_image

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
IGNORE = 255  # the id of ignored pixels in label maps of 8 bits
IGNORE_16 = 65_535  # the same in label maps of 16 bits

Color = tuple[int, ...]


def label_type(num_classes: int) -> type[np.unsignedinteger]:
    """Returns the dtype of label maps with this number of classes: uint8 for up to 255 classes, uint16 beyond.

    Raises:
      InputError: for more than 65,535 classes.
    """
    if num_classes <= np.iinfo(np.uint8).max:
        return np.uint8
    if num_classes <= np.iinfo(np.uint16).max:
        return np.uint16
    raise InputError(f"{num_classes} classes: label maps hold at most 65,535; merge classes")


def ignored_id(num_classes: int) -> int:
    """Returns the id of ignored pixels in label maps of this number of classes: 255, or 65535 for more classes."""
    return int(np.iinfo(label_type(num_classes)).max)


def check_ignore_label(num_classes: int, ignore_label: int) -> None:
    """Raises InputError if 255, the usual id of ignored pixels, is also the id of a class."""
    if ignore_label == IGNORE < num_classes:
        raise InputError(
            f"ignore_label=255 is the id of a class when there are {num_classes}; expected an id that no class has: "
            f"give ignore_label={ignored_id(num_classes)}"
        )


def voc_palette(n: int = 256) -> np.ndarray:
    """Returns the colour map of VOC, uint8 RGB [n, 3]: 0 is black, 255 is (224, 224, 192).

    An id's bits 0, 3, 6, ... are the high bits of red from the top down, bits 1, 4, 7, ... those of green, the others
    those of blue. Ids below 16,777,216 have different colours.
    """
    ids = np.arange(n)
    colors = np.zeros((n, 3), np.uint8)
    for channel in range(3):
        for place in range(8):
            colors[:, channel] |= ((ids >> (3 * place + channel) & 1) << (7 - place)).astype(np.uint8)
    return colors


def colored(labels: np.ndarray) -> np.ndarray:
    """Returns the colours of label ids, integers [...] from 0: uint8 RGB [..., 3]."""
    return voc_palette(max(256, int(labels.max(initial=0)) + 1))[labels]


def is_ignored(labels: np.ndarray) -> np.ndarray:
    """Returns which pixels of a label map are ignored: those of 255 in uint8, of 65535 in uint16."""
    return labels == np.iinfo(labels.dtype).max


def check_label_map(labels: np.ndarray) -> None:
    """Raises InputError unless the labels are uint8 or uint16 [H, W] with at least one pixel."""
    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16) or not labels.size:
        many = labels.dtype.kind in "iu" and labels.max(initial=0) > np.iinfo(np.uint8).max
        raise InputError(
            f"expected a label map, uint8 [H, W] (uint16 for more than 255 classes), got {labels.dtype} "
            f"{list(labels.shape)}; convert ids with labels.astype(np.{'uint16' if many else 'uint8'}), scores with "
            "scores.argmax(-1) first"
        )


def save_label_png(path: str | Path, labels: np.ndarray) -> None:
    """Writes a label map as a PNG whose pixels are the ids (`label_image`), whole or not at all.

    Args:
      path: ends in .png.
      labels: uint8 or uint16 [H, W].

    Raises:
      InputError: for another array, a file name that does not end in .png (the ids would not survive as JPEG), or a
        file that cannot be written.
    """
    check_label_map(labels)
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: label maps are stored as PNG; let the name end in .png")
    with whole_file(as_path(path)) as temporary:
        label_image(labels).save(temporary)


def label_image(labels: np.ndarray) -> Image.Image:
    """Returns a label map as a picture whose pixels are the ids.

    Labels uint8 [H, W] have mode P and VOC's colours, as VOC stores them; uint16 [H, W] are 16 bits of grey.
    """
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(voc_palette().tobytes())
    return image


class Palettes:
    """The colours of the class ids in the masks of a folder; notices palettes that a program has sorted.

    The ids in the pixels count, never the colours. But where one id has two colours, or VOC's colours are in another
    order than VOC's ids, some of the ids are wrong.
    """

    def __init__(self, class_names: Sequence[str]):
        self._of_voc = {color: i for i, color in enumerate(map(tuple, voc_palette(len(class_names)).tolist()))}
        self._first: dict[int, tuple[Color, Path]] = {}
        self._warnings: dict[str, str] = {}

    def add(self, path: Path, label: np.ndarray) -> None:
        """Looks at one mask, whose ids are uint8 [H, W]."""
        if len(self._warnings) == 2:
            return
        with open_image(path) as image:
            palette = np.reshape((image.getpalette("RGB") or []) if image.mode == "P" else [], (-1, 3)).tolist()
        colors = {i: tuple(palette[i]) for i in np.unique(label).tolist() if i < len(palette) and i != IGNORE}
        for i, color in colors.items():
            first, where = self._first.setdefault(i, (color, path))
            if color != first:
                self._warnings.setdefault(
                    "two colours",
                    f"class id {i} has the colour {color} in the palette of {path}, but {first} in {where}: a program "
                    "may have sorted the palette of one, which changes the ids; compare them and write the ids again",
                )
        misplaced = [i for i, color in colors.items() if self._of_voc.get(color, i) != i]
        if misplaced and all(color in self._of_voc for color in colors.values()):
            i = misplaced[0]
            self._warnings.setdefault(
                "order",
                f"class id {i} has the colour of VOC's id {self._of_voc[colors[i]]} in the palette of {path}: a "
                "program may have sorted the palette, which changes the ids; compare it with its original and write "
                "the ids again",
            )

    def warnings(self) -> list[str]:
        """Returns what was noticed, at most one line of each kind."""
        return list(self._warnings.values())
