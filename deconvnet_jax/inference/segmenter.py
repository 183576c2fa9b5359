"""Photograph in, label map out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deconvnet_jax.data import VOC_CLASSES, crop_window, image_box
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference.sampling import sample_scores
from deconvnet_jax.models import DeconvNet, FCN8s, compiler_options
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.weights import load_checkpoint, network_from_caffe

DECONVNET_INPUT_SIZE = 224
FCN8S_INPUT_SIZE = 500  # all images of VOC fit into it (original: cache_FCN8s_results.m)
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

    A photograph is shown in one window. To a DeconvNet: the square around it, black beyond its borders, resized to the
    network's input. To an FCN-8s: its own pixels in the upper left corner of the input, the rest the mean colour, as in
    the original; only a photograph that is larger than the input is reduced.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits`, contract as `models.DeconvNet`.
      variables: of the network, on the device that is to compute.
      class_names: in the order of the ids.
      input_size: side of the network's input.
    """

    net: nn.Module
    variables: chex.ArrayTree
    class_names: tuple[str, ...]
    input_size: int = DECONVNET_INPUT_SIZE

    @classmethod
    def from_checkpoint(cls, path: str | Path, step: int | None = None) -> "Segmenter":
        """The network of a training run; by default its best step.

        Raises:
          InputError: if there is no checkpoint, no such step, or the folder is not one of this project's.
        """
        return cls.from_loaded(*load_checkpoint(path, step))

    @classmethod
    def from_caffe(cls, path: str | Path, class_names: Sequence[str] | None = None) -> "Segmenter":
        """A DeconvNet or FCN-8s from a caffemodel that was made for inference.

        Args:
          path: DeconvNet_trainval_inference.caffemodel, fcn-8s-pascal.caffemodel, ...
          class_names: in the order of the ids; by default VOC's for 21 classes, else "class 0", "class 1", ...

        Raises:
          InputError: if the file is neither, is damaged, or is a snapshot of training: batch statistics are missing.
        """
        net, variables, info = network_from_caffe(path)
        names = list(class_names or default_class_names(net.num_classes))
        return cls.from_loaded(net, variables, {**info, "config": {}, "class_names": names})

    @classmethod
    def from_loaded(cls, net: nn.Module, variables: chex.ArrayTree, info: dict[str, Any]) -> "Segmenter":
        """From what `weights.load_checkpoint` returns; the input has the size that the network was trained with.

        Raises:
          InputError: if the network's batch statistics were never measured.
        """
        if info.get("batch_statistics") == "unknown":
            raise InputError(
                "the statistics of this network's batch normalisation are not known: it was trained in Caffe, which "
                "keeps none, or not trained yet; measure them: python -m experiments.calibrate_bn --checkpoint=..."
            )
        size = info["config"].get("data", {}).get("crop_size", default_input_size(net))
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
            boxes = [self._box(*image.shape[:2]) for image in group]
            for image, box, scores in zip(group, boxes, self._window_scores(group, boxes, batch_size), strict=True):
                yield _result(scores, box, *image.shape[:2])

    def _box(self, height: int, width: int) -> np.ndarray:
        if isinstance(self.net, FCN8s):
            side = max(self.input_size, height, width)
            return np.array([0, 0, side, side], np.float64)
        return image_box(height, width)

    def _window_scores(self, images: list[np.ndarray], boxes: list[np.ndarray], batch_size: int) -> np.ndarray:
        """Score maps float32 [len(images), S, S, K]; the batch is filled up, so that the network compiles once."""
        size = self.input_size
        crops = np.zeros((batch_size, size, size, 3), np.uint8)
        for crop, image, box in zip(crops, images, boxes, strict=False):
            crop[:] = crop_window(image, None, box, size)[0]
        inputs = [crops]
        if isinstance(self.net, FCN8s):
            extents = np.zeros((batch_size, 2), np.int32)
            extents[: len(images)] = [_extent(image, box, size) for image, box in zip(images, boxes, strict=True)]
            inputs.append(extents)
        scores = np.asarray(_score_function(self.net)(self.variables, *inputs))[: len(images)]
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


def default_input_size(net: nn.Module) -> int:
    """Side of the input that the original gives the network; that of a DeconvNet with another fc6 is what fc6 sees."""
    if isinstance(net, FCN8s):
        return FCN8S_INPUT_SIZE
    return net.min_input_size if isinstance(net, DeconvNet) else DECONVNET_INPUT_SIZE


def default_class_names(count: int) -> tuple[str, ...]:
    """VOC's names for VOC's number of classes, else "class 0", "class 1", ..."""
    return VOC_CLASSES if count == len(VOC_CLASSES) else tuple(f"class {i}" for i in range(count))


def _extent(image: np.ndarray, box: np.ndarray, size: int) -> list[int]:
    """How many rows and columns of a window of `size` pixels show the image, which begins where the window does."""
    centres = (np.arange(size) + 0.5) * (box[2] - box[0]) / size
    return [int(np.sum(centres < side)) for side in image.shape[:2]]


@lru_cache(maxsize=4)
def _score_function(net: nn.Module) -> Callable[..., Array]:
    """The jitted network, shared by all segmenters of equal nets: a new set of variables compiles nothing."""

    def scores(variables: chex.ArrayTree, crops: Array, extents: Array | None = None) -> Array:
        """Of uint8 RGB crops [N, S, S, 3]; with extents [N, 2] what is beyond these heights and widths is the mean."""
        images = normalize_images(crops)
        if extents is not None:
            rows, columns = (jnp.arange(crops.shape[1]) < extents[:, i, None] for i in range(2))
            images = jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], images, 0)
        return net.apply(variables, images, train=False)

    return jax.jit(scores, compiler_options=compiler_options())


def _result(scores: np.ndarray, box: np.ndarray, height: int, width: int) -> Result:
    in_image = sample_scores(scores, box, height, width)
    labels = np.argmax(in_image, axis=-1).astype(np.uint8)
    return Result(labels, in_image, box[None].astype(np.float32))
