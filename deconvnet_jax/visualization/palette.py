"""The colours of classes: VOC's colour map, and label maps stored with it."""

from pathlib import Path

import numpy as np
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import whole_file

IGNORE_LABEL = 255


def voc_palette(n: int = 256) -> np.ndarray:
    """The colour map of VOC, uint8 RGB [n, 3], n <= 256: 0 is black, 255 is (224, 224, 192).

    An id's bits 0, 3, 6 are the high bits of red from the top down, bits 1, 4, 7 those of green, 2, 5 those of blue.
    """
    ids = np.arange(n)
    colors = np.zeros((n, 3), np.uint8)
    for channel in range(3):
        for place in range(3):
            colors[:, channel] |= ((ids >> (3 * place + channel) & 1) << (7 - place)).astype(np.uint8)
    return colors


def check_labels(labels: np.ndarray) -> None:
    """Raises InputError unless the labels are uint8 [H, W] with a pixel at least."""
    if labels.ndim != 2 or labels.dtype != np.uint8 or not labels.size:
        raise InputError(
            f"expected a label map, uint8 [H, W], got {labels.dtype} {list(labels.shape)}; convert it with "
            "labels.astype(np.uint8), scores with scores.argmax(-1).astype(np.uint8)"
        )


def save_label_png(path: str | Path, labels: np.ndarray) -> None:
    """Writes labels uint8 [H, W] as VOC does: a PNG of mode P whose pixels are the ids, with VOC's colours.

    The file is written whole or not at all.

    Raises:
      InputError: for another array, a file name that does not end in .png (the ids would not survive as JPEG), or a
        file that cannot be written.
    """
    check_labels(labels)
    if Path(path).suffix.lower() != ".png":
        raise InputError(f"{path}: label maps are stored as PNG; let the name end in .png")
    image = Image.fromarray(labels)
    image.putpalette(voc_palette().tobytes())
    with whole_file(Path(path)) as temporary:
        image.save(temporary)
