"""Which numbers stand in a label map: 8 bits for up to 255 classes, else 16; the largest one marks ignored pixels."""

import numpy as np

from deconvnet_jax.errors import InputError

IGNORED_OF_UINT8 = 255


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
    if ignore_label == IGNORED_OF_UINT8 < num_classes:
        raise InputError(
            f"ignore_label=255 is the id of a class when there are {num_classes}; expected an id that no class has: "
            f"give ignore_label={ignored_id(num_classes)}"
        )
