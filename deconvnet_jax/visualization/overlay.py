"""A label map drawn over its photograph."""

from collections.abc import Sequence

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.images import check_image
from deconvnet_jax.labels import check_label_map, is_ignored
from deconvnet_jax.visualization.palettes import painted
from deconvnet_jax.visualization.segment_names import write_names

CONTOUR = 255  # White.


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    alpha: float = 0.6,
    *,
    class_names: Sequence[str] | None = None,
    palette: str = "voc",
) -> np.ndarray:
    """Returns the photograph with every class in its colour and thin white contours between classes.

    Background (class 0) and ignored pixels (255; 65535 in uint16) stay as they are. `class_legend` draws a legend of
    the colours.

    Args:
      image: uint8 RGB [H, W, 3].
      labels: class ids, uint8 or uint16 [H, W].
      alpha: weight of the class colour, from 0 (only the photograph) to 1 (only the colour).
      class_names: names in the order of the ids, to write on each segment that is large enough; None for no text.
      palette: the colours of the classes, "voc" or "colour_blind" (`palettes.painted`).

    Returns:
      uint8 RGB [H, W, 3], a new array.

    Raises:
      InputError: if an array has another shape or dtype, the sizes differ, `alpha` is not in 0..1, an id has no name,
        or there is no such palette.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.visualization import overlay
      >>> image = np.zeros((60, 80, 3), np.uint8)
      >>> labels = np.zeros((60, 80), np.uint8)
      >>> labels[20:40, 20:40] = 1  # dark red in VOC's palette
      >>> overlay(image, labels, alpha=0.5)[30, 30]
      array([64,  0,  0], dtype=uint8)
    """
    check_pair(image, labels)
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha={alpha}: expected the weight of the class colour, 0 to 1")
    objects = np.where(is_ignored(labels), 0, labels)
    mask = objects > 0
    blended = image.copy()
    colors = painted(labels, palette)[mask]
    blended[mask] = np.rint((1 - alpha) * image[mask] + alpha * colors).astype(np.uint8)
    blended[_contours(objects)] = CONTOUR
    return blended if class_names is None else write_names(blended, labels, class_names)


def check_pair(image: np.ndarray, labels: np.ndarray) -> None:
    """Raises InputError unless an image and its label map have valid formats and the same size.

    Args:
      image: uint8 RGB [H, W, 3].
      labels: uint8 or uint16 [H, W].
    """
    check_image(image)
    check_label_map(labels)
    if labels.shape != image.shape[:2]:
        raise InputError(
            f"the labels are {labels.shape[0]}x{labels.shape[1]} (height x width), the image is "
            f"{image.shape[0]}x{image.shape[1]}; resize one to the other"
        )


def _contours(objects: np.ndarray) -> np.ndarray:
    """Returns pixels with a lower id above, below or beside them: lines one pixel wide, never on the background."""
    padded = np.pad(objects, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.minimum.reduce(neighbours) < objects
