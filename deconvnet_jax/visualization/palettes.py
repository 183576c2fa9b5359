"""Colours of classes in pictures: VOC's, or a palette that colour-blind people can read."""

import numpy as np

from deconvnet_jax.errors import InputError, did_you_mean
from deconvnet_jax.labels import colored, is_ignored

PALETTES = ("voc", "colour_blind")

# The seven colours of Okabe and Ito that are neither black nor white: "Color Universal Design" (2008), recommended by
# Wong, "Points of view: Color blindness", Nature Methods 8, 441 (2011).
OKABE_ITO = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)],
    np.uint8,
)
HATCH = (255, 64, 255)  # Colour of the lines over ignored pixels; photographs hardly contain it.
_PERIOD = 8  # pixels between two lines, in pictures of up to `_SIDE` pixels; larger ones have wider lines
_SIDE = 640
_PATTERNS = 6  # plain, diagonals, dots, rows, crossed diagonals, the other diagonals


def check_palette(palette: str) -> None:
    """Raises InputError unless a palette is one of `PALETTES`."""
    if palette not in PALETTES:
        raise InputError(f"palette='{palette}': expected one of {', '.join(PALETTES)}{did_you_mean(palette, PALETTES)}")


def painted(labels: np.ndarray, palette: str) -> np.ndarray:
    """Returns a label map in the colours of its classes.

    "voc" is VOC's palette. "colour_blind" has the seven colours of Okabe and Ito, and black background.
    Every seven classes, a pattern of lines or dots is added, so 42 classes differ. Further classes repeat them.

    Args:
      labels: class ids, uint8 or uint16 [H, W]. Ignored pixels get VOC's cream colour in both palettes.
      palette: one of `PALETTES`.

    Returns:
      uint8 RGB [H, W, 3].

    Raises:
      InputError: if there is no such palette.
    """
    check_palette(palette)
    if palette == "voc":
        return colored(labels)
    objects = np.maximum(labels.astype(np.int64) - 1, 0)
    colors = OKABE_ITO[objects % len(OKABE_ITO)]
    patterns = np.where((labels > 0) & ~is_ignored(labels), objects // len(OKABE_ITO) % _PATTERNS, 0)
    dark = colors @ np.array([0.2126, 0.7152, 0.0722]) < 128
    colors = np.where((_lines(patterns) & dark)[..., None], 255, colors)
    colors = np.where((_lines(patterns) & ~dark)[..., None], 0, colors)
    colors[labels == 0] = 0
    colors[is_ignored(labels)] = colored(np.array(255))
    return colors.astype(np.uint8)


def hatched(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Returns a picture with diagonal lines in the colour `HATCH`, which mark ignored pixels.

    Args:
      picture: uint8 RGB [H, W, 3].
      where: bool [H, W], the ignored pixels.

    Returns:
      uint8 RGB [H, W, 3], a new array.
    """
    rows, columns = np.indices(where.shape)
    return np.where(((rows + columns) % _PERIOD == 0)[..., None] & where[..., None], np.array(HATCH, np.uint8), picture)


def _lines(patterns: np.ndarray) -> np.ndarray:
    """Returns which pixels belong to the lines or dots of their pattern.

    Args:
      patterns: number of the pattern of each pixel, int [H, W].

    Returns:
      bool [H, W].
    """
    rows, columns = np.indices(patterns.shape)
    scale = max(1, round(max(patterns.shape) / _SIDE))
    period, width = _PERIOD * scale, 2 * scale
    falling, rising = (rows - columns) % period < width, (rows + columns) % period < width
    dots = (rows % period < width + scale) & (columns % period < width + scale)
    return np.choose(patterns, [np.False_, rising, dots, rows % period < width, rising | falling, falling])
