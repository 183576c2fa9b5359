"""Segments photographs of any size: `Segmenter` takes a photograph and returns its label map.

`segment` passes each photograph through three steps:

1. `_prepare`, on the CPU: reduces large photographs, finds proposals, chooses the windows;
2. `_launch`, on the devices: the scores of each network (`scorer.py`), ensemble and CRF (`combine.py`), labels;
3. `_finish`, on the CPU: back to the photograph's size.

While the devices compute some images, the next ones are prepared.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import flax.linen as nn
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from deconvnet_jax.data import propose_boxes
from deconvnet_jax.errors import InputError
from deconvnet_jax.file_kinds import file_kind, wrong_kind
from deconvnet_jax.images import check_image
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
    replicated,
    rounds_of,
)
from deconvnet_jax.inference.member import DECONVNET_INPUT_SIZE, Member, default_class_names
from deconvnet_jax.inference.modes import MODES
from deconvnet_jax.inference.proposal_batch import sample_scores
from deconvnet_jax.inference.scorer import Scorer, score_networks
from deconvnet_jax.inference.settings import InferenceSettings, settings_from
from deconvnet_jax.labels import label_type
from deconvnet_jax.models import Variables
from deconvnet_jax.ops import checked_boxes
from deconvnet_jax.terminal import followed
from deconvnet_jax.weights import load_checkpoint, network_from_caffe

AHEAD = 3  # images that are prepared before the devices need them, at least


class Result(NamedTuple):
    """The segmentation of one photograph.

    Attributes:
      labels: uint8 [H, W], the class with the highest score at every pixel; uint16 if there are more than 255 classes.
      scores: float32 [H, W, K], the logits, combined over the windows; after the CRF and for the ensemble of the paper,
        log probabilities. The softmax of the scores gives probabilities.
      boxes: float32 [n, 4], the windows that the network was shown, in the order of the proposals: x0, y0, x1, y1 in
        pixels of the photograph, x1 and y1 exclusive.
    """

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained network that segments photographs of any size.

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

    Example:
      >>> from deconvnet_jax.images import read_image
      >>> segmenter = Segmenter.from_checkpoint("runs/demo", mode="whole_image")
      >>> result = segmenter(read_image("photo.jpg"))
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
        **settings: Any,
    ) -> "Segmenter":
        """Returns a Segmenter with the network of a training run.

        Args:
          path: the run's folder, its `checkpoints` folder, or gs://BUCKET/NAME.
          step: the step of the checkpoint; None for the best one.
          devices: the devices of this process that compute; None for all.
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
        return cls.from_loaded(*load_checkpoint(path, step), devices=devices, **settings)

    @classmethod
    def from_caffe(
        cls,
        path: str | Path,
        class_names: Sequence[str] | None = None,
        devices: Sequence[jax.Device] | None = None,
        **settings: Any,
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
        return cls.from_loaded(net, variables, {**info, "class_names": names}, devices=devices, **settings)

    @classmethod
    def from_loaded(
        cls,
        net: nn.Module,
        variables: Variables,
        info: Mapping[str, Any],
        devices: Sequence[jax.Device] | None = None,
        **settings: Any,
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
        partner = _load_partner(chosen.ensemble_checkpoint, names) if chosen.ensemble_checkpoint else None
        return cls(first.net, first.variables, names, first.input_size, chosen, partner, devices)

    def changed(self, **settings: Any) -> "Segmenter":
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

    def __call__(self, image: np.ndarray, proposals: np.ndarray | None = None) -> Result:
        """Returns the segmentation of one photograph.

        Args:
          image: uint8 RGB [H, W, 3], of any size.
          proposals: [n, 4], boxes to use instead of finding some, with the best first: x0, y0, x1, y1 in pixels of the
            image, x1 and y1 exclusive. They may extend beyond the image. With n = 0 all scores are 0. None finds
            proposals if the mode needs them.

        Raises:
          InputError: if `image` is no colour image in uint8, or a box is invalid, for example because it holds x, y,
            width, height (`ops.checked_boxes`).
        """
        return next(self.segment([image], None if proposals is None else [proposals]))

    def segment(
        self, images: Iterable[np.ndarray], proposals: Iterable[np.ndarray | None] | None = None, progress: bool = False
    ) -> Iterator[Result]:
        """Returns an iterator over the segmentations of photographs, in their order.

        While the devices compute, proposals of the next photographs are found on the CPU.

        Args:
          images: uint8 RGB [H, W, 3], of any sizes; a generator is read only a few images ahead per device.
          proposals: for each image, the boxes [n, 4] to use instead of finding some, or None; see `__call__`.
          progress: True shows a progress bar on stderr, or plain lines where stderr is no terminal.

        Returns:
          The results; each is computed when it is needed.

        Raises:
          InputError: at an array that is no image, or at invalid boxes; the results of the images before it come first.
          ValueError: if there are fewer or more entries in `proposals` than in `images`.

        Example:
          >>> segmenter = Segmenter.from_checkpoint("runs/demo", mode="whole_image")
          >>> images = [np.zeros((60, 80, 3), np.uint8), np.zeros((100, 50, 3), np.uint8)]
          >>> [result.labels.shape for result in segmenter.segment(images)]
          [(60, 80), (100, 50)]
        """
        if self._needs_proposals and proposals is None and self.settings.proposals_path:
            raise InputError(
                f"inference.proposals={self.settings.proposals} is a file: pass the boxes of every image to segment(); "
                "data.read_proposals reads them"
            )
        pairs = zip(images, itertools.repeat(None)) if proposals is None else zip(images, proposals, strict=True)
        results = self._stream(pairs)
        return followed(results, "segmenting", images) if progress else results

    def _stream(self, pairs: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> Iterator[Result]:
        """Yields the results of pairs (image, its proposals or None)."""
        limit, devices, batch = self._rounds_per_group, device_count(self._mesh), 0
        launched: list[_Launched] = []
        failed = None
        with ThreadPoolExecutor(devices) as pool:
            try:
                for group in groups(self._prepare_ahead(pool, pairs), limit, devices):
                    # The last group is filled up to this size, because that program is already compiled.
                    batch = batch or len(rounds_of(group, devices))
                    for part in self._parts(group):
                        following = self._launch(part, batch)
                        yield from map(self._finish, launched)  # the part before, while the devices compute this one
                        launched = following
            except InputError as error:
                failed = error
            yield from map(self._finish, launched)
            if failed:
                raise failed

    def _prepare_ahead(
        self, pool: ThreadPoolExecutor, pairs: Iterable[tuple[np.ndarray, np.ndarray | None]]
    ) -> Iterator[Prepared]:
        """Yields prepared images in their order; the threads of `pool` prepare later ones meanwhile."""
        waiting: deque[Future[Prepared]] = deque()
        for image, boxes in pairs:
            waiting.append(pool.submit(self._prepare, image, boxes))
            if len(waiting) > max(AHEAD, self.group_size):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _prepare(self, image: np.ndarray, proposals: np.ndarray | None) -> Prepared:
        """Returns an image, reduced if it is large, with the windows of each network."""
        check_image(image)
        height, width = image.shape[:2]
        if proposals is not None:
            proposals = checked_boxes(proposals, "proposals", (height, width))
        factor = min(1.0, self.settings.max_side / max(height, width))
        reduced = image
        if factor < 1:
            size = max(1, round(width * factor)), max(1, round(height * factor))
            reduced = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        if not self._needs_proposals:
            boxes = np.zeros((0, 4))
        elif proposals is None:
            wanted = MODES[self.settings.mode].candidates or self.settings.num_proposals
            boxes = propose_boxes(reduced, wanted, method=self.settings.proposals)[0]
        else:
            boxes = proposals / _scale(image.shape, reduced.shape)
        rows, columns = reduced.shape[:2]
        return Prepared((height, width), reduced, [scorer.windows(rows, columns, boxes) for scorer in self._scorers])

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
        (height, width), image, windows = launched.prepared
        labels, scores = (_of_image(np.asarray(part), image, launched.labels.ndim == 1) for part in launched[1:])
        if image.shape[:2] != (height, width):
            scores = sample_scores(scores, np.array([0, 0, width, height]), height, width)
            labels = np.argmax(scores, axis=-1).astype(label_type(scores.shape[-1]))
        boxes = np.concatenate(windows[: len(self.settings.scales)])
        return Result(labels, scores, (boxes * _scale((height, width), image.shape)).astype(np.float32))

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


def _of_image(part: np.ndarray, image: np.ndarray, by_row: bool) -> np.ndarray:
    """Returns a copy without padding, [H, W, ...], of an array [Hp, Wp, ...], or [P, ...] if `by_row`."""
    height, width = image.shape[:2]
    if by_row:
        return np.array(part[: height * width]).reshape(height, width, *part.shape[1:])
    return np.array(part[:height, :width])


def _load_partner(path: str, class_names: tuple[str, ...]) -> Member:
    """Loads the second network of an ensemble from a checkpoint or a caffemodel."""
    location = Path(path).expanduser()
    if location.is_file():
        return Member.from_loaded(*network_from_caffe(location))
    net, variables, info = load_checkpoint(location, None)
    partner, names = Member.from_loaded(net, variables, info), tuple(info["class_names"])
    if names != class_names:
        raise InputError(
            f"inference.ensemble_checkpoint={path} has other classes ({', '.join(names[:4])}, ...) than this network "
            f"({', '.join(class_names[:4])}, ...); choose one that was trained on the same classes"
        )
    return partner


def _scale(of: Sequence[int], to: Sequence[int]) -> np.ndarray:
    """Returns the factors [4] that map box coordinates on an image of shape `to` to those on one of shape `of`."""
    return np.array([of[1], of[0]] * 2) / np.array([to[1], to[0]] * 2)
