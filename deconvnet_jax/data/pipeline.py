"""Batches for training: an endless Grain iterator, the same for the same seed, that can be saved and resumed."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import grain
import numpy as np

from deconvnet_jax.data.augment import center_crop, random_crop, random_mirror
from deconvnet_jax.data.voc_layout import Example
from deconvnet_jax.data.windows import crop_window, enlarge, image_box, instance_boxes, keep_class, square
from deconvnet_jax.errors import InputError

WINDOWS = ("instance", "image")
LABEL_MODES = ("instance", "all")
_READ_THREADS = 4


class Window(NamedTuple):
    """A square to cut out of an image of a source.

    Attributes:
      index: of the image in the source.
      box: x0, y0, x1, y1 in pixels, x1 and y1 exclusive; may leave the image.
      instance_id: the object it was made for, 0 for a whole image.
      class_id: the object's class, 0 for a whole image.
    """

    index: int
    box: tuple[float, float, float, float]
    instance_id: int
    class_id: int


def training_windows(
    source: Sequence[Example], windows: Sequence[str] = ("instance",), image_factor: float = 250 / 224
) -> list[Window]:
    """What there is to train on, in the order of the source.

    Args:
      source: annotated images.
      windows: kinds: "instance", one for every object: its tight box, enlarged 1.2 times and made square (paper,
        section 5.1); "image", one for every image: the square about it.
      image_factor: side of an "image" window / longer side of the image; resize size / crop size, so that the random
        crop shows objects at the scale that a whole image has at test time.

    Raises:
      InputError: if a kind is unknown or nothing was found.
    """
    unknown = [kind for kind in windows if kind not in WINDOWS]
    if unknown or not windows:
        raise InputError(f"data.windows={tuple(windows)}: expected one or both of {', '.join(WINDOWS)}")
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = pool.map(lambda i: _windows_of(i, source[i], windows, image_factor), range(len(source)))
        result = [window for of_image in found for window in of_image]
    if not result:
        raise InputError(
            f"data.windows={tuple(windows)}: no object in any of the {len(source)} training images; "
            "check the masks, or use windows=('image',)"
        )
    return result


def training_batches(
    source: Sequence[Example],
    *,
    batch_size: int,
    resize_size: int = 250,
    crop_size: int = 224,
    windows: Sequence[str] = ("instance",),
    label_mode: str = "instance",
    mirror: bool = True,
    random_crop: bool = True,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    cache_bytes: int = 2 << 30,
    read_threads: int = _READ_THREADS,
) -> grain.DatasetIterator:
    """An endless iterator over batches of augmented crops.

    Batch i depends on the arguments and i alone, not on threads or timing. Every window comes once an epoch, each
    epoch in another order. `get_state()` and `set_state(state)` save and restore the position.

    Args:
      source: annotated images, read from several threads.
      batch_size: crops a batch, of this process.
      resize_size: a window is resized to this square (original: 250),
      crop_size: of which this is cut out (224); a multiple of 32.
      windows: see `training_windows`.
      label_mode: "instance": in an object's window that object alone is labelled, all else background (stage 1);
        "all": every class is labelled. Windows of whole images are labelled completely in both.
      mirror: mirror half of the crops.
      random_crop: crop at a random place, otherwise from the centre.
      seed: decides order, crops and mirroring.
      process_index: of this process,
      process_count: among these; each one gets other windows.
      cache_bytes: memory for decoded images; the least recently used ones go first.
      read_threads: crops are prepared in so many threads.

    Returns:
      Iterator over {"image": uint8 RGB [B, crop, crop, 3], "label": uint8 [B, crop, crop], 255 = ignore}.

    Raises:
      InputError: if a size or name is not usable, or there are no objects, or fewer windows than processes.
    """
    _check_settings(batch_size, resize_size, crop_size, label_mode)
    cached = CachedSource(source, cache_bytes)
    mine = training_windows(cached, windows, resize_size / crop_size)[process_index::process_count]
    if not mine:
        raise InputError(f"{process_count} processes, but fewer windows to train on; use fewer processes")

    def crop(window: Window, rng: np.random.Generator) -> dict[str, np.ndarray]:
        image, label = _cut_out(cached[window.index], window, resize_size, label_mode)
        image, label = _shift(image, label, crop_size, rng if random_crop else None)
        image, label = random_mirror(image, label, rng) if mirror else (image, label)
        return {"image": image, "label": label}

    dataset = grain.MapDataset.range(len(mine)).seed(seed).shuffle().repeat()
    dataset = dataset.map(mine.__getitem__).random_map(crop).batch(batch_size, drop_remainder=True)
    # The buffer counts batches; Grain's default of 500 would take gigabytes.
    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=2 * read_threads)
    return iter(dataset.to_iter_dataset(options))


def class_pixels(source: Sequence[Example], num_classes: int) -> np.ndarray:
    """How many pixels of each class there are, int64 [num_classes]; 255 is not counted."""
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        counts = pool.map(lambda i: np.bincount(source[i].label.ravel(), minlength=256), range(len(source)))
        return sum(counts, np.zeros(256, np.int64))[:num_classes]


class CachedSource(Sequence[Example]):
    """A source that keeps the examples used last in memory, up to a number of bytes; safe for threads."""

    def __init__(self, source: Sequence[Example], capacity: int):
        self._source, self._capacity = source, capacity
        self._kept: OrderedDict[int, Example] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        example = self._source[index]  # outside of the lock: other threads go on
        with self._lock:
            if index not in self._kept:
                self._kept[index] = example
                self._bytes += _size(example)
            while self._bytes > self._capacity:
                self._bytes -= _size(self._kept.popitem(last=False)[1])
        return example


def _size(example: Example) -> int:
    return sum(array.nbytes for array in (example.image, example.label, example.instances) if array is not None)


def _windows_of(index: int, example: Example, kinds: Sequence[str], image_factor: float) -> list[Window]:
    found = []
    if "instance" in kinds:
        boxes, class_ids, instance_ids = instance_boxes(example.label, example.instances)
        for box, class_id, instance_id in zip(square(enlarge(boxes)), class_ids, instance_ids, strict=True):
            found.append(Window(index, tuple(box.tolist()), int(instance_id), int(class_id)))
    if "image" in kinds:
        found.append(Window(index, tuple(image_box(*example.label.shape, image_factor).tolist()), 0, 0))
    return found


def _cut_out(example: Example, window: Window, size: int, label_mode: str) -> tuple[np.ndarray, np.ndarray]:
    label = example.label
    if label_mode == "instance" and window.instance_id:
        label = keep_class(label, example.instances, window.instance_id, window.class_id)
    return crop_window(example.image, label, np.array(window.box), size)


def _shift(
    image: np.ndarray, label: np.ndarray, size: int, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    return center_crop(image, label, size) if rng is None else random_crop(image, label, size, rng)


def _check_settings(batch_size: int, resize_size: int, crop_size: int, label_mode: str) -> None:
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
