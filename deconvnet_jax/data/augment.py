"""Random sizes and places of crops, and mirroring; image and label share them (original: data_transformer.cpp)."""

import math

import numpy as np

from deconvnet_jax.errors import InputError

Range = tuple[float, float]


def check_zoom(zoom: Range) -> None:
    """Raises InputError unless these are two factors."""
    factors = zoom if isinstance(zoom, tuple | list) and len(zoom) == 2 else (None, None)
    numbers = all(isinstance(factor, int | float) for factor in factors)
    if not numbers or not 0.1 <= factors[0] <= factors[1] <= 10:
        raise InputError(f"data.zoom={zoom}: expected two factors, the smaller one first, between 0.1 and 10")


def zoomed_size(size: int, zoom: Range, rng: np.random.Generator) -> int:
    """The size times a random factor between these two; as often below their geometric mean as above."""
    low, high = zoom
    return round(size * math.exp(rng.uniform(math.log(low), math.log(high)))) if low < high else round(size * low)


def crop_place(
    size: int, crop: int, rng: np.random.Generator | None, shown: tuple[Range, Range] | None = None
) -> tuple[int, int]:
    """Top and left of a crop x crop part of a size x size square: uniformly random, or the centre without `rng`.

    Args:
      size: of the square; if it is smaller than the crop, the crop shows all of it, and what is around it.
      crop: size of the part.
      rng: of the place.
      shown: the rows and the columns of the square, from and to, that show the image. With them a random part shows
        nothing else where that is possible; where the image is smaller than the part, it shows all of the image.
    """
    if rng is None:
        return (size - crop) // 2, (size - crop) // 2
    if shown is None:
        low, high = sorted((0, size - crop))
        top, left = rng.integers(low, high + 1, 2).tolist()
        return top, left
    top, left = (_start_inside(*extent, crop, rng) for extent in shown)
    return top, left


def _start_inside(begin: float, end: float, crop: int, rng: np.random.Generator) -> int:
    low, high = sorted((begin, end - crop))
    # A pixel shows the image if its centre does.
    return int(rng.integers(math.ceil(low - 0.5), math.ceil(high - 0.5) + 1))


def random_mirror(image: np.ndarray, label: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image [H, W, 3] and label [H, W], in half of the cases mirrored left to right."""
    return (image[:, ::-1], label[:, ::-1]) if rng.random() < 0.5 else (image, label)
