"""The scores of whole images by one network: which windows it is shown, and in which batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from deconvnet_jax.inference import windows
from deconvnet_jax.inference.devices import device_count, on_each, sharding_of
from deconvnet_jax.inference.proposal_batch import (
    Canvas,
    canvas_scores,
    check_classes,
    crop_windows,
    empty_canvas,
    fold_scores,
    fold_windows,
    greatest,
    network_scores,
    padded_size,
)
from deconvnet_jax.inference.settings import InferenceSettings
from deconvnet_jax.models import FCN8s


class DeviceImage(NamedTuple):
    """An image on the device, or one on each of several devices (`inference.devices`).

    Attributes:
      pixels: uint8 RGB [Hp, Wp, 3], padded (`padded_size`).
      extent: int32 [2], height and width of the image itself.
    """

    pixels: Array
    extent: Array


def device_image(*images: np.ndarray, mesh: Mesh | None = None) -> DeviceImage:
    """Pads images and hands one to each device.

    Args:
      *images: uint8 RGB [H, W, 3], at most one per device, all of one padded size. Where there are fewer, the devices
        that are left take them again from the first.
      mesh: of several devices.
    """
    height, width = padded_size(*images[0].shape[:2])
    padded = np.zeros((device_count(mesh), height, width, 3), np.uint8)
    extents = np.zeros((device_count(mesh), 2), np.int32)
    for i in range(device_count(mesh)):
        image = images[i % len(images)]
        extents[i] = image.shape[:2]
        padded[i, : extents[i, 0], : extents[i, 1]] = image
    where = sharding_of(mesh)
    return DeviceImage(jax.device_put(padded.reshape(-1, width, 3), where), jax.device_put(extents.ravel(), where))


@dataclass(frozen=True, eq=False)
class Scorer:
    """One network that is shown windows of images.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits`, contract as `models.DeconvNet`.
      variables: of the network; with a mesh, on all of its devices.
      num_classes: K.
      input_size: side of the network's input.
      settings: of the segmentation. An FCN-8s sees whole images whatever the mode.
      mesh: of several devices.
    """

    net: nn.Module
    variables: chex.ArrayTree
    num_classes: int
    input_size: int
    settings: InferenceSettings
    mesh: Mesh | None = None

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

    @property
    def batch_size(self) -> int:
        """How many windows of an image the network sees at once on each device."""
        settings = self.settings
        return min(settings.batch_size, settings.num_proposals) if self.needs_proposals else settings.batch_size

    @property
    def divides_windows(self) -> bool:
        """Whether the windows of one image may be divided over devices: sums in another order would round otherwise."""
        return self.settings.aggregation == "max"

    def batches(self, boxes: np.ndarray) -> int:
        """Returns how many batches the windows [n, 4] of an image fill."""
        return -(-len(boxes) // self.batch_size)

    def score_all(
        self, images: Sequence[DeviceImage], boxes: Sequence[Sequence[np.ndarray]], batch: int
    ) -> list[Array]:
        """Returns the scores of every image, as `score` or, of networks with one window per image, `score_group`.

        Args:
          images: on the devices.
          boxes: float32 [n, 4], the windows of every image on a device.
          batch: as for `score_group`, which is given that many at a time.
        """
        if not self.has_one_window:
            return [self.score(image, *own) for image, own in zip(images, boxes, strict=True)]
        starts = range(0, len(images), batch)
        groups = (self.score_group(images[i : i + batch], boxes[i : i + batch], batch) for i in starts)
        return [scores for group in groups for scores in group]

    def score(self, image: DeviceImage, *boxes: np.ndarray) -> Array:
        """Shows the network windows, a batch at a time; does not wait for the device.

        Args:
          image: the images on the devices.
          *boxes: float32 [n, 4], the windows of each. The devices share those of a single image if `divides_windows`.

        Returns:
          float32 [Hp, Wp, K] of every device's image, 0 where no window is.

        Raises:
          InputError: if the network scores another number of classes.
        """
        settings = self.settings
        canvas = self._empty_canvas(image)
        for chunk, valid in self._batches(boxes):
            canvas = fold_windows(
                self.net,
                self.variables,
                *image,
                jax.device_put(chunk, sharding_of(self.mesh)),
                jax.device_put(valid, sharding_of(self.mesh)),
                canvas,
                size=self.input_size,
                aggregation=settings.aggregation,
                flip=settings.flip,
                antialias=self._is_released,
                shift=1.0 if self._is_released else 0.0,
                mesh=self.mesh,
            )
        if self.mesh is not None and len(boxes) == 1 and self.divides_windows:
            canvas = on_each(greatest, self.mesh, donate=(0,))(canvas)
        return on_each(canvas_scores, self.mesh, aggregation=settings.aggregation)(canvas)

    def _batches(self, boxes: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields what all devices are shown at once: boxes float32 [n, 4], and bool [n], False for those that fill."""
        devices = device_count(self.mesh)
        rows = 1 if len(boxes) == 1 and self.divides_windows else devices
        size = self.batch_size * devices // rows
        length = -(-max(map(len, boxes)) // size) * size
        filled = np.tile(np.float32([0, 0, 1, 1]), (rows, length, 1))
        valid = np.zeros((rows, length), bool)
        for row in range(rows):
            own = boxes[row % len(boxes)]
            filled[row, : len(own)], valid[row, : len(own)] = own, True
        for start in range(0, length, size):
            chunk = np.s_[:, start : start + size]
            yield filled[chunk].reshape(-1, 4), valid[chunk].ravel()

    def score_group(
        self, images: Sequence[DeviceImage], boxes: Sequence[Sequence[np.ndarray]], batch: int
    ) -> list[Array]:
        """As `score`, of images of any sizes that have one window each: they share a batch.

        Args:
          images: on the devices; at most `batch`.
          boxes: float32 [1, 4] of every image on a device.
          batch: is filled up, so that the network compiles once.
        """
        outside = "mean" if self._sees_corner else "black"
        count, where = device_count(self.mesh), sharding_of(self.mesh)
        boxes = [jax.device_put(np.concatenate([own[i % len(own)] for i in range(count)]), where) for own in boxes]
        crop = on_each(crop_windows, self.mesh, size=self.input_size, outside=outside)
        crops = [crop(*image, box) for image, box in zip(images, boxes, strict=True)]
        crops += [jnp.zeros_like(crops[0])] * (batch - len(crops))
        network = network_scores(self.net, self.settings.flip, self.mesh)
        scores = network(self.variables, on_each(_concatenated, self.mesh)(*crops))
        check_classes(scores, self.num_classes)
        fold, valid = on_each(fold_scores, self.mesh, donate=(0,)), jax.device_put(np.ones(count, bool), where)
        folded = []
        for image, box, found in zip(
            images, boxes, on_each(jnp.split, self.mesh, indices_or_sections=batch)(scores), strict=False
        ):
            canvas = fold(self._empty_canvas(image), found, box, valid)
            folded.append(on_each(canvas_scores, self.mesh, aggregation="max")(canvas))
        return folded

    def _empty_canvas(self, image: DeviceImage) -> Canvas:
        settings, (height, width) = self.settings, image.pixels.shape[:2]
        height //= device_count(self.mesh)
        return empty_canvas(height, width, self.num_classes, settings.aggregation, self._is_released, self.mesh)

    @property
    def _sees_corner(self) -> bool:
        return isinstance(self.net, FCN8s)

    @property
    def _is_released(self) -> bool:
        return self.settings.mode == "released" and not self._sees_corner


def _concatenated(*crops: Array) -> Array:
    return jnp.concatenate(crops)
