"""Computes the scores of whole images by one network: chooses the windows and puts them into batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.sharding import Mesh

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference.combine import mean_of_scores
from deconvnet_jax.inference.devices import DeviceImage, device_count, on_each, sharding_of
from deconvnet_jax.inference.modes import OVERLAP, Mode, mode_of, scaled_windows
from deconvnet_jax.inference.proposal_batch import (
    Canvas,
    canvas_scores,
    crop_windows,
    empty_canvas,
    fold_scores,
    greatest,
    network_scores,
    scores_of,
)
from deconvnet_jax.inference.settings import InferenceSettings
from deconvnet_jax.models import Variables
from deconvnet_jax.short_repr import short_repr


@dataclass(frozen=True, eq=False)
class Scorer:
    """One network that is shown windows of images.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits` that takes and returns the same arrays as
        `models.DeconvNet`.
      variables: the variables of `net`; with a mesh, replicated on all of its devices.
      num_classes: K.
      input_size: the side S of the network's input, in pixels.
      settings: the settings of inference.
      mesh: the devices; None for one device.
      scale: the scale at which the network sees images, one of `settings.scales`.
    """

    net: nn.Module
    variables: Variables
    num_classes: int
    input_size: int
    settings: InferenceSettings
    mesh: Mesh | None = None
    scale: float = 1.0

    __repr__ = short_repr

    @cached_property
    def mode(self) -> Mode:
        """The row of `MODES` for this network."""
        return mode_of(self.net, self.settings.mode)

    @property
    def one_window(self) -> bool:
        """Whether every image has exactly one window; above scale 1, several windows cover it."""
        return self.mode.one_window and self.scale <= 1

    @property
    def aggregation(self) -> str:
        """How windows are combined, "max" or "mean"; a single window needs no mean, so it is "max" then."""
        return "max" if self.one_window else self.settings.aggregation

    @property
    def divides_windows(self) -> bool:
        """Whether devices may share the windows of one image: not for means, where another order rounds differently."""
        return self.aggregation == "max"

    @property
    def batch_size(self) -> int:
        """The number of windows of an image that the network sees at once on each device."""
        settings = self.settings
        if self.mode.one_window and self.scale > 1:  # No image has more windows than a square one.
            along_a_side = math.ceil((self.scale - 1) / (1 - OVERLAP)) + 1
            return min(settings.batch_size, along_a_side**2)
        return min(settings.batch_size, settings.num_proposals) if self.mode.of_proposals else settings.batch_size

    def windows(self, height: int, width: int, proposals: np.ndarray) -> np.ndarray:
        """Returns the windows of an image.

        Args:
          height: the height of the image in pixels.
          width: the width of the image in pixels.
          proposals: [m, 4], the image's proposals with the best first; not used by modes without proposals.

        Returns:
          float32 [n, 4], in pixels of the image; n may be 0.
        """
        if self.mode.of_proposals is not None:
            return self.mode.of_proposals(proposals, self.settings.num_proposals, self.settings.enlarge)
        return scaled_windows(self.mode.windows(height, width, self.input_size), height, width, self.scale)

    def batches(self, boxes: np.ndarray) -> int:
        """Returns the number of batches that the windows of an image fill on one device.

        Args:
          boxes: [n, 4], the windows.

        Returns:
          n divided by `batch_size`, rounded up.
        """
        return -(-len(boxes) // self.batch_size)

    def score_all(
        self, images: Sequence[DeviceImage], boxes: Sequence[Sequence[np.ndarray]], batch: int
    ) -> list[Array]:
        """Returns the scores of several images; images with one window each share batches.

        Args:
          images: the images on the devices; each entry is one image per device.
          boxes: for each entry, the windows float32 [n, 4] of each of its images.
          batch: the number of entries that share a batch, for modes with one window. The last batch is filled up, so
            that the network compiles once.

        Returns:
          One array per entry, float32 [Hp, Wp, K], as `score`.
        """
        if not self.one_window:
            return [self.score(image, *own) for image, own in zip(images, boxes, strict=True)]
        scores = []
        for start in range(0, len(images), batch):
            members = [i if i < len(images) else start for i in range(start, start + batch)]
            chunks = [next(self._batches(boxes[i], 1, device_count(self.mesh))) for i in members]
            own = [images[i] for i in members]
            found, valid = zip(*chunks, strict=True)
            scores += map(self._scores, self.fold(own, found, valid, list(map(self._empty_canvas, own))))
        return scores[: len(images)]

    def score(self, image: DeviceImage, *boxes: np.ndarray) -> Array:
        """Returns the scores of one image per device, computed a batch at a time; does not wait for the device.

        Args:
          image: the images on the devices.
          *boxes: the windows float32 [n, 4] of each image; with 0 windows all scores are 0. If there is only one image
            and `divides_windows`, all devices share its windows.

        Returns:
          float32 [Hp, Wp, K], 0 at pixels that no window shows; with several devices, a spread array.

        Raises:
          InputError: if the network scores a number of classes other than `num_classes`.
        """
        devices = device_count(self.mesh)
        shared = len(boxes) == 1 and self.divides_windows
        canvas = self._empty_canvas(image)
        for chunk, valid in self._batches(boxes, self.batch_size, 1 if shared else devices):
            (canvas,) = self.fold([image], [chunk], [valid], [canvas])
        if shared and self.mesh is not None:
            canvas = on_each(greatest, self.mesh, donate=(0,))(canvas)
        return self._scores(canvas)

    def _batches(self, boxes: Sequence[np.ndarray], size: int, rows: int) -> Iterator[tuple[Array, Array]]:
        """Yields the batches as spread arrays: boxes float32 [n, 4] and bool [n], False for boxes that only fill up.

        Args:
          boxes: the windows float32 [m, 4] of each image.
          size: windows per batch and device.
          rows: the number of images: 1 if all devices share it, else the number of devices.
        """
        where, size = sharding_of(self.mesh), size * device_count(self.mesh) // rows
        length = -(-max(map(len, boxes)) // size) * size
        filled = np.tile(np.array([0, 0, 1, 1], np.float32), (rows, length, 1))
        valid = np.zeros((rows, length), bool)
        for row in range(rows):
            own = boxes[row % len(boxes)]
            filled[row, : len(own)], valid[row, : len(own)] = own, True
        for start in range(0, length, size):
            chunk = np.s_[:, start : start + size]
            yield jax.device_put(filled[chunk].reshape(-1, 4), where), jax.device_put(valid[chunk].ravel(), where)

    def fold(
        self,
        images: Sequence[DeviceImage],
        boxes: Sequence[Array],
        valid: Sequence[Array],
        canvases: Sequence[Canvas],
    ) -> list[Canvas]:
        """Runs one batch of windows: crop, network, fold. May be called inside `jax.jit`.

        Args:
          images: the images that share the batch; usually one.
          boxes: for each image float32 [n, 4], with the same n.
          valid: for each image bool [n], False for boxes that only fill the batch.
          canvases: the canvas of each image; donated.

        Returns:
          The canvas of each image with these windows.

        Raises:
          InputError: if the network scores a number of classes other than `num_classes`.
        """
        mesh, mode, flip = self.mesh, self.mode, self.settings.flip
        crop = on_each(crop_windows, mesh, size=self.input_size, outside=mode.outside, antialias=mode.antialias)
        crops = [crop(*image, own) for image, own in zip(images, boxes, strict=True)]
        # A jitted function with compiler options cannot be part of another; inside `jax.jit`, the outer one has them.
        traced = isinstance(crops[0], Tracer)
        network = partial(scores_of, self.net, flip) if traced else network_scores(self.net, flip, mesh)
        scores = network(self.variables, crops[0] if len(crops) == 1 else on_each(_concatenated, mesh)(*crops))
        if scores.shape[-1] != self.num_classes:
            raise InputError(
                f"the network scores {scores.shape[-1]} classes, but there are {self.num_classes} class names; "
                "give Segmenter one name per class"
            )
        parts = [scores] if len(crops) == 1 else on_each(jnp.split, mesh, indices_or_sections=len(crops))(scores)
        fold = on_each(fold_scores, mesh, donate=(0,), aggregation=self.aggregation, antialias=mode.antialias)
        return list(map(fold, canvases, parts, [own + jnp.float32(mode.shift) for own in boxes], valid))

    def _scores(self, canvas: Canvas) -> Array:
        return on_each(canvas_scores, self.mesh, aggregation=self.aggregation)(canvas)

    def _empty_canvas(self, image: DeviceImage) -> Canvas:
        height, width = image.pixels.shape[:2]
        height //= device_count(self.mesh)
        return empty_canvas(height, width, self.num_classes, self.aggregation, self.mode.clip, self.mesh)


def score_networks(
    scorers: Sequence[Scorer],
    images: Sequence[DeviceImage],
    windows: Sequence[Sequence[Sequence[np.ndarray]]],
    batch: int,
) -> list[list[Array]]:
    """Returns the scores of each network, averaged over the scales.

    Args:
      scorers: for each network, one scorer per scale in `settings.scales`.
      images: as for `Scorer.score_all`.
      windows: for each scorer, the `boxes` of `Scorer.score_all`.
      batch: as for `Scorer.score_all`.

    Returns:
      For each network, the list that `Scorer.score_all` returns.
    """
    scores = [scorer.score_all(images, own, batch) for scorer, own in zip(scorers, windows, strict=True)]
    scales = len(scorers[0].settings.scales)
    if scales == 1:
        return scores
    mean = on_each(mean_of_scores, scorers[0].mesh)
    networks = (scores[start : start + scales] for start in range(0, len(scores), scales))
    return [[mean(*of_image) for of_image in zip(*network, strict=True)] for network in networks]


def _concatenated(*crops: Array) -> Array:
    return jnp.concatenate(crops)
