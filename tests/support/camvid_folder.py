"""Writes a small CamVid in the folders of SegNet's tutorial."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def write_camvid(root: Path, rng: np.random.Generator, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Writes photographs of 48x36 pixels with masks, in a random order.

    Args:
      root: the folder to write.
      rng: source of the pixels and the order.
      counts: {split: number of photographs}.

    Returns:
      {name of the photograph: its mask}, uint8 [36, 48].
    """
    masks = {}
    for split, count in counts.items():
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for i in rng.permutation(count):
            name = f"{split}_{i:03d}"
            image = rng.integers(0, 256, (36, 48, 3), np.uint8)
            masks[name] = rng.integers(0, 12, (36, 48)).astype(np.uint8)
            masks[name][0, 0] = 255
            Image.fromarray(image).save(root / split / f"{name}.png")
            Image.fromarray(masks[name]).save(root / f"{split}annot" / f"{name}.png")
    return masks
