"""Segments photographs.

    python -m experiments.predict --checkpoint=DIR --output=DIR [--config.inference.KEY=VALUE ...] IMAGE...

How photographs are segmented is what the training run's config says, or --config.inference.mode=paper (proposals),
released, whole_image or sliding_window, .crf=released, .ensemble_checkpoint=DIR, ...: experiments/configs/default.py.

IMAGE is a file or a folder of them (JPEG, PNG, BMP, WebP, TIFF). Writes NAME.png, the label map with VOC's palette
(pixels are class ids; of more than 255 classes in 16 bits of grey), and NAME_overlay.jpg: image, prediction and overlay
side by side. Photographs are turned upright as their EXIF data says. Hidden files in folders are left out. An image
that cannot be read or segmented, or whose results cannot be written, is named on stderr and the others are still done;
the exit status is then 1.
"""

import contextlib
import itertools
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import ml_collections
import numpy as np
from absl import flags

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import in_bucket, user_path
from deconvnet_jax.images import MAX_PHOTOGRAPH, read_photograph, save_picture
from deconvnet_jax.inference import Result, Segmenter
from deconvnet_jax.visualization import result_panel, save_label_png
from deconvnet_jax.weights import load_checkpoint
from experiments import cli, segmenting
from experiments.output import output_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_LONGEST_IN_BUCKET = 800  # bytes of 1024, for those of the folder


def define_flags() -> None:
    """The command line. Not on import: two programs with a flag of the same name could not be imported together."""
    cli.define_path("checkpoint", None, "folder of a training run, or its checkpoints folder", in_bucket=True)
    flags.DEFINE_integer("step", None, "which checkpoint; default: the one with the best evaluation", lower_bound=0)
    cli.define_path("output", None, "folder for the label maps and overlays", in_bucket=True)
    flags.DEFINE_integer("max_pixels", MAX_PHOTOGRAPH, "larger photographs are refused", lower_bound=1)
    cli.define_config(cli.HOW_TO_SEGMENT, cli.EVERY_SETTING)
    flags.mark_flags_as_required(["checkpoint", "output"])
    flags.FLAGS.set_gnu_getopt(True)  # flags may also follow the images


def main(argv: Sequence[str]) -> None:
    """Segments the images on the command line."""
    values = flags.FLAGS
    config, changes = cli.given_config(values)
    settings = {"config": config, "changes": changes, "max_pixels": values.max_pixels}
    if run(values.checkpoint, values.output, argv[1:], step=values.step, **settings):
        sys.exit(1)


# What an image can lead to: it is no image, a result cannot be written, OpenCV or the device cannot take its size.
_FAILURES = (InputError, OSError, MemoryError, cv2.error, jax.errors.JaxRuntimeError)


class _Job(NamedTuple):
    path: Path
    name: str  # of the results
    image: np.ndarray
    boxes: np.ndarray | None  # from a file


def run(
    checkpoint: str | Path,
    output: str | Path,
    arguments: Sequence[str],
    *,
    step: int | None = None,
    config: ml_collections.ConfigDict | None = None,
    changes: dict[str, Any] | None = None,
    max_pixels: int = MAX_PHOTOGRAPH,
) -> int:
    """Segments images and prints a line for each, on stderr for those that failed, and those again at the end.

    Args:
      checkpoint: as the flag.
      output: as the flag.
      arguments: files and folders.
      step: as the flag.
      config: whose section "inference" counts instead of the checkpoint's.
      changes: {"inference.KEY": value}.
      max_pixels: as the flag.

    Returns:
      The number of images that could not be read or segmented, or whose results could not be written.

    Raises:
      InputError: if there is no image, one is missing, the checkpoint, the settings or the output folder cannot be
        used, or a result would overwrite an image.
    """
    paths = find_images(arguments)
    folder = output_folder(output)
    named = zip(paths, result_names(paths, folder), strict=True)
    segmenter = segmenting.segmenter_of(load_checkpoint(checkpoint, step), config, changes or {})
    failures = Failures(len(paths))

    def readable() -> Iterator[_Job]:
        for path, name in named:
            job = None
            with failures.of(path):
                _check_length(folder, name)
                image = read_photograph(path, max_pixels)
                boxes = segmenting.boxes_from_file(segmenter.settings, [path.stem], [image.shape[:2]])
                job = _Job(path, name, image, boxes[0] if boxes else None)
            if job:
                yield job

    for job, result in _segmented(segmenter, readable(), failures):
        line = None
        with failures.of(job.path):
            line = write_results(job, result, folder, segmenter.class_names)
        if line:
            print(line, flush=True)
    return failures.listed()


