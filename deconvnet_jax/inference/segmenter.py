"""Photograph in, label map out.

A photograph's way: `segment` -> `_prepare` (CPU: proposals, windows) -> `_launch` (devices: scores of each network by
`scorer.py`, ensemble and CRF by `combine.py`, labels) -> `_finish` (back to the photograph's size). While the devices
compute some images, the next ones are prepared.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
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
from rich.console import Console
from rich.progress import track

from deconvnet_jax.data import VOC_CLASSES, propose_boxes
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
from deconvnet_jax.inference.modes import MODES
from deconvnet_jax.inference.proposal_batch import sample_scores
from deconvnet_jax.inference.scorer import Scorer
from deconvnet_jax.inference.settings import InferenceSettings, settings_from
from deconvnet_jax.labels import label_type
from deconvnet_jax.models import DeconvNet, FCN8s, Variables
from deconvnet_jax.ops import checked_boxes
from deconvnet_jax.weights import load_checkpoint, network_from_caffe

DECONVNET_INPUT_SIZE = 224
FCN8S_INPUT_SIZE = 500  # all images of VOC fit into it (original: cache_FCN8s_results.m)
AHEAD = 3  # images whose proposals may wait for the devices, at least


class Result(NamedTuple):
    """What a network sees in one image.

    Attributes:
      labels: uint8 [H, W], the class with the highest score; uint16 if there are more than 255 classes.
      scores: float32 [H, W, K]; their softmax are probabilities. The network's logits, folded; of the paper's ensemble
        and after the CRF, logarithms of probabilities.
      boxes: float32 [n, 4], the windows that the network was shown, in the order of the proposals: x0, y0, x1, y1 in
        pixels, x1 and y1 exclusive.
    """

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


class Member(NamedTuple):
    """A network of an ensemble.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits`, contract as `models.DeconvNet`.
      variables: of the network.
      input_size: side of the network's input.
    """

    net: nn.Module
    variables: Variables
    input_size: int

    @classmethod
    def from_loaded(cls, net: nn.Module, variables: Variables, info: Mapping[str, Any]) -> "Member":
        """Returns what `weights.load_checkpoint` returns with the size that the network was trained with.

        Raises:
          InputError: if the network's batch statistics were never measured.
        """
        if info.get("batch_statistics") == "unknown":
            raise InputError(
                "the statistics of this network's batch normalisation are not known: it was trained in Caffe, which "
                "keeps none, or not trained yet; measure them: python -m experiments.calibrate_bn --checkpoint=..."
            )
        trained = info.get("config", {}).get("data", {})
        return cls(net, variables, trained.get("crop_size", default_input_size(net)))


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network with its variables, applied to photographs of any size.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits`, contract as `models.DeconvNet`.
      variables: of the network; they are copied to all `devices` once.
      class_names: in the order of the ids.
      input_size: side of the network's input.
      settings: of the segmentation.
      partner: the second network of an ensemble.
      devices: that compute, of this process; by default all (`jax.local_devices()`), or that of `jax.default_device`
        where it is set. Each segments its own images; they share the windows of a single image if the maximum is taken.
        The number of devices does not change results, except for rounding where images share a batch.
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
        """Returns a Segmenter with the network of a training run; by default its best step.

        Args:
          path: the run's `checkpoints` folder, or the run's folder.
          step: of the checkpoint.
          devices: that compute; by default all of this process.
          **settings: of `InferenceSettings`, other than those of the run's config.

        Raises:
          InputError: if there is no checkpoint, no such step, the folder is not one of this project's, or a setting is
            unknown.
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
          path: DeconvNet_trainval_inference.caffemodel, fcn-8s-pascal.caffemodel, ...
          class_names: in the order of the ids; by default VOC's for 21 classes, else "class 0", "class 1", ...
          devices: that compute; by default all of this process.
          **settings: of `InferenceSettings`.

        Raises:
          InputError: if the file is neither, is damaged, or is a snapshot of training: batch statistics are missing.
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
        """Returns a Segmenter with what `weights.load_checkpoint` returns.

        The input has the size that the network was trained with.

        Raises:
          InputError: if the network's batch statistics were never measured, the second network of the ensemble cannot
            be loaded or has other classes, or a setting is unknown.
        """
        first, names = Member.from_loaded(net, variables, info), tuple(info["class_names"])
        chosen = settings_from(info.get("config", {}).get("inference", {})).changed(**settings)
        partner = _load_partner(chosen.ensemble_checkpoint, names) if chosen.ensemble_checkpoint else None
        return cls(first.net, first.variables, names, first.input_size, chosen, partner, devices)

    def changed(self, **settings: Any) -> "Segmenter":
        """Returns a Segmenter with the same networks and other settings (all but `ensemble_checkpoint`).

        Raises:
          InputError: for an unknown name or value.
        """
        if "ensemble_checkpoint" in settings:
            raise InputError("inference.ensemble_checkpoint: load the Segmenter anew to change its networks")
        return replace(self, settings=self.settings.changed(**settings))

    def alone(self, member: Member | None = None) -> "Segmenter":
        """Returns a Segmenter with one network and the same settings: the first one, or `member`, e.g. the partner."""
        net, variables, size = member or (self.net, self.variables, self.input_size)
        return replace(self, net=net, variables=variables, input_size=size, partner=None)

    def __call__(self, image: np.ndarray, proposals: np.ndarray | None = None) -> Result:
        """Segments one photograph.

        Args:
          image: uint8 RGB [H, W, 3], of any size.
          proposals: boxes [n, 4] to use instead of finding some; x0, y0, x1, y1 in pixels of the image, x1 and y1
            exclusive, best first. They may reach beyond the image; with zero boxes nothing is seen.

        Raises:
          InputError: for another array, or boxes that are none, such as x, y, width, height with a width below x
            (`ops.checked_boxes`).
        """
        return next(self.segment([image], None if proposals is None else [proposals]))

    def segment(
        self, images: Iterable[np.ndarray], proposals: Iterable[np.ndarray | None] | None = None, progress: bool = False
    ) -> Iterator[Result]:
        """Segments photographs; while the devices compute, proposals of the next ones are found on the CPU.

        Args:
          images: uint8 RGB [H, W, 3], of any sizes; read when they are needed, a few ahead for each device.
          proposals: boxes [n, 4] of each image, to use instead of finding some.
          progress: show a progress bar on stderr.

        Returns:
          The results, in the order of the images.

        Raises:
          InputError: for anything that is no image, or no boxes, after the results of the images before it.
          ValueError: if there are not as many proposals as images.
        """
        if self._needs_proposals and proposals is None and self.settings.proposals_path:
            raise InputError(
                f"inference.proposals={self.settings.proposals} is a file: give segment() the boxes of every image "
                "(data.read_proposals)"
            )
        pairs = zip(images, itertools.repeat(None)) if proposals is None else zip(images, proposals, strict=True)
        results = self._stream(pairs)
        if not progress:
            return results
        total = len(images) if isinstance(images, Sized) else None
        return iter(track(results, "segmenting", total, console=Console(stderr=True)))

    def _stream(self, pairs: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> Iterator[Result]:
        limit, devices, batch = self._rounds_per_group, device_count(self._mesh), 0
        launched: list[_Launched] = []
        failed = None
        with ThreadPoolExecutor(devices) as pool:
            try:
                for group in groups(self._prepare_ahead(pool, pairs), limit, devices):
                    # The last group is filled up, because the program exists already.
                    batch = batch or len(rounds_of(group, devices))
                    for part in self._parts(group):
                        following = self._launch(part, batch)
                        yield from map(self._finish, launched)  # of the part before; the devices are busy meanwhile
                        launched = following
            except InputError as error:
                failed = error
            yield from map(self._finish, launched)
            if failed:
                raise failed

    def _prepare_ahead(
        self, pool: ThreadPoolExecutor, pairs: Iterable[tuple[np.ndarray, np.ndarray | None]]
    ) -> Iterator[Prepared]:
        waiting: deque[Future[Prepared]] = deque()
        for image, boxes in pairs:
            waiting.append(pool.submit(self._prepare, image, boxes))
            if len(waiting) > max(AHEAD, self.group_size):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _prepare(self, image: np.ndarray, proposals: np.ndarray | None) -> Prepared:
        """Reduces a large image, and finds its proposals and windows."""
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
        """Yields what is launched at once: all of a group, or every image alone, where devices share its windows."""
        scorers, devices = self._scorers, device_count(self._mesh)
        counts = [max(map(Scorer.batches, scorers, prepared.windows)) for prepared in group]
        if all(scorer.divides_windows for scorer in scorers) and are_faster_alone(counts, devices):
            yield from ([prepared] for prepared in group)
        else:
            yield group

    def _launch(self, group: list[Prepared], batch: int) -> list["_Launched"]:
        """Has the devices compute the scores of images; does not wait for them."""
        mesh, crf = self._mesh, self.settings.crf
        # First, because it waits for the device.
        kernels = [kernels_of(prepared.image, crf) for prepared in group] if crf != "none" else []
        rounds = rounds_of(group, device_count(mesh))
        images = [device_image(*(group[i].image for i in members), mesh=mesh) for members in rounds]
        scores, *partners = (
            scorer.score_all(images, [[group[i].windows[n] for i in members] for members in rounds], batch)
            for n, scorer in enumerate(self._scorers)
        )
        for others in partners:
            scores = list(map(on_each(MODES[self.settings.mode].combine, mesh), scores, others))
        results: dict[int, tuple[Array, Array]] = {}
        for members, of_round in zip(rounds, scores, strict=True):
            # Labels too: the host would look for maxima longer than the network takes on a GPU.
            labels = on_each(most_likely, mesh)(of_round)
            results |= zip(members, zip(parts_of(labels, mesh), parts_of(of_round, mesh), strict=True), strict=False)
        for i, of_image in enumerate(kernels):
            scores_of_image, size = results[i][1], group[i].image.shape[:2]
            if mesh is not None:  # the first device: the CRF's programs depend on the image, and each compiles its own
                scores_of_image = jax.device_put(scores_of_image, mesh.devices.flat[0])
            results[i] = refine(scores_of_image, of_image, size, crf, self._sharpness)
        return [_Launched(prepared, *results[i]) for i, prepared in enumerate(group)]

    def _finish(self, launched: "_Launched") -> Result:
        """Waits for an image's labels and scores, and brings them back to its own size."""
        (height, width), image, windows = launched.prepared
        labels, scores = (_of_image(np.asarray(part), image, launched.labels.ndim == 1) for part in launched[1:])
        if image.shape[:2] != (height, width):
            scores = sample_scores(scores, np.array([0, 0, width, height]), height, width)
            labels = np.argmax(scores, axis=-1).astype(label_type(scores.shape[-1]))
        return Result(labels, scores, (windows[0] * _scale((height, width), image.shape)).astype(np.float32))

    @property
    def group_size(self) -> int:
        """How many images the devices compute at once: one on each, or a batch of those that are seen in one window."""
        return self._rounds_per_group * device_count(self._mesh)

    @property
    def _rounds_per_group(self) -> int:
        return self.settings.batch_size if all(scorer.mode.one_window for scorer in self._scorers) else 1

    @cached_property
    def _mesh(self) -> Mesh | None:
        return local_mesh(self.devices)

    @property
    def _sharpness(self) -> float:
        """The factor on the scores that gives the CRF its unaries, with `crf_sharpness=0` resolved."""
        settings = self.settings
        if settings.crf_sharpness or settings.crf != "usual":
            return settings.crf_sharpness or 1.0
        modes = [scorer.mode for scorer in self._scorers]
        return max(mode.sharpness if self.partner is None else mode.ensemble_sharpness for mode in modes)

    @cached_property
    def _scorers(self) -> list[Scorer]:
        members = [Member(self.net, self.variables, self.input_size), *([self.partner] if self.partner else [])]
        return [
            Scorer(net, variables, len(self.class_names), size, self.settings, self._mesh)
            for net, variables, size in members
        ]

    @property
    def _needs_proposals(self) -> bool:
        return any(scorer.mode.of_proposals is not None for scorer in self._scorers)


