"""Random crops and mirroring; image and label always share them (original: data_transformer.cpp)."""

import numpy as np


def random_crop(
    image: np.ndarray, label: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A size x size part of image [H, W, 3] and label [H, W] at a uniformly random place."""
    top, left = rng.integers(0, image.shape[0] - size + 1), rng.integers(0, image.shape[1] - size + 1)
    return _cut(image, label, top, left, size)


def center_crop(image: np.ndarray, label: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The size x size part in the middle of image [H, W, 3] and label [H, W]."""
    return _cut(image, label, (image.shape[0] - size) // 2, (image.shape[1] - size) // 2, size)


def random_mirror(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3] and label [H, W], in half of the cases mirrored left to right."""
    return (image[:, ::-1], label[:, ::-1]) if rng.random() < 0.5 else (image, label)


def _cut(image: np.ndarray, label: np.ndarray, top: int, left: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    return image[top : top + size, left : left + size], label[top : top + size, left : left + size]
