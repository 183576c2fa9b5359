"""Measures the input pipeline in training crops per second, and compares it with PyTorch's DataLoader and OpenCV.

    python -m experiments.benchmark input [--quick] [--json=FILE]

Both sides read the same files in the same run. They cut stage-2 windows out of 500x375 JPEGs with masks, resize them to
250x250, crop 224x224 at random, mirror half of the crops and make batches of 64. Both use as many workers as there are
cores. The DataLoader makes each crop as the original's window_seg_data_layer.cpp does.

This project's pipeline is measured in three ways:

- with a cache that holds all images, from the second epoch on;
- with a cache that holds a quarter of them, as 2 GB hold of VOC 2012 with SBD;
- without a cache, so that an image is decoded for every crop.

A second table has the cost of a crop with the full cache for different numbers of windows. --quick makes one short
round of the comparison on few images, without the second table.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from deconvnet_jax.data import CropSettings, Windows, draw_scene, open_split, prepare_voc_layout, training_batches
from deconvnet_jax.errors import InputError

from . import harness
from .harness import OURS, Numbers, Table

HEIGHT, WIDTH = 375, 500
BATCH, RESIZE, CROP = 64, 250, 224
WINDOWS_PER_IMAGE = 10
WINDOW_COUNTS = (100, 1_000, 10_000)
IMAGES, QUICK_IMAGES = 2_400, 300  # images in the comparison
SCENES = 100  # scenes that are drawn; further images are parts of these
ROUNDS, QUICK_ROUNDS = 5, 1
SECONDS, QUICK_SECONDS = 4.0, 1.0  # duration of a measurement
WARM = 24 * BATCH  # crops before a measurement, in which workers start and full buffers are emptied
IMAGE_BYTES = HEIGHT * WIDTH * 4  # of a decoded image with its mask
CACHED = 2**31 / (10_582 * IMAGE_BYTES)  # share of the images of VOC's train_aug that 2 GB hold
THEIRS = "PyTorch DataLoader, OpenCV"

Start = Callable[[], Iterator[Any]]  # starts an endless iterator over batches


def run(quick: bool = False) -> Numbers:
    """Measures both pipelines.

    Args:
      quick: True makes one short round on few images.

    Returns:
      The numbers for `tables`, one JSON object.

    Raises:
      InputError: if PyTorch is not installed.
    """
    if harness.find_torch("cpu")[0] is None:
        raise InputError(
            "this benchmark needs PyTorch to compare with; install it: pip install -r tests/requirements-reference.txt"
        )
    images = QUICK_IMAGES if quick else IMAGES
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "voc"
        names = write_images(root, images)
        source = open_split(prepare_voc_layout(root, Path(folder) / "tfds"), "train")
        largest = random_windows(images, images * WINDOWS_PER_IMAGE)
        part = int(CACHED * images) * IMAGE_BYTES
        results = compare(
            {
                OURS: (ours(source, largest), len(largest.images)),
                "with a cache for a quarter": (ours(source, largest, cache_mb=part / 2**20), WARM),
                "without cache": (ours(source, largest, cache_mb=0, crops_per_decode=1), WARM),
                THEIRS: (theirs(root, names, largest), WARM),
            },
            quick,
        )
        windows = {n: random_windows(n // WINDOWS_PER_IMAGE, n) for n in (() if quick else WINDOW_COUNTS)}
        growth = compare({str(n): (ours(source, those), max(WARM, n)) for n, those in windows.items()}, quick)
    return summary(results, growth)


def write_images(root: Path, count: int) -> list[str]:
    """Writes scenes of 500x375 pixels with masks in the VOC layout.

    Args:
      root: folder to create.
      count: number of images.

    Returns:
      The images' names, all in the split "train".
    """
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    scenes = [draw_scene(np.random.default_rng(seed)) for seed in range(min(count, SCENES))]
    names = [f"{i:05d}" for i in range(count)]
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        image, label, _ = scenes[i % len(scenes)]
        top, left = rng.integers(0, 9, 2) if i >= len(scenes) else (0, 0)
        image = cv2.resize(image[top:, left:], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noise = rng.integers(-6, 7, image.shape)  # Adds the detail that an enlarged scene lacks in a JPEG.
        Image.fromarray(np.uint8(np.clip(image + noise, 0, 255))).save(root / f"JPEGImages/{name}.jpg", quality=90)
        label = cv2.resize(label[top:, left:], (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        Image.fromarray(label).save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names))
    return names


def random_windows(images: int, count: int) -> Windows:
    """Returns random square windows with sides of 60 to 500 pixels; some reach beyond the image.

    Args:
      images: number of images.
      count: number of windows, dealt out to the images in turn.
    """
    rng = np.random.default_rng(1)
    centres = rng.uniform((0.2 * WIDTH, 0.2 * HEIGHT), (0.8 * WIDTH, 0.8 * HEIGHT), (count, 2))
    half = rng.uniform(30, 250, (count, 1))
    boxes = np.rint(np.concatenate([centres - half, centres + half], axis=1)).astype(np.float32)
    nothing = np.zeros(count, np.int32)
    return Windows(np.arange(count, dtype=np.int32) % images, boxes, nothing, nothing)


def ours(source: Any, windows: Windows, **options: Any) -> Start:
    """Returns a function that starts this project's pipeline.

    Args:
      source: the images.
      windows: to cut out of them.
      **options: fields of `CropSettings`.
    """
    settings = CropSettings(label_mode="all", read_threads=harness.cores(), **options)
    return lambda: training_batches(source, windows, settings, batch_size=BATCH)


def theirs(root: Path, names: Sequence[str], windows: Windows) -> Start:
    """Returns a function that starts PyTorch's DataLoader.

    Args:
      root: folder in the VOC layout.
      names: of the images that the windows count.
      windows: to cut out of them.
    """
    from torch.utils.data import DataLoader, RandomSampler

    dataset: Any = WindowFiles(root, names, windows)

    def start() -> Iterator[Any]:
        sampler = RandomSampler(dataset, num_samples=10**9 // BATCH * BATCH, replacement=True)
        # "spawn", because this process may have used JAX, whose threads do not survive a fork.
        options = {"num_workers": harness.cores(), "prefetch_factor": 4, "multiprocessing_context": "spawn"}
        return iter(DataLoader(dataset, BATCH, sampler=sampler, **options))

    return start


class WindowFiles:
    """Map-style dataset for PyTorch that makes crops as window_seg_data_layer.cpp does, with OpenCV in Python."""

    def __init__(self, root: Path, names: Sequence[str], windows: Windows):
        self._root, self._names, self._windows = root, names, windows

    def __len__(self) -> int:
        return len(self._windows.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch

        cv2.setNumThreads(0)  # as PyTorch advises for workers
        name = self._names[self._windows.images[index]]
        image = np.asarray(cv2.imread(str(self._root / f"JPEGImages/{name}.jpg")))
        label = np.asarray(cv2.imread(str(self._root / f"SegmentationClass/{name}.png"), cv2.IMREAD_UNCHANGED))
        x0, y0, x1, y1 = self._windows.boxes[index].astype(int).tolist()
        height, width = label.shape
        inside = slice(max(y0, 0), min(y1, height)), slice(max(x0, 0), min(x1, width))
        border = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
        image = cv2.copyMakeBorder(image[inside], *border, cv2.BORDER_CONSTANT, value=(0, 0, 0))
        label = cv2.copyMakeBorder(label[inside], *border, cv2.BORDER_CONSTANT, value=255)
        image = cv2.resize(image, (RESIZE, RESIZE), interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, (RESIZE, RESIZE), interpolation=cv2.INTER_NEAREST)
        top, left, mirror = (int(torch.randint(high, ())) for high in (RESIZE - CROP + 1, RESIZE - CROP + 1, 2))
        image, label = image[top : top + CROP, left : left + CROP], label[top : top + CROP, left : left + CROP]
        if mirror:
            image, label = image[:, ::-1], label[:, ::-1]
        return {key: torch.from_numpy(array.copy()) for key, array in (("image", image), ("label", label))}


def compare(starts: Mapping[str, tuple[Start, int]], quick: bool) -> dict[str, list[float]]:
    """Measures pipelines in alternating rounds.

    Args:
      starts: by name, a function that starts the pipeline, and the number of crops before the measurement.
      quick: True makes one short round.

    Returns:
      By name, the seconds per crop in every round.
    """

    def turn(start: Start, warm: int) -> Callable[[], float]:
        return lambda: measure(start(), warm, QUICK_SECONDS if quick else SECONDS)

    return harness.in_turns({name: turn(*of) for name, of in starts.items()}, QUICK_ROUNDS if quick else ROUNDS)


def measure(batches: Iterator[Any], warm: int, seconds: float) -> float:
    """Measures one pipeline.

    Args:
      batches: iterator over batches; it is closed afterwards.
      warm: number of crops before the measurement.
      seconds: duration of the measurement.

    Returns:
      Seconds per crop.
    """
    for _ in range(-(-warm // BATCH)):
        next(batches)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        next(batches)
        count += BATCH
    per_crop = (time.perf_counter() - begin) / count
    close = getattr(batches, "close", None)  # PyTorch's iterator has none; it ends with the last reference to it.
    if close:
        close()
    return per_crop


def summary(results: Mapping[str, list[float]], growth: Mapping[str, list[float]]) -> Numbers:
    """Returns the benchmark's numbers.

    Args:
      results: by name of the pipeline, seconds per crop in every round.
      growth: by number of windows, seconds per crop in every round; may be empty.

    Returns:
      Medians of the rates, and "ratio": by name, `harness.times_as_fast` compared with PyTorch's DataLoader.
    """
    cores, rates = harness.cores(), {name: 1 / statistics.median(seconds) for name, seconds in results.items()}
    return {
        "cores": cores,
        "alternative": THEIRS,
        "crops_per_second": rates,
        "crops_per_second_and_core": {name: rate / cores for name, rate in rates.items()},
        "ratio": {name: harness.times_as_fast(results, THEIRS, ours=name) for name in results if name != THEIRS},
        "milliseconds_and_core_per_crop_by_windows": {
            name: 1000 * cores * statistics.median(seconds) for name, seconds in growth.items()
        },
    }


def tables(numbers: Numbers) -> list[Table]:
    """Returns a table of the comparison and, if measured, a table of the cost of a crop by the number of windows."""
    rows = []
    for name, rate in numbers["crops_per_second"].items():
        ratio = harness.text(numbers["ratio"][name]) if name in numbers["ratio"] else "1"
        rows.append([name, harness.number(rate), harness.number(rate / numbers["cores"]), ratio])
    title = f"Stage-2 crops of 500x375 JPEGs, {numbers['cores']} cores"
    found = [Table(title, ("", "crops/s", "crops/s/core", "times as fast"), rows)]
    costs = numbers["milliseconds_and_core_per_crop_by_windows"]
    growth = [[f"{int(count):,}", f"{cost:.2f}"] for count, cost in costs.items()]
    return [*found, Table("", ("windows", "ms x cores per crop"), growth)] if growth else found