class Failures:
    """The images that failed: each is named on stderr when it fails, and all again at the end."""

    def __init__(self, total: int):
        """`total`: the number of images."""
        self._total = total
        self._paths: list[Path] = []

    @contextlib.contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Names the image if the block raises an error that concerns this image alone; the error ends there."""
        try:
            yield
        except _FAILURES as error:
            self._paths.append(path)
            text = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, MemoryError | jax.errors.JaxRuntimeError):
                text = f"memory does not suffice or the device failed ({text[:200]}); lower --config.inference.max_side"
            where = "" if str(path) in text else f"{path}: "
            print(f"error: {where}{text}", file=sys.stderr, flush=True)

    def listed(self) -> int:
        """Prints the images that failed if there are several; returns their number."""
        if len(self._paths) > 1:
            names = ", ".join(map(str, self._paths))
            print(f"error: {len(self._paths)} of {self._total} images failed: {names}", file=sys.stderr)
        return len(self._paths)


def _segmented(segmenter: Segmenter, jobs: Iterator[_Job], failures: Failures) -> Iterator[tuple[_Job, Result]]:
    """Yields the jobs with their results, in order.

    The stream of the Segmenter ends with the first image that it cannot segment. Those that it had already taken are
    then segmented one by one, and a new stream takes the others.
    """
    while True:
        taken: deque[_Job] = deque()

        def taking(taken: deque[_Job] = taken) -> Iterator[_Job]:
            for job in jobs:
                taken.append(job)
                yield job

        images, boxes = itertools.tee(taking())
        results = segmenter.segment((job.image for job in images), (job.boxes for job in boxes))
        try:
            for result in results:
                yield taken.popleft(), result
            return
        except _FAILURES:
            if not taken:
                raise
        for job in taken:
            result = None
            with failures.of(job.path):
                result = segmenter(job.image, job.boxes)
            if result is not None:
                yield job, result


def find_images(arguments: Sequence[str]) -> list[Path]:
    """The files that the arguments name, images in folders in alphabetical order, none twice.

    Raises:
      InputError: if there is none, or an argument does not exist.
    """
    if not arguments:
        raise InputError("no image given; name image files or folders of them after the flags")
    images = dict.fromkeys(
        itertools.chain.from_iterable(_images_in(user_path(argument, "IMAGE")) for argument in arguments)
    )
    return list({os.path.realpath(path): path for path in reversed(images)}.values())[::-1]


def _images_in(path: Path) -> list[Path]:
    if not path.is_dir():
        if not os.path.lexists(path):
            raise InputError(f"no file or folder {path}; correct the name")
        return [path]
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise InputError(f"the folder {path} cannot be read ({error.strerror}); correct its permissions") from error
    # Hidden files are no photographs: macOS writes ._a.jpg beside a.jpg. A link that leads nowhere is named later.
    images = [path / name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    images = [image for image in images if image.is_file() or (image.is_symlink() and not image.is_dir())]
    if not images:
        raise InputError(f"no image in the folder {path}; expected files that end in {', '.join(SUFFIXES)}")
    return images


def result_names(images: Sequence[Path], folder: Path) -> list[str]:
    """One name an image, its stem, with a number where results would have equal names.

    Raises:
      InputError: if a result would overwrite one of the images.
    """
    inputs = {os.path.realpath(path) for path in images}
    taken: set[str] = set()
    names = []
    for path in images:
        candidates = itertools.chain([path.stem], (f"{path.stem}_{i}" for i in itertools.count(2)))
        name = next(name for name in candidates if name.casefold() not in taken)
        for result in _results(folder, name):
            if os.path.realpath(result) in inputs:
                raise InputError(f"the results would overwrite the image {result}; choose another --output")
        taken.add(name.casefold())
        names.append(name)
    return names


def write_results(job: _Job, result: Result, folder: Path, class_names: Sequence[str]) -> str:
    """Writes the results of one image and tells what they show."""
    label_file, overlay_file = _results(folder, job.name)
    panel = result_panel(job.image, result.labels, class_names)
    save_label_png(label_file, result.labels)
    save_picture(overlay_file, panel)
    return f"{job.path}: {describe(result.labels, class_names)} -> {label_file}, {overlay_file}"


def describe(labels: np.ndarray, class_names: Sequence[str]) -> str:
    """The classes found, the most frequent first, with the share of their pixels."""
    counts = np.bincount(labels.ravel(), minlength=len(class_names))
    found: Iterable[int] = (i for i in np.argsort(-counts, kind="stable") if counts[i])
    return ", ".join(f"{class_names[i]} {100 * counts[i] / labels.size:.1f} %" for i in found)


def _check_length(folder: Path, name: str) -> None:
    limit = _LONGEST_IN_BUCKET if in_bucket(folder) else os.pathconf(folder, "PC_NAME_MAX")
    longest = _results(folder, name)[1].name
    if len(os.fsencode(longest)) > limit:
        raise InputError(f"{longest} would be longer than the {limit} bytes of a file name; rename the photograph")


def _results(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.png", folder / f"{name}_overlay.jpg"


if __name__ == "__main__":
    define_flags()
    cli.run(main)
