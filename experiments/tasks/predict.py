"""Segments photographs and writes a label map and an overlay for each."""

import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import in_bucket
from deconvnet_jax.images import MAX_PHOTOGRAPH, read_photograph, save_picture
from deconvnet_jax.inference import Result, Segmenter
from deconvnet_jax.visualization import result_panel
from deconvnet_jax.weights import load_checkpoint

from ..common import segmenting
from ..common.output import output_folder
from ..common.photographs import FAILURES, Failures, find_images, result_files, result_names

_LONGEST_IN_BUCKET = 800  # bytes of a file name; an object's name has up to 1024 with its folder


class _Job(NamedTuple):
    """Image that waits to be segmented."""

    path: Path
    name: str  # name of the results
    image: np.ndarray
    boxes: np.ndarray | None  # proposals [n, 4] from a file; None: the Segmenter finds them


def run(
    checkpoint: str | Path,
    output: str | Path,
    arguments: Sequence[str],
    *,
    step: int | None = None,
    averages: bool = True,
    config: ml_collections.ConfigDict | None = None,
    changes: dict[str, Any] | None = None,
    max_pixels: int = MAX_PHOTOGRAPH,
    palette: str = "voc",
    names: bool = True,
) -> int:
    """Segments images and writes their results. Prints one line per image; failures go to stderr and are repeated last.

    Args:
      checkpoint: Folder of a training run, of its checkpoints or of imported weights.
      output: Folder for the results; it may be in a bucket.
      arguments: Image files and folders of them.
      step: Step of the checkpoint; None: the step with the best evaluation.
      averages: Whether to use the averaged weights, if the run has kept them (`config.ema_decay`).
      config: Config whose section `inference` says how to segment; None: the config in the checkpoint.
      changes: Settings to change, such as {"inference.crf": "released"}.
      max_pixels: Photographs with more pixels are refused.
      palette: Colours of the classes in the overlays, "voc" or "colour_blind".
      names: Write the names of the classes into the overlays.

    Returns:
      The number of images that could not be read or segmented, or whose results could not be written.

    Raises:
      InputError: if an image does not exist or would be overwritten, or if checkpoint, settings or output folder cannot
        be used.
    """
    paths = find_images(arguments)
    folder = output_folder(output)
    stems = result_names(paths, folder)
    segmenter = segmenting.segmenter_of(load_checkpoint(checkpoint, step, averages), config, changes or {})
    failures = Failures(len(paths))

    def read(path: Path, name: str) -> _Job:
        _check_length(folder, name)
        image = read_photograph(path, max_pixels)
        boxes = segmenting.boxes_from_file(segmenter.settings, [path.stem], [image.shape[:2]])
        return _Job(path, name, image, boxes[0] if boxes else None)

    jobs = (failures.attempt(path, read, path, name) for path, name in zip(paths, stems, strict=True))
    for job, result in _segmented(segmenter, (job for job in jobs if job), failures):
        line = failures.attempt(job.path, write_results, job, result, folder, names=names, palette=palette)
        if line:
            print(line, flush=True)
    return failures.listed()


def _segmented(segmenter: Segmenter, jobs: Iterator[_Job], failures: Failures) -> Iterator[tuple[_Job, Result]]:
    """Yields the jobs with their results, in order.

    The stream of the Segmenter ends at the first image that it cannot segment. Images that it had taken by then are
    segmented one by one, and a new stream takes the others.
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
        except FAILURES:
            if not taken:
                raise
        for job in taken:
            result = failures.attempt(job.path, segmenter, job.image, job.boxes)
            if result is not None:
                yield job, result


def write_results(job: _Job, result: Result, folder: Path, **drawing: Any) -> str:
    """Writes the label map and the overlay of one image.

    Args:
      job: The image and its name.
      result: What the network found.
      folder: Folder for the results.
      drawing: Names and palette of `result_panel`.

    Returns:
      A line with the image, the classes found and the files.
    """
    label_file, overlay_file = result_files(folder, job.name)
    result.save_labels(label_file)
    save_picture(overlay_file, result_panel(job.image, result.labels, result.class_names, **drawing))
    shares = {name: f"{100 * share:.1f} %" for name, share in result.shares().items()}
    found = ", ".join(f"{name} {share}" for name, share in shares.items() if share != "0.0 %")
    return f"{job.path}: {found} -> {label_file}, {overlay_file}"


def _check_length(folder: Path, name: str) -> None:
    limit = _LONGEST_IN_BUCKET if in_bucket(folder) else os.pathconf(folder, "PC_NAME_MAX")
    longest = result_files(folder, name)[1].name
    if len(os.fsencode(longest)) > limit:
        raise InputError(f"{longest} would be longer than the {limit} bytes of a file name; rename the photograph")
