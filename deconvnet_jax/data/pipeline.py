"""Batches for training: an endless iterator, the same for the same seed, that can be saved and resumed.

Crop k of a run is a pure function of the settings and k. So the batch of a step does not depend on threads, worker
processes or hosts, and a run that resumes elsewhere resumes with the very next crop.

Windows are shuffled in every epoch, but those of an image stay near each other: an image's windows are dealt out in
handfuls; the handfuls are shuffled over the whole epoch, and windows are shuffled once more within blocks of handfuls.
So a batch shows many images, and while a block lasts its decoded images are kept.
"""

import dataclasses
import hashlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grain
import numpy as np
from absl import flags

from deconvnet_jax.data.training_windows import Windows
from deconvnet_jax.data.windows import (
    Range,
    crop_place,
    crop_window,
    keep_class,
    number_parts,
    random_mirror,
    shown_extent,
    zoomed_size,
)
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import Example, Examples
from deconvnet_jax.processes import stay_with_parent

LABEL_MODES = ("instance", "all")
_READ_THREADS = 4
_LIMITS = {"cache_mb": (0, 2**40), "crops_per_decode": (1, 2**20), "read_threads": (1, 2**10), "workers": (0, 2**10)}


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """How windows become crops; the names are those of the config's section "data".

    Attributes:
      resize_size: a window is resized to this square (original: 250),
      crop_size: of which this is cut out (224); a multiple of 32.
      label_mode: "instance": in an object's window that object alone is labelled, all else background (stage 1);
        "all": every class is labelled. Other windows are labelled completely in both.
      mirror: mirror half of the crops.
      random_crop: crop at a random place, otherwise from the centre.
      zoom: a window is resized to `resize_size` times a random factor between these two.
      inside_image: random crops show as little as possible of what is beyond the image (`crop_place`).
      crops_per_decode: up to this many windows of an image come soon after each other, so that one decode serves them;
        one in each worker that they are dealt to.
      cache_mb: memory for decoded images in MiB, over all workers; the least recently used ones go first.
      read_threads: threads that prepare batches, in each worker.
      workers: processes that prepare batches; 0: threads of this one.

    Raises:
      InputError: if a setting is not usable.
    """

    resize_size: int = 250
    crop_size: int = 224
    label_mode: str = "instance"
    mirror: bool = True
    random_crop: bool = True
    zoom: Range = (1.0, 1.0)
    inside_image: bool = False
    crops_per_decode: int = 8
    cache_mb: float = 2048
    read_threads: int = _READ_THREADS
    workers: int = 0

    def __post_init__(self) -> None:
        crop_size, zoom = self.crop_size, self.zoom
        if crop_size < 1 or crop_size % 32:
            raise InputError(f"data.crop_size={crop_size}: the network needs a multiple of 32, for example 224")
        if self.resize_size < crop_size:
            raise InputError(
                f"data.resize_size={self.resize_size}: smaller than data.crop_size={crop_size}; use {crop_size} or more"
            )
        if self.label_mode not in LABEL_MODES:
            raise InputError(f"data.label_mode='{self.label_mode}': expected one of {', '.join(LABEL_MODES)}")
        two = isinstance(zoom, tuple | list) and len(zoom) == 2 and all(isinstance(x, int | float) for x in zoom)
        if not two or not 0.1 <= zoom[0] <= zoom[1] <= 10:
            raise InputError(f"data.zoom={zoom}: expected two factors, the smaller one first, between 0.1 and 10")
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise InputError(f"data.{name}={getattr(self, name)}: expected {least} to {most}")


