"""Defines label maps: their dtype, their colours, and how they are stored.

A label map holds one class id per pixel. It is uint8 for up to 255 classes and uint16 for more. The largest number of
the dtype (255 or 65535) marks ignored pixels.

`images` reads and checks the masks of data sets: `read_mask`, `check_mask_size`, `check_mask_ids`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet_jax.array_checks import check_is_array
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import as_path, not_written, whole_file
from deconvnet_jax.images import open_image

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
IGNORE = 255  # id of ignored pixels in uint8 label maps
IGNORE_16 = 65_535  # id of ignored pixels in uint16 label maps

Color = tuple[int, ...]


def label_type(num_classes: int) -> type[np.unsignedinteger]:
    """Returns the dtype of label maps with this number of classes: uint8 for up to 255 classes, uint16 for more.

    Raises:
      InputError: for more than 65,535 classes.

    Example:
      >>> from deconvnet_jax.labels import label_type
      >>> label_type(21).__name__, label_type(459).__name__
      ('uint8', 'uint16')
    """
    if num_classes <= np.iinfo(np.uint8).max:
        return np.uint8
    if num_classes <= np.iinfo(np.uint16).max:
        return np.uint16
    raise InputError(f"{num_classes} classes: label maps hold at most 65,535; merge classes")


def ignored_id(num_classes: int) -> int:
    """Returns the id of ignored pixels: 255 for up to 255 classes, 65535 for more.

    Raises:
      InputError: for more than 65,535 classes.
    """
    return int(np.iinfo(label_type(num_classes)).max)


def check_ignore_label(num_classes: int, ignore_label: int) -> None:
    """Raises InputError if the id of ignored pixels is 255 and 255 is also the id of a class.

    Args:
      num_classes: the number of classes; their ids are 0 to num_classes - 1.
      ignore_label: the id of ignored pixels.

    Raises:
      InputError: if `ignore_label` is 255 and there are more than 255 classes. No other id is checked.
    """
    if ignore_label == IGNORE < num_classes:
        raise InputError(
            f"ignore_label=255 is also the id of a class, because there are {num_classes} classes; expected an id that "
            f"no class has: give ignore_label={ignored_id(num_classes)}"
        )


def voc_palette(n: int = 256) -> np.ndarray:
    """Returns the colour map of PASCAL VOC: id 0 is black, id 255 is (224, 224, 192).

    Bits 0, 3, 6, ... of an id become the bits of red, from the highest bit down. Bits 1, 4, 7, ... become green, and
    bits 2, 5, 8, ... blue. Ids below 16,777,216 have different colours.

    Args:
      n: the number of ids.

    Returns:
      The colours of the ids 0 to n - 1, uint8 RGB [n, 3].

    Example:
      >>> from deconvnet_jax.labels import voc_palette
      >>> voc_palette(3).tolist()
      [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    ids = np.arange(n)
    colors = np.zeros((n, 3), np.uint8)
    for channel in range(3):
        for place in range(8):
            colors[:, channel] |= ((ids >> (3 * place + channel) & 1) << (7 - place)).astype(np.uint8)
    return colors


def colored(labels: np.ndarray) -> np.ndarray:
    """Returns the VOC colours of label ids.

    Args:
      labels: ids from 0, integers of any shape [...].

    Returns:
      uint8 RGB [..., 3].

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.labels import colored
      >>> colored(np.array([[0, 15]])).tolist()
      [[[0, 0, 0], [192, 128, 128]]]
    """
    return voc_palette(max(256, int(labels.max(initial=0)) + 1))[labels]


def is_ignored(labels: np.ndarray) -> np.ndarray:
    """Returns which pixels of a label map are ignored.

    Args:
      labels: class ids, uint8 or uint16 [...].

    Returns:
      bool [...]: True where a uint8 map holds 255, or a uint16 map 65535.
    """
    return labels == np.iinfo(labels.dtype).max


def check_label_map(labels: np.ndarray) -> None:
    """Raises InputError unless an array is a label map.

    Args:
      labels: must be uint8 or uint16 [H, W], with at least one pixel.

    Raises:
      InputError: for another shape or dtype, or an empty array.
    """
    check_is_array("the label map", labels)
    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16) or not labels.size:
        many = labels.dtype.kind in "iu" and labels.max(initial=0) > np.iinfo(np.uint8).max
        raise InputError(
            f"expected a label map, uint8 [H, W] (uint16 for more than 255 classes), got {labels.dtype} "
            f"{list(labels.shape)}; convert ids with labels.astype(np.{'uint16' if many else 'uint8'}), scores with "
            "scores.argmax(-1) first"
        )


def save_label_png(path: str | Path, labels: np.ndarray) -> None:
    """Writes a label map as a PNG whose pixels hold the class ids, whole or not at all.

    Args:
      path: the file, which is replaced if it exists; its name must end in .png, because JPEG would change the ids.
        Missing folders are made.
      labels: class ids, uint8 or uint16 [H, W]. A uint8 map also gets VOC's palette; uint16 becomes a 16-bit
        greyscale PNG.

    Raises:
      InputError: for an array of another shape or dtype, another suffix, or a file that cannot be written.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.images import read_mask
      >>> from deconvnet_jax.labels import save_label_png
      >>> save_label_png("labels.png", np.array([[0, 15], [15, 255]], np.uint8))
      >>> read_mask("labels.png").tolist()
      [[0, 15], [15, 255]]
    """
    check_label_map(labels)
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path} does not end in .png; label maps are stored as PNG: give a name that ends in .png")
    file = as_path(path)
    with not_written(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as temporary:
        label_image(labels).save(temporary)


def label_image(labels: np.ndarray) -> Image.Image:
    """Returns a Pillow image whose pixels hold the class ids.

    Args:
      labels: class ids, uint8 or uint16 [H, W].

    Returns:
      For uint8: an image of mode P with VOC's palette, as VOC stores its masks. For uint16: a 16-bit grey image.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.labels import label_image
      >>> label_image(np.zeros((2, 3), np.uint8)).mode
      'P'
    """
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(voc_palette().tobytes())
    return image


class Palettes:
    """Collector of the palettes of a data set's masks, which notices palettes that a program has sorted.

    Training uses the ids in the pixels, never the colours. But some ids are wrong if one id has different colours in
    two masks, or if VOC's colours are in another order than VOC's ids.
    """

    def __init__(self, class_names: Sequence[str]):
        """Starts without any mask.

        Args:
          class_names: the classes, in the order of their ids.
        """
        self._of_voc = {color: i for i, color in enumerate(map(tuple, voc_palette(len(class_names)).tolist()))}
        self._first: dict[int, tuple[Color, Path]] = {}
        self._warnings: dict[str, str] = {}

    def add(self, path: Path, label: np.ndarray) -> None:
        """Compares the palette of one mask with those before it and with VOC's.

        Args:
          path: the mask's file.
          label: its class ids, uint8 [H, W].
        """
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
                    "may have sorted one of the palettes, which changes ids; compare the masks and write the ids again",
                )
        misplaced = [i for i, color in colors.items() if self._of_voc.get(color, i) != i]
        if misplaced and all(color in self._of_voc for color in colors.values()):
            i = misplaced[0]
            self._warnings.setdefault(
                "order",
                f"class id {i} has the colour of VOC's id {self._of_voc[colors[i]]} in the palette of {path}: a "
                "program may have sorted the palette, which changes ids; compare the mask with its original and write "
                "the ids again",
            )

    def warnings(self) -> list[str]:
        """Returns the warnings about the masks so far: at most one about two colours, and one about the order."""
        return list(self._warnings.values())
