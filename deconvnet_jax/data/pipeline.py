"""Produces training batches as an endless iterator that is reproducible and can be saved and resumed.

Crop k of a run is a pure function of the settings and k. So the batch of a step does not depend on the number of
threads, worker processes or hosts, and a run that resumes on other machines continues with the very next crop.

Windows are shuffled in every epoch, but windows of the same image stay near each other, so that one decode serves
several of them. An image's windows are divided into groups, called handfuls. First the handfuls are shuffled over the
whole epoch; then the windows are shuffled within blocks of handfuls. So a batch shows many images, and the decoded
images of a block fit into memory.
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

from deconvnet_jax.data.colors import jitter_colors
from deconvnet_jax.data.training_windows import Windows
from deconvnet_jax.data.windows import (
    Range,
    crop_place,
    crop_window,
    keep_class,
    number_parts,
    random_angle,
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
_LIMITS |= {"rotation": (0, 180), "brightness": (0, 1), "contrast": (0, 1), "saturation": (0, 1), "hue": (0, 0.5)}


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """Settings of how windows become crops. Their names are those of the section "data" of the config.

    Attributes:
      resize_size: side, in pixels, of the square that a window is resized to (original: 250).
      crop_size: side, in pixels, of the crop that is cut out of this square (original: 224). A multiple of 32.
      label_mode: "instance" labels only the window's object and makes everything else background (stage 1). "all"
        labels every class. Windows without a single object are labelled completely in both modes.
      mirror: whether to mirror half of the crops.
      random_crop: whether to crop at a random place. Otherwise crops are central.
      zoom: smallest and largest factor, 0.1 to 10, by which `resize_size` is multiplied at random. (1, 1) disables it.
      inside_image: whether random crops show as little as possible of what lies outside the image (`crop_place`).
      crops_per_decode: largest number of windows of one image that are kept near each other, so that one decode serves
        them all. With workers, each of them decodes the image once.
      cache_mb: memory for decoded images, in MiB, over all workers. The least recently used images are dropped first.
      read_threads: threads that prepare batches, in each worker.
      workers: processes that prepare batches. 0 uses threads of the main process.
      rotation: largest angle, in degrees, by which crops are turned about their centres; each crop draws its own, in
        either direction. Outside the image, crops are black and labelled 255. 0 disables it.
      brightness: largest random change of the brightness, as a share (`jitter_colors`). 0 disables it.
      contrast: the same for the contrast.
      saturation: the same for the saturation.
      hue: largest random shift of the hue, in turns of the colour circle, 0 to 0.5. 0 disables it.

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
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

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
    """Endless sequence of the training crops of one process, with random access. It can be sent to other processes."""

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
        """Stores the settings; images are read on access. The arguments are those of `training_batches`."""
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
        angle = random_angle(settings.rotation, rng)
        image, label = crop_window(example.image, label, box, size, (top, left, settings.crop_size), angle)
        image, label = random_mirror(image, label, rng) if settings.mirror else (image, label)
        changes = settings.brightness, settings.contrast, settings.saturation, settings.hue
        image = jitter_colors(image, *changes, rng)
        return {"image": image, "label": label}

    def _label(self, example: Example, window: int) -> np.ndarray:
        instance_id = int(self._windows.instance_ids[window])
        if not (self._by_object and instance_id):
            return example.label
        return keep_class(example.label, example.instances, instance_id, int(self._windows.class_ids[window]))


