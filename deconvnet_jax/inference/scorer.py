"""The scores of whole images by one network: which windows it is shown, and in which batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import chex
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from deconvnet_jax.inference import windows
from deconvnet_jax.inference.proposal_batch import (
    Canvas,
    canvas_scores,
    check_classes,
    crop_windows,
    empty_canvas,
    fold_scores,
    fold_windows,
    network_scores,
    padded_size,
)
from deconvnet_jax.inference.settings import InferenceSettings
from deconvnet_jax.models import FCN8s


class DeviceImage(NamedTuple):
    """An image on the device.

    Attributes:
      pixels: uint8 RGB [Hp, Wp, 3], padded (`padded_size`).
      extent: int32 [2], height and width of the image itself.
    """

    pixels: Array
    extent: Array


def device_image(image: np.ndarray) -> DeviceImage:
    """Pads an image, uint8 RGB [H, W, 3], and hands it to the device."""
    height, width = image.shape[:2]
    padded = np.zeros((*padded_size(height, width), 3), np.uint8)
    padded[:height, :width] = image
    return DeviceImage(jnp.asarray(padded), jnp.asarray((height, width), jnp.int32))


@dataclass(frozen=True, eq=False)
class Scorer:
    """One network that is shown windows of images.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits`, contract as `models.DeconvNet`.
      variables: of the network.
      num_classes: K.
      input_size: side of the network's input.
      settings: of the segmentation. An FCN-8s sees whole images whatever the mode.
    """

    net: nn.Module
    variables: chex.ArrayTree
    num_classes: int
    input_size: int
    settings: InferenceSettings

    @property
    def needs_proposals(self) -> bool:
        """Whether its windows are proposals."""
        return self.settings.mode in ("paper", "released") and not self._sees_corner

    @property
    def has_one_window(self) -> bool:
        """Whether it sees every image in a single window."""
        return self.settings.mode == "whole_image" or self._sees_corner

    def windows(self, height: int, width: int, proposals: np.ndarray | None) -> np.ndarray:
        """The windows of an image of this size, float32 [n, 4]; of `proposals` [m, 4], best first, if it needs them."""
        settings = self.settings
        if self._sees_corner:
            return windows.corner_window(height, width, self.input_size)
        if settings.mode == "paper":
            return windows.paper_windows(proposals, settings.num_proposals, settings.enlarge)
        if settings.mode == "released":
            return windows.released_windows(proposals, settings.num_proposals, settings.enlarge)
        if settings.mode == "sliding_window":
            return windows.sliding_windows(height, width, self.input_size)
        return windows.whole_window(height, width)

    def score(self, image: DeviceImage, boxes: np.ndarray) -> Array:
        """Shows the network windows of one image, a batch at a time; does not wait for the device.

        Args:
          image: on the device.
          boxes: float32 [n, 4], the windows.

        Returns:
          float32 [Hp, Wp, K], 0 where no window is.

        Raises:
          InputError: if the network scores another number of classes.
        """
        settings = self.settings
        batch = min(settings.batch_size, settings.num_proposals) if self.needs_proposals else settings.batch_size
        canvas = self._empty_canvas(image)
        filled = np.tile(np.float32([0, 0, 1, 1]), (-(-len(boxes) // batch) * batch, 1))
        filled[: len(boxes)] = boxes
        valid = np.arange(len(filled)) < len(boxes)
        for start in range(0, len(filled), batch):
            chunk = slice(start, start + batch)
            canvas = fold_windows(
                self.net,
                self.variables,
                *image,
                jnp.asarray(filled[chunk]),
                jnp.asarray(valid[chunk]),
                canvas,
                size=self.input_size,
                aggregation=settings.aggregation,
                flip=settings.flip,
                antialias=self._is_released,
                shift=1.0 if self._is_released else 0.0,
            )
        return canvas_scores(canvas, settings.aggregation)

    def score_group(self, images: Sequence[DeviceImage], boxes: Sequence[np.ndarray], batch: int) -> list[Array]:
        """As `score`, of images of any sizes that have one window each: they share a batch.

        Args:
          images: at most `batch`.
          boxes: float32 [1, 4] of every image.
          batch: is filled up, so that the network compiles once.
        """
        outside = "mean" if self._sees_corner else "black"
        boxes = [jnp.asarray(box) for box in boxes]
        crops = [crop_windows(*image, box, self.input_size, outside) for image, box in zip(images, boxes, strict=True)]
        crops += [jnp.zeros_like(crops[0])] * (batch - len(crops))
        scores = network_scores(self.net, self.settings.flip)(self.variables, jnp.concatenate(crops))
        check_classes(scores, self.num_classes)
        folded = []
        for image, box, found in zip(images, boxes, jnp.split(scores, batch), strict=False):
            canvas = fold_scores(self._empty_canvas(image), found, box, jnp.ones(1, bool))
            folded.append(canvas_scores(canvas, "max"))
        return folded

    def _empty_canvas(self, image: DeviceImage) -> Canvas:
        settings = self.settings
        return empty_canvas(*image.pixels.shape[:2], self.num_classes, settings.aggregation, clip=self._is_released)

    @property
    def _sees_corner(self) -> bool:
        return isinstance(self.net, FCN8s)

    @property
    def _is_released(self) -> bool:
        return self.settings.mode == "released" and not self._sees_corner