class Crops:
    """The endless sequence of a process's training crops, with random access; can be sent to other processes."""

    def __init__(
        self,
        source: Examples,
        windows: Windows,
        settings: CropSettings,
        batch_size: int,
        seed: int,
        process_index: int,
        process_count: int,
    ):
        """As for `training_batches`."""
        self._by_object = settings.label_mode == "instance" and bool(windows.instance_ids.any())
        capacity = int(settings.cache_mb * 2**20) // max(1, settings.workers)
        self._source = CachedSource(source, capacity, _numbered if self._by_object else _without_instances)
        self._windows, self._settings, self._seed = windows, settings, seed
        self._order = WindowOrder(windows.images, seed, settings.crops_per_decode)
        self._batch_size, self._process_index, self._process_count = batch_size, process_index, process_count

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        settings = self._settings
        batch, place = divmod(index, self._batch_size)
        position = (batch * self._process_count + self._process_index) * self._batch_size + place
        rng = np.random.default_rng([self._seed, position])
        window = self._order[position]
        example = self._source[int(self._windows.images[window])]
        label = self._label(example, window)
        box, size = self._windows.boxes[window], zoomed_size(settings.resize_size, settings.zoom, rng)
        shown = shown_extent(box, size, *label.shape) if settings.inside_image else None
        top, left = crop_place(size, settings.crop_size, rng if settings.random_crop else None, shown)
        image, label = crop_window(example.image, label, box, size, (top, left, settings.crop_size))
        image, label = random_mirror(image, label, rng) if settings.mirror else (image, label)
        return {"image": image, "label": label}

    def _label(self, example: Example, window: int) -> np.ndarray:
        instance_id = int(self._windows.instance_ids[window])
        if not (self._by_object and instance_id):
            return example.label
        return keep_class(example.label, example.instances, instance_id, int(self._windows.class_ids[window]))


def windows_digest(windows: Windows) -> str:
    """Changes with the windows."""
    digest = hashlib.sha256()
    for field in windows:
        digest.update(np.ascontiguousarray(field).tobytes())
    return digest.hexdigest()[:16]


class TrainingBatches:
    """The endless iterator that `training_batches` returns."""

    def __init__(self, batches: grain.MapDataset, threads: int, workers: int, digest: str):
        """
        Args:
          batches: with random access.
          threads: prepare so many batches at a time, in each worker.
          workers: processes; 0: the threads are this process's own.
          digest: of the windows; a position is one among these windows only.
        """
        self._batches, self._threads, self._workers, self._digest = batches, threads, workers, digest
        self._next = 0
        self._iterator: grain.DatasetIterator | None = None

    def __iter__(self) -> "TrainingBatches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        iterator = self._iterator = self._iterator or self._start()
        batch = next(iterator)
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position, as JSON: {"next_index": number of batches given out, "windows": digest of the windows}."""
        return {"next_index": self._next, "windows": self._digest}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position; the number of threads, workers and processes may be another one.

        Raises:
          InputError: if it is a position among other windows.
        """
        if state.get("windows", self._digest) != self._digest:  # saved states of before have none
            raise InputError(
                "the windows to train on are not those of the checkpoint: images, masks, proposals or the window list "
                "have changed since; begin anew in another folder, from this run's weights: --config.init_from"
            )
        self.close()
        self._next = int(state["next_index"])

    def close(self) -> None:
        """Stops threads and workers; the next batch starts them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start(self) -> grain.DatasetIterator:
        # The buffer counts batches; Grain's default of 500 would take gigabytes.
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=2 * self._threads)
        dataset = self._batches[self._next :].to_iter_dataset(options)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # Grain's workers read flags; a notebook or another library parses none
                flags.FLAGS.mark_as_parsed()
            workers = grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2)
            dataset = dataset.mp_prefetch(workers, worker_init_fn=stay_with_parent)
        return iter(dataset)


def training_batches(
    source: Examples,
    windows: Windows,
    settings: CropSettings | None = None,
    *,
    batch_size: int,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> TrainingBatches:
    """Returns an endless iterator over batches of augmented crops.

    Every window comes once an epoch, each epoch in another order. All processes together make one batch of
    `process_count * batch_size` crops, the same one whatever their number. `get_state()` and `set_state(state)` save
    and restore the position.

    Args:
      source: annotated images, read from several threads.
      windows: what to cut out of them; see `training_windows`.
      settings: how; by default `CropSettings()`.
      batch_size: crops per batch, of this process.
      seed: decides order, crops and mirroring.
      process_index: of this process,
      process_count: among these.

    Returns:
      Iterator over {"image": uint8 RGB [B, crop, crop, 3], "label": uint8 [B, crop, crop], 255 = ignore}.

    Raises:
      InputError: if a number is not usable, or there is no window.
    """
    settings = settings or CropSettings()
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: expected at least 1")
    if not 0 <= seed <= 2**63:
        raise InputError(f"seed={seed}: expected 0 to {2**63}")
    if not len(windows.images):
        raise InputError("there is no window to train on; check data.windows and the masks")
    crops = Crops(source, windows, settings, batch_size, seed, process_index, process_count)
    dataset = grain.MapDataset.source(crops).batch(batch_size, drop_remainder=True)
    return TrainingBatches(dataset, settings.read_threads, settings.workers, windows_digest(windows))


def _numbered(example: Example) -> Example:
    return example if example.instances is not None else example._replace(instances=number_parts(example.label))


def _without_instances(example: Example) -> Example:
    return example._replace(instances=None)


# Full handfuls in a block. So many decoded images, half a gigabyte of VOC's, are in use at a time; more where images
# have few windows: with two windows each, four times as many.
BLOCK = 512


class WindowOrder:
    """Position in the endless sequence of training windows -> index of a window. A pure function of its arguments.

    Every window comes once an epoch.
    """

    def __init__(self, images: np.ndarray, seed: int, handful: int = 8):
        """
        Args:
          images: int [n], the image of every window.
          seed: from 0.
          handful: up to so many windows of an image come within one block.
        """
        self._images, self._seed, self._handful = images, seed, handful
        self._epochs: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return WindowOrder, (self._images, self._seed, self._handful)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, len(self._images))
        return int(self._epoch(epoch)[place])

    def _epoch(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._epochs:
                # Two are kept: threads that read ahead are in the next epoch already.
                self._epochs = {kept: order for kept, order in self._epochs.items() if kept in (epoch - 1, epoch + 1)}
                self._epochs[epoch] = epoch_order(self._images, self._seed, epoch, self._handful)
            return self._epochs[epoch]


def epoch_order(images: np.ndarray, seed: int, epoch: int, handful: int) -> np.ndarray:
    """The indices of all windows in the order of one epoch, int64 [n].

    Args:
      images: int [n], the image of every window.
      seed: from 0.
      epoch: from 0.
      handful: up to so many windows of an image come within one block.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(images))
    if handful > 1:
        grouped = shuffled[np.argsort(images[shuffled], kind="stable")]  # an image's windows together, shuffled
        handfuls = _handfuls(images[grouped], handful)
        shuffled = grouped[np.argsort(rng.permutation(handfuls[-1] + 1)[handfuls], kind="stable")]
    for start in range(0, len(shuffled), BLOCK * handful):
        rng.shuffle(shuffled[start : start + BLOCK * handful])
    return shuffled