def windows_digest(windows: Windows) -> str:
    """Returns a digest that changes whenever a window changes, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for field in windows:
        digest.update(np.ascontiguousarray(field).tobytes())
    return digest.hexdigest()[:16]


class TrainingBatches:
    """Endless iterator over training batches, made by `training_batches`.

    A batch is {"image": uint8 RGB [B, crop, crop, 3], "label": uint8 [B, crop, crop], 255 = ignore}.
    """

    def __init__(self, batches: grain.MapDataset, threads: int, workers: int, digest: str):
        """Stores the data set; threads and workers start with the first batch.

        Args:
          batches: batches with random access.
          threads: number of threads that prepare batches, in each worker.
          workers: number of worker processes. 0 uses threads of the main process.
          digest: digest of the windows (`windows_digest`). A saved position is valid only for these windows.
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
        """Returns the position as a dict for JSON.

        Its keys are "next_index", the number of batches taken so far, and "windows", the digest of the windows.
        """
        return {"next_index": self._next, "windows": self._digest}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position from `get_state`. The numbers of threads, workers and processes may differ from that run.

        Raises:
          InputError: if the position belongs to other windows.
        """
        if state.get("windows", self._digest) != self._digest:  # Older versions saved no digest.
            raise InputError(
                "the training windows are not those of the checkpoint, because images, masks, proposals, the window "
                "list or data.min_window (0 in older versions) have changed; set data.min_window as it was, or start a "
                "new run in another folder from this run's weights (--config.init_from)"
            )
        self.close()
        self._next = int(state["next_index"])

    def close(self) -> None:
        """Stops threads and workers. The next batch starts them again at the same position."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start(self) -> grain.DatasetIterator:
        # The buffer size counts batches. Grain's default of 500 would take gigabytes.
        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=2 * self._threads)
        dataset = self._batches[self._next :].to_iter_dataset(options)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # Grain's workers read flags, which a notebook does not parse.
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

    Every window comes once per epoch, in another order each epoch. All processes together make one batch of
    `process_count * batch_size` crops, which is the same for any number of processes. `get_state()` and
    `set_state(state)` of the iterator save and restore its position.

    Args:
      source: annotated images. They are read from several threads.
      windows: windows to cut out of them (`training_windows`).
      settings: how windows become crops. None uses `CropSettings()`.
      batch_size: crops per batch in this process.
      seed: seed, from 0, of the order, the crops and the mirroring.
      process_index: index of this process, from 0.
      process_count: number of processes that train together.

    Returns:
      Iterator over {"image": uint8 RGB [B, crop, crop, 3], "label": uint8 [B, crop, crop], 255 = ignore}.

    Raises:
      InputError: if `batch_size` or `seed` is out of range, or there is no window.

    Example:
      >>> from deconvnet_jax.data import open_split, prepare_voc_layout, training_batches, training_windows
      >>> split = open_split(prepare_voc_layout("scenes", "tfds"), "train")
      >>> batches = training_batches(split, training_windows(split), batch_size=4)
      >>> batch = next(batches)
      >>> batch["image"].shape, batch["label"].shape, batches.get_state()["next_index"]
      ((4, 224, 224, 3), (4, 224, 224), 1)
      >>> batches.close()
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


# Number of full handfuls in a block, and so of decoded images in use at a time: half a gigabyte for VOC. Where images
# have few windows it is more, for example four times as many with two windows per image.
BLOCK = 512


class WindowOrder:
    """Endless order of training windows: `order[position]` is the index of a window.

    Every window comes once per epoch. The order is a pure function of the constructor's arguments.
    """

    def __init__(self, images: np.ndarray, seed: int, handful: int = 8):
        """Stores the arguments; the order of an epoch is computed on first use.

        Args:
          images: image of every window, int [n].
          seed: seed, from 0.
          handful: largest number of windows of one image that are kept within one block.
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
                # Two epochs are kept, because threads that read ahead may already be in the next one.
                self._epochs = {kept: order for kept, order in self._epochs.items() if kept in (epoch - 1, epoch + 1)}
                self._epochs[epoch] = epoch_order(self._images, self._seed, epoch, self._handful)
            return self._epochs[epoch]


def epoch_order(images: np.ndarray, seed: int, epoch: int, handful: int) -> np.ndarray:
    """Returns the indices of all windows in the order of one epoch.

    Args:
      images: image of every window, int [n].
      seed: seed, from 0.
      epoch: number of the epoch, from 0.
      handful: largest number of windows of one image that are kept within one block. 1 shuffles all windows freely.

    Returns:
      A permutation of 0 to n - 1, int64 [n].
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(images))
    if handful > 1:
        # Makes the windows of an image adjacent, in random order.
        grouped = shuffled[np.argsort(images[shuffled], kind="stable")]
        handfuls = _handfuls(images[grouped], handful)
        shuffled = grouped[np.argsort(rng.permutation(handfuls[-1] + 1)[handfuls], kind="stable")]
    for start in range(0, len(shuffled), BLOCK * handful):
        rng.shuffle(shuffled[start : start + BLOCK * handful])
    return shuffled


def _handfuls(images: np.ndarray, size: int) -> np.ndarray:
    """Returns the handful that each window belongs to, counted from 0. Windows of the same image must be adjacent."""
    count = len(images)
    begins = np.flatnonzero(np.r_[True, images[1:] != images[:-1]])
    rank = np.arange(count) - np.repeat(begins, np.diff(np.r_[begins, count]))  # Position within the image.
    return np.cumsum(rank % size == 0) - 1


class CachedSource:
    """Source that keeps the most recently used examples in memory, up to a number of bytes.

    It is safe for threads: a thread that asks for an example that another thread is decoding waits for that one. A copy
    that is sent to another process starts empty.
    """

    def __init__(
        self,
        source: Examples,
        capacity: int,
        prepare: Callable[[Example], Example] | None = None,
    ):
        """Wraps a source.

        Args:
          source: examples to keep.
          capacity: memory for the examples in bytes. 0 keeps none.
          prepare: function that is applied to an example before it is kept. None keeps it as it is.
        """
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
            example = self._source[index]  # Read outside the lock, so that other threads can continue.
            example = self._prepare(example) if self._prepare else example
            self._keep(index, example)
        except BaseException as error:
            with self._lock:
                self._awaited.pop(index, None)
            future.set_exception(error)  # Without this, threads that wait for it would wait forever.
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
