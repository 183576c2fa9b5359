"""Training crops a second: this pipeline and PyTorch's DataLoader with OpenCV, on the same files in the same run.

Both cut the same stage-2 windows out of 500x375 JPEGs with their masks, resize to 250x250, crop 224x224 at random,
mirror half of them and make batches of 64, with as many workers as there are cores. The DataLoader does what the
original's window_seg_data_layer.cpp does, crop by crop. Ours is measured with a cache that holds all images, from the
second epoch on; with one that holds a quarter of them, as 2 GB do of VOC 2012 with SBD; and without, decoding an image
for every crop. The first of these again with fewer windows, on fewer images. --quick makes one short round of the
comparison alone, on few images.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from deconvnet_jax.data import Windows, draw_scene, open_split, prepare_voc_layout, training_batches
from deconvnet_jax.errors import InputError

HEIGHT, WIDTH = 375, 500
BATCH, RESIZE, CROP = 64, 250, 224
WINDOWS_PER_IMAGE = 10
WINDOW_COUNTS = (100, 1_000, 10_000)
IMAGES, QUICK_IMAGES = 2_400, 300  # in the comparison
SCENES = 100  # drawn; further images are parts of these
ROUNDS, QUICK_ROUNDS = 5, 1
SECONDS, QUICK_SECONDS = 4.0, 1.0  # of every measurement
WARM = 24 * BATCH  # crops before it: workers start, buffers are used up
IMAGE_BYTES = HEIGHT * WIDTH * 4  # decoded, with its mask
CACHED = 2**31 / (10_582 * IMAGE_BYTES)  # of the images: the share of VOC's train_aug that 2 GB hold


def run(quick: bool = False) -> dict[str, Any]:
    """Measures and prints a table; returns its numbers.

    Args:
      quick: one short round on few images.

    Raises:
      InputError: without PyTorch, the alternative.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise InputError("the alternative is PyTorch: pip install -r tests/requirements-reference.txt") from error
    images = QUICK_IMAGES if quick else IMAGES
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "voc"
        names = write_images(root, images)
        source = open_split(prepare_voc_layout(root, Path(folder) / "tfds"), "train")
        largest = random_windows(images, images * WINDOWS_PER_IMAGE)
        results = compare(
            {
                "deconvnet_jax": (ours(source, largest), len(largest.images)),
                "with a cache for a quarter": (
                    ours(source, largest, cache_bytes=int(CACHED * images) * IMAGE_BYTES),
                    WARM,
                ),
                "without cache": (ours(source, largest, cache_bytes=0, crops_per_decode=1), WARM),
                "PyTorch DataLoader, OpenCV": (theirs(root, names, largest), WARM),
            },
            quick,
        )
        counts = () if quick else WINDOW_COUNTS
        growth = compare(
            {
                str(count): (ours(source, random_windows(count // WINDOWS_PER_IMAGE, count)), max(WARM, count))
                for count in counts
            },
            quick,
        )
    numbers = summary(results, growth)
    print_tables(numbers)
    return numbers


def write_images(root: Path, count: int) -> list[str]:
    """Writes `count` scenes of 500x375 in the VOC layout; returns their names."""
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    scenes = [draw_scene(np.random.default_rng(seed)) for seed in range(min(count, SCENES))]
    names = [f"{i:05d}" for i in range(count)]
    rng = np.random.default_rng(0)
    for i, name in enumerate(names):
        image, label, _ = scenes[i % len(scenes)]
        top, left = rng.integers(0, 9, 2) if i >= len(scenes) else (0, 0)
        image = cv2.resize(image[top:, left:], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noise = rng.integers(-6, 7, image.shape)  # the detail that enlarging cannot bring: JPEGs of a camera's size
        Image.fromarray(np.uint8(np.clip(image + noise, 0, 255))).save(root / f"JPEGImages/{name}.jpg", quality=90)
        label = cv2.resize(label[top:, left:], (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        Image.fromarray(label).save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names))
    return names


def random_windows(images: int, count: int) -> Windows:
    """Squares of 60 to 500 pixels, centred in the images: some reach beyond."""
    rng = np.random.default_rng(1)
    centres = rng.uniform((0.2 * WIDTH, 0.2 * HEIGHT), (0.8 * WIDTH, 0.8 * HEIGHT), (count, 2))
    half = rng.uniform(30, 250, (count, 1))
    boxes = np.rint(np.concatenate([centres - half, centres + half], axis=1)).astype(np.float32)
    nothing = np.zeros(count, np.int32)
    return Windows(np.arange(count, dtype=np.int32) % images, boxes, nothing, nothing)


def ours(source: Any, windows: Windows, **options: Any) -> Callable[[], Iterator[Any]]:
    """Starts this project's pipeline."""
    threads = len(os.sched_getaffinity(0))
    return lambda: training_batches(
        source, windows, batch_size=BATCH, label_mode="all", read_threads=threads, **options
    )


def theirs(root: Path, names: Sequence[str], windows: Windows) -> Callable[[], Iterator[Any]]:
    """Starts PyTorch's loader: an endless iterator over batches."""
    from torch.utils.data import DataLoader, RandomSampler

    dataset = WindowFiles(root, names, windows)

    def start() -> Iterator[Any]:
        sampler = RandomSampler(dataset, num_samples=10**9 // BATCH * BATCH, replacement=True)
        workers = len(os.sched_getaffinity(0))
        # Not forked: a program that has used JAX, as this may have, has threads that do not survive that.
        options = {"num_workers": workers, "prefetch_factor": 4, "multiprocessing_context": "spawn"}
        return iter(DataLoader(dataset, BATCH, sampler=sampler, **options))

    return start


class WindowFiles:
    """A map-style dataset for PyTorch: window_seg_data_layer.cpp in OpenCV's Python form."""

    def __init__(self, root: Path, names: Sequence[str], windows: Windows):
        self._root, self._names, self._windows = root, names, windows

    def __len__(self) -> int:
        return len(self._windows.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch

        cv2.setNumThreads(0)  # as PyTorch advises for workers
        name = self._names[self._windows.images[index]]
        image = cv2.imread(str(self._root / f"JPEGImages/{name}.jpg"))
        label = cv2.imread(str(self._root / f"SegmentationClass/{name}.png"), cv2.IMREAD_UNCHANGED)
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


def compare(starts: dict[str, tuple[Callable[[], Iterator[Any]], int]], quick: bool) -> dict[str, list[float]]:
    """Crops a second of each, in every round one after the other: what the machine's speed does, it does to all.

    Args:
      starts: of each, what starts it, and how many crops come before the measurement.
      quick: one short round.
    """
    rates: dict[str, list[float]] = {name: [] for name in starts}
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        for name, (start, warm) in starts.items():
            rates[name].append(measure(start(), warm, QUICK_SECONDS if quick else SECONDS))
    return rates


def measure(batches: Iterator[Any], warm: int, seconds: float) -> float:
    """Crops a second during `seconds`, after `warm` crops."""
    for _ in range(-(-warm // BATCH)):
        next(batches)
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        next(batches)
        count += BATCH
    rate = count / (time.perf_counter() - begin)
    if hasattr(batches, "close"):
        batches.close()
    return rate


def summary(results: dict[str, list[float]], growth: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and the ratio of every round to the alternative of the same round."""
    cores = len(os.sched_getaffinity(0))
    *names, alternative = results
    ratios = {
        name: sorted(mine / other for mine, other in zip(results[name], results[alternative], strict=True))
        for name in names
    }
    return {
        "cores": cores,
        "alternative": alternative,
        "crops_per_second": {name: statistics.median(rates) for name, rates in results.items()},
        "crops_per_second_and_core": {name: statistics.median(rates) / cores for name, rates in results.items()},
        "ratio": {name: {"median": statistics.median(r), "min": r[0], "max": r[-1]} for name, r in ratios.items()},
        "milliseconds_and_core_per_crop_by_windows": {
            name: 1000 * cores / statistics.median(rates) for name, rates in growth.items()
        },
    }


def print_tables(numbers: dict[str, Any]) -> None:
    """The comparison, and the cost of a crop by the number of windows, on stderr."""
    console = Console(stderr=True)
    table = Table(f"stage-2 crops of 500x375 JPEGs, {numbers['cores']} cores", "crops/s", "crops/s/core", "ratio")
    for name, rate in numbers["crops_per_second"].items():
        ratio = numbers["ratio"].get(name)
        text = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "1"
        table.add_row(name, f"{rate:.0f}", f"{rate / numbers['cores']:.0f}", text)
    console.print(table)
    if not numbers["milliseconds_and_core_per_crop_by_windows"]:
        return
    growth = Table("windows", "ms x cores for a crop")
    for count, cost in numbers["milliseconds_and_core_per_crop_by_windows"].items():
        growth.add_row(f"{int(count):,}", f"{cost:.2f}")
    console.print(growth)
