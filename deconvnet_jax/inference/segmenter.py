"""Segments photographs of any size: `Segmenter` takes a photograph and returns its label map.

`segment` passes each photograph through three steps:

1. `_prepare`, on the CPU: reduces large photographs, finds proposals, chooses the windows;
2. `_launch`, on the devices: the scores of each network (`scorer.py`), ensemble and CRF (`combine.py`), labels;
3. `_finish`, on the CPU: back to the photograph's size.

While the devices compute some images, the next ones are prepared.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Unpack, overload

import flax.linen as nn
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from deconvnet_jax.data import propose_boxes
from deconvnet_jax.errors import InputError, counted
from deconvnet_jax.file_kinds import file_kind, wrong_kind
from deconvnet_jax.inference.combine import kernels_of, most_likely, refine
from deconvnet_jax.inference.devices import (
    Prepared,
    are_faster_alone,
    device_count,
    device_image,
    groups,
    local_mesh,
    on_each,
    parts_of,
    prepared_ahead,
    replicated,
    rounds_of,
    without_padding,
)
from deconvnet_jax.inference.member import DECONVNET_INPUT_SIZE, Member, default_class_names, load_partner
from deconvnet_jax.inference.modes import MODES
from deconvnet_jax.inference.proposal_batch import sample_scores
from deconvnet_jax.inference.result import Result
from deconvnet_jax.inference.scorer import Scorer, score_networks
from deconvnet_jax.inference.settings import InferenceSettings, SettingValues, settings_from
from deconvnet_jax.labels import label_type
from deconvnet_jax.models import Variables
from deconvnet_jax.ops import checked_boxes
from deconvnet_jax.photographs import ImageLike, as_photograph, check_several, is_image_like, reduced_to
from deconvnet_jax.terminal import followed
from deconvnet_jax.weights import load_checkpoint, network_from_caffe

AHEAD = 3  # images that are prepared before the devices need them, at least
_NAMED = 4  # classes in the text of a Segmenter


@dataclass(frozen=True, eq=False, repr=False)
class Segmenter:
    """A trained network that segments photographs of any size.

    A photograph is the path of a file, an open binary file, a Pillow image, or an array of NumPy, JAX or PyTorch:
    uint8 [H, W], [H, W, 1], RGB [H, W, 3] or RGBA [H, W, 4]. `as_photograph` describes the conversion.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits` that takes and returns the same arrays as
        `models.DeconvNet`.
      variables: the variables of `net`; copied to all `devices` once.
      class_names: one name per class, in the order of the ids.
      input_size: the side S of the network's input, in pixels.
      settings: the settings of inference.
      partner: the second network of an ensemble; None for a single network.
      devices: the devices of this process that compute; None for all (`jax.local_devices()`), or for that of
        `jax.default_device` if it is set. Each device segments its own images; with `aggregation="max"` they can share
        the windows of one image. The number of devices does not change results, except for rounding where images share
        a batch.
      source: where the network comes from, such as "runs/demo, step 2400"; "" if that is not known.

    Example:
      >>> segmenter = Segmenter.from_checkpoint("runs/demo", mode="whole_image")
      >>> segmenter
      Segmenter: DeconvNet, 3 classes (background, disc, square), input 32x32 pixels
        from runs/demo, step 0; on 1 device (cpu)
        mode='whole_image'
      >>> result = segmenter("photo.jpg")
      >>> result.labels.shape, result.scores.shape  # a class per pixel, a score per pixel and class
      ((60, 80), (60, 80, 3))
      >>> segmenter.class_names
      ('background', 'disc', 'square')
    """

    net: nn.Module
    variables: Variables
    class_names: tuple[str, ...]
    input_size: int = DECONVNET_INPUT_SIZE
    settings: InferenceSettings = field(default_factory=InferenceSettings)
    partner: Member | None = None
    devices: Sequence[jax.Device] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", replicated(self.variables, self._mesh))
        if self.partner is not None:
            net, variables, size = self.partner.net, self.partner.variables, self.partner.input_size
            object.__setattr__(self, "partner", Member(net, replicated(variables, self._mesh), size))

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        step: int | None = None,
        devices: Sequence[jax.Device] | None = None,
        averages: bool = True,
        **settings: Unpack[SettingValues],
    ) -> "Segmenter":
        """Returns a Segmenter with the network of a training run.

        Args:
          path: the run's folder, its `checkpoints` folder, or gs://BUCKET/NAME.
          step: the step of the checkpoint; None for the best one.
          devices: the devices of this process that compute; None for all.
          averages: whether to use the averaged weights, if the run has kept them (`config.ema_decay`).
          **settings: values for `InferenceSettings` that replace those of the run's config.

        Raises:
          InputError: if there is no checkpoint or no such step, the files are damaged or not this project's, or a
            setting is wrong.

        Example:
          >>> segmenter = Segmenter.from_checkpoint("runs/demo", mode="sliding_window", flip=True)
          >>> segmenter.settings.mode, segmenter.input_size
          ('sliding_window', 32)
        """
        path = Path(path).expanduser()
        if path.is_file():
            raise InputError(wrong_kind(path, file_kind(path), "the folder of a checkpoint"))
        net, variables, info = load_checkpoint(path, step, averages)
        segmenter = cls.from_loaded(net, variables, info, devices=devices, **settings)
        return replace(segmenter, source=f"{path}, step {info['step']}")

    @classmethod
    def from_caffe(
        cls,
        path: str | Path,
        class_names: Sequence[str] | None = None,
        devices: Sequence[jax.Device] | None = None,
        **settings: Unpack[SettingValues],
    ) -> "Segmenter":
        """Returns a Segmenter with a DeconvNet or FCN-8s from a caffemodel that was made for inference.

        Args:
          path: the file, such as DeconvNet_trainval_inference.caffemodel or fcn-8s-pascal.caffemodel.
          class_names: one name per class, in the order of the ids; None for VOC's names with 21 classes, otherwise
            "class 0", "class 1", ...
          devices: the devices of this process that compute; None for all.
          **settings: values for `InferenceSettings`.

        Raises:
          InputError: if the file is neither network or is damaged, a setting is wrong, or the file is a snapshot of
            training, which has no running statistics.

        Example:
          >>> segmenter = Segmenter.from_caffe("DeconvNet_trainval_inference.caffemodel", mode="paper", crf="released")
          >>> segmenter.class_names[15]
          'person'
        """
        net, variables, info = network_from_caffe(path)
        names = class_names or default_class_names(net.num_classes)
        loaded = {**info, "class_names": names}
        return replace(cls.from_loaded(net, variables, loaded, devices=devices, **settings), source=str(path))

    @classmethod
    def from_loaded(
        cls,
        net: nn.Module,
        variables: Variables,
        info: Mapping[str, Any],
        devices: Sequence[jax.Device] | None = None,
        **settings: Unpack[SettingValues],
    ) -> "Segmenter":
        """Returns a Segmenter with a network from `weights.load_checkpoint`; the input has the size of training.

        Args:
          net: the network.
          variables: its variables.
          info: its description: "class_names" and, if it was trained here, "config".
          devices: the devices of this process that compute; None for all.
          **settings: values for `InferenceSettings` that replace those of the config.

        Raises:
          InputError: if the running statistics are not known, the second network of the ensemble cannot be loaded or
            has other classes, or a setting is wrong.
        """
        first, names = Member.from_loaded(net, variables, info), tuple(info["class_names"])
        chosen = settings_from(info.get("config", {}).get("inference", {})).changed(**settings)
        partner = load_partner(chosen.ensemble_checkpoint, names) if chosen.ensemble_checkpoint else None
        return cls(first.net, first.variables, names, first.input_size, chosen, partner, devices)

    def changed(self, **settings: Unpack[SettingValues]) -> "Segmenter":
        """Returns a Segmenter with the same networks and other settings; `ensemble_checkpoint` cannot change.

        Args:
          **settings: the new values by the names of the attributes of `InferenceSettings`.

        Raises:
          InputError: if a name is unknown or a value is wrong.
        """
        if "ensemble_checkpoint" in settings:
            raise InputError("inference.ensemble_checkpoint cannot be changed here; load another Segmenter with it")
        return replace(self, settings=self.settings.changed(**settings))

    def alone(self, member: Member | None = None) -> "Segmenter":
        """Returns a Segmenter with a single network and the same settings.

        Args:
          member: the network, for example `partner`; None for the first one.
        """
        net, variables, size = member or (self.net, self.variables, self.input_size)
        return replace(self, net=net, variables=variables, input_size=size, partner=None)

    @overload
    def __call__(self, image: ImageLike, proposals: np.ndarray | None = None) -> Result: ...

    @overload
    def __call__(
        self, image: Iterable[ImageLike], proposals: Iterable[np.ndarray | None] | None = None
    ) -> list[Result]: ...

    def __call__(self, image: Any, proposals: Any = None) -> Result | list[Result]:
        """Returns the segmentation of one photograph, or of several as a list.

        Args:
          image: a photograph of any size (see the class), or a list or other iterable of them. Photographs of an
            iterable are read one after the other, but the scores of all are kept; `segment` also yields the results one
            after the other.
          proposals: [n, 4], boxes to use instead of finding some, with the best first: x0, y0, x1, y1 in pixels of the
            image, x1 and y1 exclusive. They may extend beyond the image. With n = 0 all scores are 0. None finds
            proposals if the mode needs them; other modes take None only. For several photographs: an iterable with the
            boxes of each, or None.

        Raises:
          InputError: if a photograph cannot be used, or a box is invalid, for example because it holds x, y, width,
            height (`ops.checked_boxes`).

        Example:
          >>> segmenter = Segmenter.from_checkpoint("runs/demo", mode="whole_image")
          >>> [result.labels.shape for result in segmenter(["photo.jpg", np.zeros((100, 50), np.uint8)])]
          [(60, 80), (100, 50)]
        """
        if is_image_like(image):
            return next(self.segment([image], None if proposals is None else [proposals]))
        return list(self.segment(image, proposals))

    def segment(
        self, images: Iterable[ImageLike], proposals: Iterable[np.ndarray | None] | None = None, progress: bool = False
    ) -> Iterator[Result]:
        """Returns an iterator over the segmentations of photographs, in their order.

        While the devices compute, proposals of the next photographs are found on the CPU.

        Args:
          images: photographs of any sizes (see the class); an iterator is read only a few images ahead per device.
          proposals: for each image, the boxes [n, 4] to use instead of finding some, or None; see `__call__`.
          progress: True shows a progress bar on stderr, or plain lines where stderr is no terminal.

        Returns:
          The results; each is computed when it is needed.

        Raises:
          InputError: for a single photograph instead of several; at a photograph that cannot be used, or at invalid
            boxes.
          ValueError: if there are fewer or more entries in `proposals` than in `images`.
          Exception: at an error of the iterable itself. The results of the images before any error come first.

        Example:
          >>> segmenter = Segmenter.from_checkpoint("runs/demo", mode="whole_image")
          >>> images = [np.zeros((60, 80, 3), np.uint8), np.zeros((100, 50, 3), np.uint8)]
          >>> [result.labels.shape for result in segmenter.segment(images)]
          [(60, 80), (100, 50)]
        """
        check_several(images)
        if self._needs_proposals and proposals is None and self.settings.proposals_path:
            raise InputError(
                f"inference.proposals={self.settings.proposals} is a file: pass the boxes of every image to segment(); "
                "data.read_proposals reads them"
            )
        pairs = zip(images, itertools.repeat(None)) if proposals is None else zip(images, proposals, strict=True)
        results = self._stream(pairs)
        return followed(results, "segmenting", images) if progress else results

    def __repr__(self) -> str:
        """Returns three lines: the network and its classes, where it is from and computes, and its settings."""
        names = ", ".join(self.class_names[:_NAMED]) + (", ..." if len(self.class_names) > _NAMED else "")
        nets = " + ".join(type(net).__name__ for net in (self.net, *([self.partner.net] if self.partner else [])))
        used = self.devices or jax.local_devices()[: device_count(self._mesh)]
        lines = (
            f"Segmenter: {nets}, {counted(len(self.class_names), 'class', 'classes')} ({names}), "
            f"input {self.input_size}x{self.input_size} pixels",
            f"from {self.source or 'variables in memory'}; on {counted(len(used), 'device')} ({used[0].platform})",
            self.settings.summary(),
        )
        return "\n  ".join(lines)

    def _stream(self, pairs: Iterable[tuple[ImageLike, np.ndarray | None]]) -> Iterator[Result]:
        """Yields the results of pairs (image, its proposals or None)."""
        launched: list[_Launched] | None = []
        failed = None
        with ThreadPoolExecutor(device_count(self._mesh)) as pool:
            parts = self._launch_ahead(pool, pairs)
            while launched is not None:
                try:
                    following = next(parts, None)
                except Exception as error:  # of the caller's iterator, an image or a device
                    following, failed = None, error
                yield from map(self._finish, launched)  # the part before, while the devices compute this one
                launched = following
        if failed:
            raise failed

    def _launch_ahead(
        self, pool: ThreadPoolExecutor, pairs: Iterable[tuple[ImageLike, np.ndarray | None]]
    ) -> Iterator[list["_Launched"]]:
        """Yields images in their order, in parts that the devices compute together, as soon as they compute."""
        limit, devices, batch = self._rounds_per_group, device_count(self._mesh), 0
        prepared = prepared_ahead(pool, self._prepare, pairs, max(AHEAD, self.group_size))
        for group in groups(prepared, limit, devices):
            # The last group is filled up to this size, because that program is already compiled.
            batch = batch or len(rounds_of(group, devices))
            for part in self._parts(group):
                yield self._launch(part, batch)

    def _prepare(self, given: ImageLike, proposals: np.ndarray | None) -> Prepared:
        """Returns an image, reduced if it is large, with the windows of each network."""
        image = as_photograph(given)
        height, width = image.shape[:2]
        if proposals is not None:
            proposals = checked_boxes(proposals, "proposals", (height, width))
            if not self.settings.uses_proposals:
                raise InputError(f"proposals have no effect with inference.mode='{self.settings.mode}'; leave them out")
        reduced = reduced_to(image, self.settings.max_side)
        if not self._needs_proposals:
            boxes = np.zeros((0, 4))
        elif proposals is None:
            wanted = MODES[self.settings.mode].candidates or self.settings.num_proposals
            boxes = propose_boxes(reduced, wanted, method=self.settings.proposals)[0]
        else:
            boxes = proposals / _scale(image.shape, reduced.shape)
        rows, columns = reduced.shape[:2]
        return Prepared(image, reduced, [scorer.windows(rows, columns, boxes) for scorer in self._scorers])

    def _parts(self, group: list[Prepared]) -> Iterator[list[Prepared]]:
        """Yields the images that are launched together: the whole group, or each alone if devices share its windows."""
        scorers, devices = self._scorers, device_count(self._mesh)
        counts = [max(map(Scorer.batches, scorers, prepared.windows)) for prepared in group]
        if all(scorer.divides_windows for scorer in scorers) and are_faster_alone(counts, devices):
            yield from ([prepared] for prepared in group)
        else:
            yield group

    def _launch(self, group: list[Prepared], batch: int) -> list["_Launched"]:
        """Launches the computation of scores and labels on the devices; does not wait for them."""
        mesh, crf = self._mesh, self.settings.crf
        # The kernels come first, because they wait for the device.
        kernels = [kernels_of(prepared.image, crf) for prepared in group] if crf != "none" else []
        rounds = rounds_of(group, device_count(mesh))
        images = [device_image(*(group[i].image for i in members), mesh=mesh) for members in rounds]
        windows = [[[group[i].windows[n] for i in members] for members in rounds] for n in range(len(self._scorers))]
        scores, *partners = score_networks(self._scorers, images, windows, batch)
        for others in partners:
            scores = list(map(on_each(MODES[self.settings.mode].combine, mesh), scores, others))
        results: dict[int, tuple[Array, Array]] = {}
        for members, of_round in zip(rounds, scores, strict=True):
            # The devices compute the labels too: on the host this takes longer than the network on a GPU.
            labels = on_each(most_likely, mesh)(of_round)
            results |= zip(members, zip(parts_of(labels, mesh), parts_of(of_round, mesh), strict=True), strict=False)
        for i, of_image in enumerate(kernels):
            scores_of_image, size = results[i][1], group[i].image.shape[:2]
            if mesh is not None:  # on the first device: the CRF compiles for each image and device
                scores_of_image = jax.device_put(scores_of_image, mesh.devices.flat[0])
            results[i] = refine(scores_of_image, of_image, size, crf, self._sharpness)
        return [_Launched(prepared, *results[i]) for i, prepared in enumerate(group)]

    def _finish(self, launched: "_Launched") -> Result:
        """Waits for an image's labels and scores, and returns them in the photograph's size."""
        photograph, image, windows = launched.prepared
        height, width = photograph.shape[:2]
        labels, scores = (without_padding(np.asarray(part), image, launched.labels.ndim == 1) for part in launched[1:])
        if image.shape[:2] != (height, width):
            scores = sample_scores(scores, np.array([0, 0, width, height]), height, width)
            labels = np.argmax(scores, axis=-1).astype(label_type(scores.shape[-1]))
        boxes = np.concatenate(windows[: len(self.settings.scales)]) * _scale((height, width), image.shape)
        return Result(labels, scores, boxes.astype(np.float32), photograph, self.class_names)

    @property
    def group_size(self) -> int:
        """The number of images that the devices compute at once: one per device, or a batch with one window each."""
        return self._rounds_per_group * device_count(self._mesh)

    @property
    def _rounds_per_group(self) -> int:
        return self.settings.batch_size if all(scorer.one_window for scorer in self._scorers) else 1

    @cached_property
    def _mesh(self) -> Mesh | None:
        return local_mesh(self.devices)

    @property
    def _sharpness(self) -> float:
        """The factor on the scores before the CRF, with `crf_sharpness=0` replaced by its meaning."""
        settings = self.settings
        if settings.crf_sharpness or settings.crf != "usual":
            return settings.crf_sharpness or 1.0
        modes = [scorer.mode for scorer in self._scorers]
        return max(mode.sharpness if self.partner is None else mode.ensemble_sharpness for mode in modes)

    @cached_property
    def _scorers(self) -> list[Scorer]:
        members = [Member(self.net, self.variables, self.input_size), *([self.partner] if self.partner else [])]
        return [
            Scorer(net, variables, len(self.class_names), size, self.settings, self._mesh, scale)
            for net, variables, size in members
            for scale in self.settings.scales
        ]

    @property
    def _needs_proposals(self) -> bool:
        return any(scorer.mode.of_proposals is not None for scorer in self._scorers)


class _Launched(NamedTuple):
    """An image whose results a device computes; they are padded, or rows of pixels if a CRF made them."""

    prepared: Prepared
    labels: Array  # [Hp, Wp] or [P]
    scores: Array  # [Hp, Wp, K] or [P, K]


def _scale(of: Sequence[int], to: Sequence[int]) -> np.ndarray:
    """Returns the factors [4] that map box coordinates on an image of shape `to` to those on one of shape `of`."""
    return np.array([of[1], of[0]] * 2) / np.array([to[1], to[0]] * 2)
