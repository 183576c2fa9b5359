"""The colours of classes: VOC's colour map, and label maps stored with it."""

from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import as_path, whole_file


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


def check_labels(labels: np.ndarray) -> None:
    """Raises InputError unless the labels are uint8 or uint16 [H, W] with at least one pixel."""
    if labels.ndim != 2 or labels.dtype not in (np.uint8, np.uint16) or not labels.size:
        many = labels.dtype.kind in "iu" and labels.max(initial=0) > np.iinfo(np.uint8).max
        raise InputError(
            f"expected a label map, uint8 [H, W] (uint16 for more than 255 classes), got {labels.dtype} "
            f"{list(labels.shape)}; convert ids with labels.astype(np.{'uint16' if many else 'uint8'}), scores with "
            "scores.argmax(-1) first"
        )


def save_label_png(path: str | Path, labels: np.ndarray) -> None:
    """Writes a label map as a PNG whose pixels are the ids.

    Labels uint8 [H, W] are written as VOC does, in mode P with VOC's colours; uint16 [H, W] in 16 bits of grey.

    The file is written whole or not at all.

    Raises:
      InputError: for another array, a file name that does not end in .png (the ids would not survive as JPEG), or a
        file that cannot be written.
    """
    check_labels(labels)
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: label maps are stored as PNG; let the name end in .png")
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(voc_palette().tobytes())
    with whole_file(as_path(path)) as temporary:
        image.save(temporary)
