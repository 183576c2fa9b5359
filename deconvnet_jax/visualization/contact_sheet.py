"""A contact sheet: many small pictures on one page."""

from collections.abc import Sequence

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import is_ignored
from deconvnet_jax.visualization.overlay import overlay
from deconvnet_jax.visualization.palettes import hatched
from deconvnet_jax.visualization.panel import GAP, PAPER, class_legend, side_by_side


def contact_sheet(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    titles: Sequence[str],
    class_names: Sequence[str],
    columns: int = 6,
    palette: str = "voc",
) -> np.ndarray:
    """Returns one picture of many labelled images in rows, with a legend of the classes at the right.

    Each image is shown with its classes as an overlay and its ignored pixels hatched.

    Args:
      images: uint8 RGB [H, W, 3], all of one size.
      labels: one per image: uint8 [H, W], class ids and 255 for ignored; or uint16, 65535 for ignored.
      titles: one text per image.
      class_names: names in the order of the ids.
      columns: images per row, at least 1.
      palette: the colours of the classes, "voc" or "colour_blind" (`palettes.painted`).

    Returns:
      uint8 RGB [H', W', 3].

    Raises:
      InputError: if there is no image, numbers or sizes differ, an id has no name, or there is no such palette.

    Example:
      >>> import numpy as np
      >>> from PIL import Image
      >>> from deconvnet_jax.visualization import contact_sheet
      >>> images = [np.zeros((60, 80, 3), np.uint8)] * 3
      >>> labels = [np.ones((60, 80), np.uint8)] * 3
      >>> page = contact_sheet(images, labels, ["a", "b", "c"], ["background", "cat"], columns=2)
      >>> Image.fromarray(page).save("page.png")
    """
    if columns < 1:
        raise InputError(f"columns={columns}: expected at least 1")
    if not len(images) == len(labels) == len(titles) or not len(images):
        raise InputError(
            f"expected at least one picture, and one label map and title per picture; got {len(images)} pictures, "
            f"{len(labels)} label maps and {len(titles)} titles"
        )
    shown = [
        hatched(overlay(image, label, palette=palette), is_ignored(label))
        for image, label in zip(images, labels, strict=True)
    ]
    rows = [
        side_by_side(shown[start : start + columns], titles[start : start + columns])
        for start in range(0, len(shown), columns)
    ]
    width = rows[0].shape[1]
    ids = np.unique(np.concatenate([np.unique(label) for label in labels]))
    key = class_legend(ids, class_names, rows[0].shape[0], palette=palette, over_photograph=True)
    page = np.concatenate([_widened(row, max(width, row.shape[1])) for row in rows])
    return np.concatenate([page, _heightened(key, page.shape[0])], axis=1)


def _widened(picture: np.ndarray, width: int) -> np.ndarray:
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=PAPER[0])


def _heightened(picture: np.ndarray, height: int) -> np.ndarray:
    """Returns the picture on paper of at least this height, with a margin at the right."""
    missing = max(0, height - picture.shape[0])
    return np.pad(picture, ((0, missing), (0, GAP), (0, 0)), constant_values=PAPER[0])
