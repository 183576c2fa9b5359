"""Photograph in, label map out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import numpy as np
from jax import Array

from deconvnet_jax.data import crop_window, image_box
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference.sampling import sample_scores
from deconvnet_jax.models import compiler_options
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.weights import load_checkpoint

DEFAULT_INPUT_SIZE = 224
MIN_SIDE, MAX_SIDE = 8, 32_766  # the latter is what OpenCV's warpAffine takes


class Result(NamedTuple):
    """What a network sees in one image.

    Attributes:
      labels: uint8 [H, W], the class with the highest score.
      scores: float32 [H, W, K], the network's logits, resized to the image.
      boxes: float32 [n, 4], the windows it was shown: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
    """

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network with its variables, applied to whole photographs of any size.

    A photograph is shown in one window: the square around it, black beyond its borders, resized to the network's input.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits`, contract as `models.DeconvNet`.
      variables: of the network, on the device that is to compute.
      class_names: in the order of the ids.
      input_size: side of the network's input.
    """

    net: nn.Module
    variables: chex.ArrayTree
    class_names: tuple[str, ...]
    input_size: int = DEFAULT_INPUT_SIZE

    @classmethod
    def from_checkpoint(cls, path: str | Path, step: int | None = None) -> "Segmenter":
        """The network of a training run; by default its best step.

        Raises:
          InputError: if there is no checkpoint, no such step, or the folder is not one of this project's.
        """
        return cls.from_loaded(*load_checkpoint(path, step))

    @classmethod
    def from_loaded(cls, net: nn.Module, variables: chex.ArrayTree, info: dict[str, Any]) -> "Segmenter":
        """From what `weights.load_checkpoint` returns; the input has the size that the network was trained with."""
        size = info["config"].get("data", {}).get("crop_size", DEFAULT_INPUT_SIZE)
        return cls(net, variables, tuple(info["class_names"]), size)

    def __call__(self, image: np.ndarray) -> Result:
        """Segments one photograph, uint8 RGB [H, W, 3].

        Raises:
          InputError: for another array, or a side below 8 or above 32,766 pixels.
        """
        return next(self.segment([image], batch_size=1))

    def segment(self, images: Iterable[np.ndarray], batch_size: int = 8) -> Iterator[Result]:
        """Segments photographs of any sizes, `batch_size` at a time; results come in their order.

        Raises:
          InputError: as for a single image.
        """
        images = iter(images)
        while group := list(islice(images, batch_size)):
            for image in group:
                check_image(image)
            boxes = [image_box(*image.shape[:2]) for image in group]
            for image, box, scores in zip(group, boxes, self._window_scores(group, boxes, batch_size), strict=True):
                yield _result(scores, box, *image.shape[:2])

    def _window_scores(self, images: list[np.ndarray], boxes: list[np.ndarray], batch_size: int) -> np.ndarray:
        """Score maps float32 [len(images), S, S, K]; the batch is filled up, so that the network compiles once."""
        crops = np.zeros((batch_size, self.input_size, self.input_size, 3), np.uint8)
        for crop, image, box in zip(crops, images, boxes, strict=False):
            crop[:] = crop_window(image, None, box, self.input_size)[0]
        scores = np.asarray(_score_function(self.net)(self.variables, crops))[: len(images)]
        if scores.shape[-1] != len(self.class_names):
            raise InputError(
                f"the network scores {scores.shape[-1]} classes, but there are {len(self.class_names)} class names; "
                "give Segmenter one name for each"
            )
        return scores


def check_image(image: np.ndarray) -> None:
    """Raises InputError unless the image is uint8 RGB [H, W, 3] of a usable size."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        got = f"an array of shape {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            f"expected a colour image [height, width, 3], got {got}; convert grey or transparent pictures, "
            'for example with Pillow: np.asarray(picture.convert("RGB"))'
        )
    if image.dtype != np.uint8:
        raise InputError(
            f"expected uint8 values 0 to 255, got {image.dtype}; "
            "of an image with values 0 to 1 give (image * 255).round().astype(np.uint8)"
        )
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise InputError(
            f"the image is {width}x{height} pixels; expected sides of {MIN_SIDE} to {MAX_SIDE}: resize or crop it"
        )


@lru_cache(maxsize=4)
def _score_function(net: nn.Module) -> Callable[[chex.ArrayTree, np.ndarray], Array]:
    """The jitted network, shared by all segmenters of equal nets: a new set of variables compiles nothing."""

    def scores(variables: chex.ArrayTree, crops: Array) -> Array:
        return net.apply(variables, normalize_images(crops), train=False)

    return jax.jit(scores, compiler_options=compiler_options())


def _result(scores: np.ndarray, box: np.ndarray, height: int, width: int) -> Result:
    in_image = sample_scores(scores, box, height, width)
    labels = np.argmax(in_image, axis=-1).astype(np.uint8)
    return Result(labels, in_image, box[None].astype(np.float32))
