"""Photograph in, label map out."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import chex
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
from deconvnet_jax.inference.combine import kernels_of, mean_of_probabilities, most_likely, product_of_positive, refine
from deconvnet_jax.inference.devices import device_count, local_mesh, on_each, parts_of, replicated
from deconvnet_jax.inference.rounds import Prepared, are_faster_alone, groups, rounds_of
from deconvnet_jax.inference.sampling import sample_scores
from deconvnet_jax.inference.scorer import Scorer, device_image
from deconvnet_jax.inference.settings import InferenceSettings, settings_from
from deconvnet_jax.labels import label_type
from deconvnet_jax.models import DeconvNet, FCN8s
from deconvnet_jax.ops import checked_boxes
from deconvnet_jax.ops.dense_crf import Kernels
from deconvnet_jax.weights import load_checkpoint, network_from_caffe

DECONVNET_INPUT_SIZE = 224
FCN8S_INPUT_SIZE = 500  # all images of VOC fit into it (original: cache_FCN8s_results.m)
AHEAD = 3  # images whose proposals may wait for the devices, at least
PROPOSAL_SHARPNESS = 4.0  # of the CRF's unaries; measured: docs/inference.md, "What the CRF starts from"
CANDIDATES = 2_000  # proposals that "released" chooses from, which leaves small ones out (paper, section 4.3)


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


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network with its variables, applied to photographs of any size.

    Attributes:
      net: a module with `apply(variables, images, train=False) -> logits`, contract as `models.DeconvNet`.
      variables: of the network; they are copied to all `devices` once.
      class_names: in the order of the ids.
      input_size: side of the network's input.
      settings: which windows of an image the network is shown, how their scores are put together, the CRF, ...
      partner: the second network of an ensemble, with its own windows.
      devices: that compute, of this process; by default all (`jax.local_devices()`), or that of `jax.default_device`
        where it is set. Each segments its own images; they share the windows of a single image if the maximum is taken.
        The number of devices does not change results, except for rounding where images share a batch.
    """

    net: nn.Module
    variables: chex.ArrayTree
    class_names: tuple[str, ...]
    input_size: int = DECONVNET_INPUT_SIZE
    settings: InferenceSettings = field(default_factory=InferenceSettings)
    partner: "Segmenter | None" = None
    devices: Sequence[jax.Device] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", replicated(self.variables, self._mesh))
        if self.partner is not None and self.partner.devices != self.devices:
            object.__setattr__(self, "partner", replace(self.partner, devices=self.devices))

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        step: int | None = None,
        devices: Sequence[jax.Device] | None = None,
        **settings: Any,
    ) -> "Segmenter":
        """The network of a training run; by default its best step.

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
        """A DeconvNet or FCN-8s from a caffemodel that was made for inference.

        Args:
          path: DeconvNet_trainval_inference.caffemodel, fcn-8s-pascal.caffemodel, ...
          class_names: in the order of the ids; by default VOC's for 21 classes, else "class 0", "class 1", ...
          devices: that compute; by default all of this process.
          **settings: of `InferenceSettings`.

        Raises:
          InputError: if the file is neither, is damaged, or is a snapshot of training: batch statistics are missing.
        """
        net, variables, info = network_from_caffe(path)
        names = list(class_names or default_class_names(net.num_classes))
        info = {**info, "config": {}, "class_names": names}
        return cls.from_loaded(net, variables, info, devices=devices, **settings)

    @classmethod
    def from_loaded(
        cls,
        net: nn.Module,
        variables: chex.ArrayTree,
        info: dict[str, Any],
        devices: Sequence[jax.Device] | None = None,
        **settings: Any,
    ) -> "Segmenter":
        """From what `weights.load_checkpoint` returns; the input has the size that the network was trained with.

        Raises:
          InputError: if the network's batch statistics were never measured, the second network of the ensemble cannot
            be loaded or has other classes, or a setting is unknown.
        """
        if info.get("batch_statistics") == "unknown":
            raise InputError(
                "the statistics of this network's batch normalisation are not known: it was trained in Caffe, which "
                "keeps none, or not trained yet; measure them: python -m experiments.calibrate_bn --checkpoint=..."
            )
        chosen = settings_from(info["config"].get("inference", {})).changed(**settings)
        names = tuple(info["class_names"])
        size = info["config"].get("data", {}).get("crop_size", default_input_size(net))
        path = chosen.ensemble_checkpoint
        partner = cls._load_partner(path, names, devices) if path else None
        return cls(net, variables, names, size, chosen, partner, devices)

    @classmethod
    def _load_partner(
        cls, path: str, class_names: tuple[str, ...], devices: Sequence[jax.Device] | None
    ) -> "Segmenter":
        alone = {"ensemble_checkpoint": "", "crf": "none", "devices": devices}
        if Path(path).expanduser().is_file():
            return cls.from_caffe(Path(path).expanduser(), class_names, **alone)
        partner = cls.from_checkpoint(path, **alone)
        if partner.class_names != class_names:
            raise InputError(
                f"inference.ensemble_checkpoint={path} has other classes ({', '.join(partner.class_names[:4])}, ...) "
                f"than this network ({', '.join(class_names[:4])}, ...); both must be trained on the same"
            )
        return partner

    def changed(self, **settings: Any) -> "Segmenter":
        """A Segmenter with the same networks and other settings (all but `ensemble_checkpoint`).

        Raises:
          InputError: for an unknown name or value.
        """
        if "ensemble_checkpoint" in settings:
            raise InputError("inference.ensemble_checkpoint: load the Segmenter anew to change its networks")
        return replace(self, settings=self.settings.changed(**settings))

    def alone(self) -> "Segmenter":
        """The first network of an ensemble, by itself."""
        return replace(self, partner=None)

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
        self, images: Iterable[np.ndarray], proposals: Iterable[np.ndarray] | None = None, progress: bool = False
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
        return _with_progress(results, images) if progress else results

    def _stream(self, pairs: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> Iterator[Result]:
        limit, devices, batch = self._rounds_per_group, device_count(self._mesh), 0
        launched: list[_Launched] = []
        with ThreadPoolExecutor(devices) as pool:
            ready = self._prepare_ahead(pool, pairs, max(AHEAD, self.group_size))
            for group, error in groups(ready, limit, devices):
                # The last group is filled up, because the program exists already.
                batch = batch or len(rounds_of(group, devices))
                for part in self._parts(group):
                    following = self._launch(part, batch)
                    yield from map(self._finish, launched)  # of the part before; the devices are busy meanwhile
                    launched = following
                if error:
                    yield from map(self._finish, launched)
                    raise error
            yield from map(self._finish, launched)

    def _prepare_ahead(
        self, pool: ThreadPoolExecutor, pairs: Iterable[tuple[np.ndarray, np.ndarray | None]], ahead: int
    ) -> Iterator[Prepared]:
        waiting: deque[Future[Prepared]] = deque()
        for image, boxes in pairs:
            waiting.append(pool.submit(self._prepare, image, boxes))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _prepare(self, image: np.ndarray, proposals: np.ndarray | None) -> Prepared:
        """Reduces a large image and finds its proposals."""
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
            proposals = None
        elif proposals is None:
            wanted = CANDIDATES if self.settings.mode == "released" else self.settings.num_proposals
            proposals = propose_boxes(reduced, wanted, method=self.settings.proposals)[0]
        else:
            proposals = proposals / _scale(image, reduced)
        return Prepared(image.shape[:2], reduced, proposals)

    def _parts(self, group: list[Prepared]) -> Iterator[list[Prepared]]:
        """Yields what is launched at once: all of a group, or every image alone, where devices share its windows."""
        scorers, devices = self._scorers, device_count(self._mesh)
        counts = [
            max(scorer.batches(scorer.windows(*one.image.shape[:2], one.proposals)) for scorer in scorers)
            for one in group
        ]
        if scorers[0].divides_windows and are_faster_alone(counts, devices):
            yield from ([prepared] for prepared in group)
        elif group:
            yield group

    def _launch(self, group: list[Prepared], batch: int) -> list["_Launched"]:
        """Has the devices compute the scores of images; does not wait for them."""
        mesh, crf = self._mesh, self.settings.crf
        # First, because it waits for the device.
        kernels = [kernels_of(prepared.image, crf) for prepared in group] if crf != "none" else []
        scorers = self._scorers
        boxes = [[scorer.windows(*one.image.shape[:2], one.proposals) for one in group] for scorer in scorers]
        rounds = rounds_of(group, device_count(mesh))
        images = [device_image(*(group[i].image for i in members), mesh=mesh) for members in rounds]
        scores, *partners = (
            scorer.score_all(images, [[own[i] for i in members] for members in rounds], batch)
            for scorer, own in zip(scorers, boxes, strict=True)
        )
        for others in partners:
            combine = product_of_positive if self.settings.mode == "released" else mean_of_probabilities
            scores = list(map(on_each(combine, mesh), scores, others))
        results: dict[int, tuple[Array, Array]] = {}
        for members, of_round in zip(rounds, scores, strict=True):
            # Labels too: the host would look for maxima longer than the network takes on a GPU.
            labels = on_each(most_likely, mesh)(of_round)
            results |= zip(members, zip(parts_of(labels, mesh), parts_of(of_round, mesh), strict=True), strict=False)
        for i, of_image in enumerate(kernels):
            results[i] = self._refined(results[i][1], of_image, group[i].image.shape[:2])
        return [_Launched(prepared, results[i], boxes[0][i]) for i, prepared in enumerate(group)]

    def _refined(self, scores: Array, kernels: Kernels, size: tuple[int, int]) -> tuple[Array, Array]:
        """The CRF, on the first device: its programs depend on the image, and each device would compile its own."""
        if self._mesh is not None:
            scores = jax.device_put(scores, self._mesh.devices.flat[0])
        return refine(scores, kernels, size, self.settings.crf, self._sharpness)

    def _finish(self, launched: "_Launched") -> Result:
        """Waits for an image's labels and scores, and brings them back to its own size."""
        (height, width), image, _ = launched.prepared
        by_row = launched.result[0].ndim == 1  # as a CRF leaves them
        labels, scores = (_of_image(np.asarray(part), *image.shape[:2], by_row) for part in launched.result)
        if image.shape[:2] != (height, width):
            scores = sample_scores(scores, np.array([0, 0, width, height]), height, width)
            labels = np.argmax(scores, axis=-1).astype(label_type(scores.shape[-1]))
        scale = np.array([width, height] * 2) / np.array(image.shape[1::-1] * 2)
        return Result(labels, scores, (launched.boxes * scale).astype(np.float32))

    @property
    def group_size(self) -> int:
        """How many images the devices compute at once: one on each, or a batch of those that are seen in one window."""
        return self._rounds_per_group * device_count(self._mesh)

    @property
    def _rounds_per_group(self) -> int:
        return self.settings.batch_size if all(scorer.has_one_window for scorer in self._scorers) else 1

    @cached_property
    def _mesh(self) -> Mesh | None:
        return local_mesh(self.devices)

    @property
    def _sharpness(self) -> float:
        """The factor on the scores that gives the CRF its unaries, with `crf_sharpness=0` resolved."""
        settings = self.settings
        if settings.crf_sharpness:
            return settings.crf_sharpness
        is_product = settings.mode == "released" and self.partner is not None  # which is sharp already
        folded = self._needs_proposals and not is_product  # an FCN-8s alone sees whole images
        return PROPOSAL_SHARPNESS if settings.crf == "usual" and folded else 1.0

    @property
    def _scorers(self) -> list[Scorer]:
        members = [self] if self.partner is None else [self, self.partner]
        count = len(self.class_names)
        return [
            Scorer(member.net, member.variables, count, member.input_size, self.settings, self._mesh)
            for member in members
        ]

    @property
    def _needs_proposals(self) -> bool:
        return any(scorer.needs_proposals for scorer in self._scorers)


