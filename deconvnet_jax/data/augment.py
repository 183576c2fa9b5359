"""Random crops and mirroring; image and label always share them (original: data_transformer.cpp)."""

import numpy as np


def crop_place(size: int, crop: int, rng: np.random.Generator | None) -> tuple[int, int]:
    """Top and left of a crop x crop part of a size x size square: uniformly random, or the centre without `rng`."""
    if rng is None:
        return (size - crop) // 2, (size - crop) // 2
    top, left = rng.integers(0, size - crop + 1, 2).tolist()
    return top, left


def random_mirror(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3] and label [H, W], in half of the cases mirrored left to right."""
    return (image[:, ::-1], label[:, ::-1]) if rng.random() < 0.5 else (image, label)
