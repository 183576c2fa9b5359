"""The font of all pictures, and which names it can show."""

from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

_FILE = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@lru_cache
def font_of_size(size: int) -> ImageFont.FreeTypeFont:
    """Returns the font at a size in pixels. Matplotlib ships it, so it need not be installed."""
    return ImageFont.truetype(_FILE, size)


def drawable(name: str, class_id: int) -> str:
    """Returns the name of a class as pictures show it.

    Args:
      name: the name.
      class_id: its id.

    Returns:
      The name; "class ID" if the font lacks one of its characters. DejaVu Sans has Latin, Greek, Cyrillic, Arabic and
      others, but no Chinese, Japanese or Korean.
    """
    return name if all(ord(character) in _characters() for character in name) else f"class {class_id}"


@lru_cache
def _characters() -> frozenset[int]:
    return frozenset(FT2Font(str(_FILE)).get_charmap())
