"""Many small pictures on one page."""

from collections.abc import Sequence

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import is_ignored
from deconvnet_jax.visualization.overlay import overlay
from deconvnet_jax.visualization.panel import GAP, PAPER, class_legend, side_by_side

HATCH = (255, 64, 255)  # over ignored pixels: no class of a photograph looks like it
_HATCH_PERIOD = 8


def contact_sheet(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    titles: Sequence[str],
    class_names: Sequence[str],
    columns: int = 6,
) -> np.ndarray:
    """Pictures in rows, their classes laid over them and ignored pixels hatched, with the classes' names at the end.

    Args:
      images: uint8 RGB [H, W, 3], all of one size.
      labels: uint8 [H, W], class ids and 255 = ignored; or uint16, 65535 = ignored.
      titles: one text a picture.
      class_names: in the order of the ids.
      columns: pictures in a row.

    Returns:
      uint8 RGB [H', W', 3].

    Raises:
      InputError: if there is no picture, numbers or sizes differ, or an id has no name.
    """
    if columns < 1:
        raise InputError(f"columns={columns}: expected at least 1")
    if not len(images) == len(labels) == len(titles) or not len(images):
        raise InputError(
            f"expected pictures, labels and titles, one each; got {len(images)}, {len(labels)}, {len(titles)}"
        )
    shown = [_hatched(overlay(image, label), label) for image, label in zip(images, labels, strict=True)]
    rows = [
        side_by_side(shown[start : start + columns], titles[start : start + columns])
        for start in range(0, len(shown), columns)
    ]
    width = rows[0].shape[1]
    ids = np.unique(np.concatenate([np.unique(label) for label in labels]))
    key = class_legend(ids, class_names, rows[0].shape[0])
    page = np.concatenate([_widened(row, max(width, row.shape[1])) for row in rows])
    return np.concatenate([page, _heightened(key, page.shape[0])], axis=1)


def _hatched(picture: np.ndarray, label: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(label.shape)
    lines = (rows + columns) % _HATCH_PERIOD == 0
    picture[lines & is_ignored(label)] = HATCH
    return picture


def _widened(picture: np.ndarray, width: int) -> np.ndarray:
    return np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=PAPER[0])


def _heightened(picture: np.ndarray, height: int) -> np.ndarray:
    """On paper of that height or more, with a margin at the right."""
    missing = max(0, height - picture.shape[0])
    return np.pad(picture, ((0, missing), (0, GAP), (0, 0)), constant_values=PAPER[0])