class _Launched(NamedTuple):
    """An image that a device computes, or has computed."""

    prepared: Prepared
    result: tuple[Array, Array]  # labels and scores, [Hp, Wp] and [Hp, Wp, K], or row by row, [P] and [P, K]
    boxes: np.ndarray  # the windows of the first network, on `prepared.image`


def _of_image(part: np.ndarray, height: int, width: int, by_row: bool) -> np.ndarray:
    """A copy without the padding, [H, W, ...], of [Hp, Wp, ...], or with `by_row` of pixels row by row, [P, ...]."""
    if by_row:
        return np.array(part[: height * width]).reshape(height, width, *part.shape[1:])
    return np.array(part[:height, :width])


def check_image(image: np.ndarray) -> None:
    """Raises InputError unless the image is uint8 RGB [H, W, 3] with a pixel at least."""
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
    if not image.size:
        raise InputError(f"the image is empty, {list(image.shape)}; expected a pixel at least")


def default_input_size(net: nn.Module) -> int:
    """Side of the input that the original gives the network; that of a DeconvNet with another fc6 is what fc6 sees."""
    if isinstance(net, FCN8s):
        return FCN8S_INPUT_SIZE
    return net.min_input_size if isinstance(net, DeconvNet) else DECONVNET_INPUT_SIZE


def default_class_names(count: int) -> tuple[str, ...]:
    """VOC's names for VOC's number of classes, else "class 0", "class 1", ..."""
    return VOC_CLASSES if count == len(VOC_CLASSES) else tuple(f"class {i}" for i in range(count))


def _scale(of: np.ndarray, to: np.ndarray) -> np.ndarray:
    """By how much boxes on the image `of` are larger than on the image `to`, [4]."""
    return np.array(of.shape[1::-1] * 2) / np.array(to.shape[1::-1] * 2)


def _with_progress(results: Iterator[Result], images: Iterable[np.ndarray]) -> Iterator[Result]:
    total = len(images) if isinstance(images, Sized) else None
    yield from track(results, "segmenting", total, console=Console(stderr=True))