def _handfuls(images: np.ndarray, size: int) -> np.ndarray:
    """The number of the handful that each window falls into, counted from 0; equal images must be together."""
    count = len(images)
    begins = np.flatnonzero(np.r_[True, images[1:] != images[:-1]])
    rank = np.arange(count) - np.repeat(begins, np.diff(np.r_[begins, count]))  # within the image
    return np.cumsum(rank % size == 0) - 1


class CachedSource:
    """A source that keeps the examples used last in memory, up to a number of bytes.

    Safe for threads: whoever asks for an example that another thread is decoding waits for that one. A copy sent to
    another process begins empty.
    """

    def __init__(
        self,
        source: Examples,
        capacity: int,
        prepare: Callable[[Example], Example] | None = None,
    ):
        """`prepare` is applied to an example before it is kept; `capacity` is in bytes, from 0."""
        self._source, self._capacity, self._prepare = source, capacity, prepare
        self._kept: OrderedDict[int, Example] = OrderedDict()
        self._awaited: dict[int, Future[Example]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedSource, (self._source, self._capacity, self._prepare)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            is_awaited, future = index in self._awaited, self._awaited.setdefault(index, Future())
        if is_awaited:
            return future.result()
        try:
            example = self._source[index]  # outside of the lock: other threads go on
            example = self._prepare(example) if self._prepare else example
            self._keep(index, example)
        except BaseException as error:
            with self._lock:
                self._awaited.pop(index, None)
            future.set_exception(error)  # whoever waits for it must not wait for ever
            raise
        future.set_result(example)
        return example

    def _keep(self, index: int, example: Example) -> None:
        with self._lock:
            del self._awaited[index]
            self._kept[index] = example
            self._bytes += _size(example)
            while self._bytes > self._capacity:
                self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(example: Example) -> int:
    return sum(array.nbytes for array in (example.image, example.label, example.instances) if array is not None)
