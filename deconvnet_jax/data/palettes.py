"""Notices masks whose palettes were sorted by a program: the picture is the same, the numbers are not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deconvnet_jax.data.scenes import voc_palette
from deconvnet_jax.data.voc_layout import IGNORE
from deconvnet_jax.images import open_image

Color = tuple[int, ...]


class Palettes:
    """The colours of the class ids in the masks of a folder.

    The ids in the pixels count, never the colours. But where one id has two colours, or VOC's colours are in another
    order than VOC's ids, some of the ids are wrong.
    """

    def __init__(self, class_names: Sequence[str]):
        self._of_voc = {tuple(voc_palette()[3 * i : 3 * i + 3]): i for i in range(len(class_names))}
        self._first: dict[int, tuple[Color, Path]] = {}
        self._warnings: dict[str, str] = {}

    def add(self, path: Path, label: np.ndarray) -> None:
        """Looks at one mask, whose ids are uint8 [H, W]."""
        if len(self._warnings) == 2:
            return
        with open_image(path) as image:
            palette = np.reshape((image.getpalette("RGB") or []) if image.mode == "P" else [], (-1, 3)).tolist()
        colors = {i: tuple(palette[i]) for i in np.unique(label).tolist() if i < len(palette) and i != IGNORE}
        for i, color in colors.items():
            first, where = self._first.setdefault(i, (color, path))
            if color != first:
                self._warnings.setdefault(
                    "two colours",
                    f"class id {i} has the colour {color} in the palette of {path}, but {first} in {where}: a program "
                    "may have sorted the palette of one, which changes the ids; compare them and write the ids again",
                )
        misplaced = [i for i, color in colors.items() if self._of_voc.get(color, i) != i]
        if misplaced and all(color in self._of_voc for color in colors.values()):
            i = misplaced[0]
            self._warnings.setdefault(
                "order",
                f"class id {i} has the colour of VOC's id {self._of_voc[colors[i]]} in the palette of {path}: a "
                "program may have sorted the palette, which changes the ids; compare it with its original and write "
                "the ids again",
            )

    def warnings(self) -> list[str]:
        """Returns what was noticed, at most one line of each kind."""
        return list(self._warnings.values())
