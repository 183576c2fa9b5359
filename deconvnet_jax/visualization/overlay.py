"""A label map laid over its photograph."""

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.images import check_image
from deconvnet_jax.labels import check_label_map, colored, is_ignored

CONTOUR = 255  # white


def overlay(image: np.ndarray, labels: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """The photograph with every class in its colour and thin white contours between them.

    Background (class 0) and ignored pixels (255, in uint16 65535) stay as they are. `legend` draws the
    names to go with it.

    Args:
      image: uint8 RGB [H, W, 3].
      labels: uint8 or uint16 [H, W].
      alpha: share of the class colour, 0..1.

    Returns:
      uint8 RGB [H, W, 3], a new array.

    Raises:
      InputError: for other arrays, sizes that differ, or another alpha.
    """
    check_pair(image, labels)
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is the share of the class colour, 0 to 1; got {alpha}")
    objects = np.where(is_ignored(labels), 0, labels)
    mask = objects > 0
    blended = image.copy()
    colors = colored(objects[mask])
    blended[mask] = np.rint((1 - alpha) * image[mask] + alpha * colors).astype(np.uint8)
    blended[_contours(objects)] = CONTOUR
    return blended


def check_pair(image: np.ndarray, labels: np.ndarray) -> None:
    """Raises InputError unless the image is uint8 [H, W, 3] and the labels uint8 or uint16 [H, W]."""
    check_image(image)
    check_label_map(labels)
    if labels.shape != image.shape[:2]:
        raise InputError(
            f"the labels are {labels.shape[0]}x{labels.shape[1]} (height x width), the image is "
            f"{image.shape[0]}x{image.shape[1]}; resize one to the other"
        )


def _contours(objects: np.ndarray) -> np.ndarray:
    """Pixels with a lower id beside, above or below: lines one pixel wide, never on the background."""
    padded = np.pad(objects, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.minimum.reduce(neighbours) < objects