class _Launched(NamedTuple):
    """An image that a device computes, or has computed; its results are padded, or row by row as a CRF leaves them."""

    prepared: Prepared
    labels: Array  # [Hp, Wp] or [P]
    scores: Array  # [Hp, Wp, K] or [P, K]


def _of_image(part: np.ndarray, image: np.ndarray, by_row: bool) -> np.ndarray:
    """Returns a copy without the padding, [H, W, ...], of [Hp, Wp, ...] or, `by_row`, of [P, ...]."""
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
            f"({', '.join(class_names[:4])}, ...); both must be trained on the same"
        )
    return partner


def default_input_size(net: nn.Module) -> int:
    """Returns the side of the input that the original gives a network; of a DeconvNet, the least that its fc6 takes."""
    if isinstance(net, FCN8s):
        return FCN8S_INPUT_SIZE
    return net.min_input_size if isinstance(net, DeconvNet) else DECONVNET_INPUT_SIZE


def default_class_names(count: int) -> tuple[str, ...]:
    """Returns VOC's names for VOC's number of classes, else "class 0", "class 1", ..."""
    return VOC_CLASSES if count == len(VOC_CLASSES) else tuple(f"class {i}" for i in range(count))


def _scale(of: Sequence[int], to: Sequence[int]) -> np.ndarray:
    """Returns the factors [4] that map box coordinates on an image of shape `to` to those on one of shape `of`."""
    return np.array([of[1], of[0]] * 2) / np.array([to[1], to[0]] * 2)
