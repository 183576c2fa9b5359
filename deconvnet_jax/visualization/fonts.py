"""The font of all pictures."""

from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import ImageFont


@lru_cache
def font_of_size(size: int) -> ImageFont.FreeTypeFont:
    """Returns the font at a size in pixels. Matplotlib ships it, so it need not be installed."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
