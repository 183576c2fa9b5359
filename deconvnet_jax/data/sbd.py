"""The annotations of SBD (Hariharan et al., 2011): MATLAB files cls/NAME.mat and inst/NAME.mat."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.mat_files import read_mat

_MAX_INSTANCES = 254


def read_class_mat(file: str | Path | BinaryIO) -> np.ndarray:
    """GTcls.Segmentation: class ids of VOC, 0 = background; uint8 [H, W].

    Raises:
      InputError: if the file is damaged or has another content.
    """
    return _mask(_struct(file, "GTcls"), file, "GTcls")


def read_instance_mat(file: str | Path | BinaryIO) -> tuple[np.ndarray, np.ndarray]:
    """GTinst: the objects' numbers, uint8 [H, W], 0 = background, and the class of objects 1, 2, ..., int64 [n].

    Raises:
      InputError: if the file is damaged, has another content, or more objects than classes for them.
    """
    struct = _struct(file, "GTinst")
    numbers = _mask(struct, file, "GTinst")
    try:
        categories = np.asarray(struct["Categories"]).astype(np.int64).ravel()
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{file}: GTinst has no Categories, the objects' classes; get SBD again") from error
    if numbers.max(initial=0) > min(len(categories), _MAX_INSTANCES):
        raise InputError(
            f"{file}: GTinst has an object {numbers.max()}, but {len(categories)} Categories; get SBD again"
        )
    return numbers, categories


def read_sbd(
    class_file: str | Path | BinaryIO, instance_file: str | Path | BinaryIO, num_classes: int = 21
) -> tuple[np.ndarray, np.ndarray]:
    """Class ids and object numbers of one image, uint8 [H, W] each.

    Raises:
      InputError: if a file is not usable, or they contradict each other.
    """
    label = read_class_mat(class_file)
    instances, categories = read_instance_mat(instance_file)
    if label.shape != instances.shape:
        raise InputError(
            f"{instance_file} is {instances.shape[1]}x{instances.shape[0]} pixels, but {class_file} is "
            f"{label.shape[1]}x{label.shape[0]}; get SBD again"
        )
    unknown = np.setdiff1d(np.concatenate([np.unique(label), categories]), np.arange(num_classes))
    if len(unknown):
        raise InputError(f"{class_file} or {instance_file} has class {unknown[0]}; expected 0 to {num_classes - 1}")
    return label, instances


def _struct(file: str | Path | BinaryIO, name: str) -> np.void:
    found = read_mat(file, name, "get SBD again")
    if found.dtype.names is None or found.shape != (1, 1):
        raise InputError(f"{file} is no MATLAB file with {name} (it is no struct); get SBD again")
    return found[0, 0]


def _mask(struct: np.void, file: str | Path | BinaryIO, name: str) -> np.ndarray:
    try:
        mask = struct["Segmentation"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{file}: {name} has no Segmentation; get SBD again") from error
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size:
        got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError(f"{file}: {name}.Segmentation is {got}; expected uint8 [H, W]")
    return mask
