"""Batches for training: an endless iterator, the same for the same seed, that can be saved and resumed.

Crop k of a run is a pure function of the settings and k. So the batch of a step does not depend on threads, worker
processes or hosts, and a run that goes on elsewhere goes on with the very next crop.
"""

import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grain
import numpy as np
from absl import flags

from deconvnet_jax.data.augment import Range, check_zoom, crop_place, random_mirror, zoomed_size
from deconvnet_jax.data.cache import CachedSource
from deconvnet_jax.data.order import WindowOrder
from deconvnet_jax.data.records import DatasetSplit
from deconvnet_jax.data.training_windows import Windows
from deconvnet_jax.data.windows import crop_window, keep_class, number_parts, shown_extent
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import Example
from deconvnet_jax.processes import stay_with_parent

LABEL_MODES = ("instance", "all")
_READ_THREADS = 4


class Crops(Sequence[dict[str, np.ndarray]]):
    """The endless sequence of a process's training crops, with random access; can be sent to other processes."""

    def __init__(
        self,
        source: Sequence[Example],
        windows: Windows,
        *,
        batch_size: int,
        resize_size: int,
        crop_size: int,
        label_mode: str,
        mirror: bool,
        random_crop: bool,
        seed: int,
        process_index: int,
        process_count: int,
        cache_bytes: int,
        crops_per_decode: int,
        zoom: Range,
        inside_image: bool,
    ):
        """As for `training_batches`."""
        self._by_object = label_mode == "instance" and bool(windows.instance_ids.any())
        self._source = CachedSource(source, cache_bytes, _numbered if self._by_object else _without_instances)
        self._windows = windows
        self._order = WindowOrder(windows.images, seed, crops_per_decode)
        self._batch_size, self._process_index, self._process_count = batch_size, process_index, process_count
        self._resize_size, self._crop_size = resize_size, crop_size
        self._mirror, self._random_crop, self._seed = mirror, random_crop, seed
        self._zoom, self._inside_image = zoom, inside_image

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        batch, place = divmod(index, self._batch_size)
        position = (batch * self._process_count + self._process_index) * self._batch_size + place
        rng = np.random.default_rng([self._seed, position])
        window = self._order[position]
        example = self._source[int(self._windows.images[window])]
        label = self._label(example, window)
        box, size = self._windows.boxes[window], zoomed_size(self._resize_size, self._zoom, rng)
        shown = shown_extent(box, size, *label.shape) if self._inside_image else None
        place = crop_place(size, self._crop_size, rng if self._random_crop else None, shown)
        image, label = crop_window(example.image, label, box, size, (*place, self._crop_size))
        image, label = random_mirror(image, label, rng) if self._mirror else (image, label)
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
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
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
    source: Sequence[Example],
    windows: Windows,
    *,
    batch_size: int,
    resize_size: int = 250,
    crop_size: int = 224,
    label_mode: str = "instance",
    mirror: bool = True,
    random_crop: bool = True,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    cache_bytes: int = 2 << 30,
    crops_per_decode: int = 8,
    read_threads: int = _READ_THREADS,
    workers: int = 0,
    zoom: Range = (1.0, 1.0),
    inside_image: bool = False,
) -> TrainingBatches:
    """An endless iterator over batches of augmented crops.

    Every window comes once an epoch, each epoch in another order (`order`). All processes together make one batch of
    `process_count * batch_size` crops, the same one whatever their number. `get_state()` and `set_state(state)` save
    and restore the position.

    Args:
      source: annotated images, read from several threads.
      windows: what to cut out of them; see `training_windows`.
      batch_size: crops a batch, of this process.
      resize_size: a window is resized to this square (original: 250),
      crop_size: of which this is cut out (224); a multiple of 32.
      label_mode: "instance": in an object's window that object alone is labelled, all else background (stage 1);
        "all": every class is labelled. Other windows are labelled completely in both.
      mirror: mirror half of the crops.
      random_crop: crop at a random place, otherwise from the centre.
      seed: decides order, crops and mirroring.
      process_index: of this process,
      process_count: among these.
      cache_bytes: memory for decoded images, over all workers; the least recently used ones go first.
      crops_per_decode: up to so many windows of an image come soon after each other, so that one decode serves them;
        one in each worker that they are dealt to.
      read_threads: batches are prepared in so many threads, in each worker.
      workers: processes that prepare batches; 0: threads of this one.
      zoom: a window is resized to `resize_size` times a random factor between these two.
      inside_image: random crops show as little as possible of what is beyond the image (`augment.crop_place`).

    Returns:
      Iterator over {"image": uint8 RGB [B, crop, crop, 3], "label": uint8 [B, crop, crop], 255 = ignore}.

    Raises:
      InputError: if a setting is not usable, or there is no window.
    """
    _check_sizes(batch_size, resize_size, crop_size, label_mode)
    check_zoom(zoom)
    _check_numbers(seed, cache_bytes, crops_per_decode, read_threads, workers)
    if not len(windows.images):
        raise InputError("there is no window to train on; check data.windows and the masks")
    crops = Crops(
        source,
        windows,
        batch_size=batch_size,
        resize_size=resize_size,
        crop_size=crop_size,
        label_mode=label_mode,
        mirror=mirror,
        random_crop=random_crop,
        seed=seed,
        process_index=process_index,
        process_count=process_count,
        cache_bytes=cache_bytes // max(1, workers),
        crops_per_decode=crops_per_decode,
        zoom=tuple(zoom),
        inside_image=inside_image,
    )
    dataset = grain.MapDataset.source(crops).batch(batch_size, drop_remainder=True)
    return TrainingBatches(dataset, read_threads, workers, windows_digest(windows))


def class_pixels(source: Sequence[Example], num_classes: int) -> np.ndarray:
    """How many pixels of each class there are, int64 [num_classes]; 255 is not counted."""
    label = source.label if isinstance(source, DatasetSplit) else lambda i: source[i].label
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        counts = pool.map(lambda i: np.bincount(label(i).ravel(), minlength=256), range(len(source)))
        return sum(counts, np.zeros(256, np.int64))[:num_classes]


def _numbered(example: Example) -> Example:
    return example if example.instances is not None else example._replace(instances=number_parts(example.label))


def _without_instances(example: Example) -> Example:
    return example._replace(instances=None)


def _check_sizes(batch_size: int, resize_size: int, crop_size: int, label_mode: str) -> None:
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: expected at least 1")
    if crop_size < 1 or crop_size % 32:
        raise InputError(f"data.crop_size={crop_size}: the network needs a multiple of 32, for example 224")
    if resize_size < crop_size:
        raise InputError(
            f"data.resize_size={resize_size}: smaller than data.crop_size={crop_size}; use {crop_size} or more"
        )
    if label_mode not in LABEL_MODES:
        raise InputError(f"data.label_mode='{label_mode}': expected one of {', '.join(LABEL_MODES)}")


def _check_numbers(seed: int, cache_bytes: int, crops_per_decode: int, read_threads: int, workers: int) -> None:
    for name, value, least, most in (
        ("seed", seed, 0, 2**63),
        ("data.cache_mb", cache_bytes >> 20, 0, 2**40),
        ("data.crops_per_decode", crops_per_decode, 1, 2**20),
        ("data.read_threads", read_threads, 1, 2**10),
        ("data.workers", workers, 0, 2**10),
    ):
        if not least <= value <= most:
            raise InputError(f"{name}={value}: expected {least} to {most}")
