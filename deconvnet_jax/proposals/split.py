"""Computes the proposals of all images of a split in parallel processes, and never the same image twice.

Every finished image is a small file in PATH.partial, so a killed run resumes where it stopped. The last step joins the
files. The edge network runs in this process, in batches on JAX's default device; worker processes search for boxes.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import not_written, remove_unfinished, write_text
from deconvnet_jax.images import Example, image_digests
from deconvnet_jax.npz import write_npz
from deconvnet_jax.ops.boxes import checked_boxes
from deconvnet_jax.processes import end_with_parent
from deconvnet_jax.proposals.edge_boxes import EdgeBoxes, check_method, propose_boxes, propose_from_edges
from deconvnet_jax.proposals.files import (
    BOX_FIELDS,
    Proposals,
    check_images,
    load_proposals,
    read_fields,
    write_proposals,
)

Boxes = tuple[np.ndarray, np.ndarray]


class NamedImages(Protocol):
    """Images with names and random access, such as the result of `open_split`."""

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    def __getitem__(self, index: int) -> Example:
        """Reads one image."""
        ...

    def name(self, index: int) -> str:
        """Returns the name of one image."""
        ...


def compute_proposals(
    source: NamedImages,
    path: str | Path,
    *,
    count: int = 2000,
    method: str = "network",
    settings: EdgeBoxes | None = None,
    forest: str | None = None,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes the proposals of every image to one file; if that file exists with the same settings, it does nothing.

    The result does not depend on the number of processes or on interruptions.

    Args:
      source: images with different names.
      path: the .npz file to write.
      count: largest number of boxes per image.
      method: one of METHODS, for example "network" or "gradient"; `propose_boxes` describes them.
      settings: settings of Edge Boxes; None uses the defaults.
      forest: path of the structured forest's model file (model.yml.gz); None for all other methods.
      processes: number of worker processes; None starts one per available core.
      progress: called with the number of finished images and the number of all images.

    Raises:
      InputError: if settings or an image cannot be used, if PATH or PATH.partial was made with other settings or
        images, or if a worker process was killed.
    """
    path = Path(path)
    names = [source.name(i) for i in range(len(source))]
    images = image_digests(source)
    settings = settings or EdgeBoxes()
    description = {
        "method": method,
        "count": count,
        "settings": settings._asdict(),
        "weights": weights_digest(method, forest),
    }
    if path.exists():
        check_description(path, description)
        check_images(path, load_proposals(path), names, images)
        return
    partial = path.with_name(f"{path.name}.partial")
    claim_partial(partial, description, [*names, *(images or ())])
    parts = [partial / f"{i:06d}.npz" for i in range(len(names))]
    missing = [i for i, part in enumerate(parts) if not part.exists()]
    progress(len(names) - len(missing), len(names))
    processes = min(processes or len(os.sched_getaffinity(0)), max(1, len(missing)))
    jobs = _jobs(source, missing, method, count, settings, forest)
    for done, (i, (boxes, scores)) in enumerate(_in_parallel(jobs, names, processes), len(names) - len(missing) + 1):
        write_npz(parts[i], {"boxes": boxes, "scores": scores})
        progress(done, len(names))
    found = [read_part(part) for part in parts]
    description["images"] = images
    write_proposals(path, Proposals(names, [b for b, _ in found], [s for _, s in found], description))
    shutil.rmtree(partial)


def weights_digest(method: str, forest: str | None) -> str | None:
    """Returns the sha256 of the weights file behind a method's edge maps; None for a method without weights.

    Args:
      method: one of METHODS.
      forest: path of the structured forest's model file; None for other methods.

    Raises:
      InputError: if the method is unknown, or the structured forest's file is missing.
    """
    from deconvnet_jax.proposals.edge_network import WEIGHTS  # Imported here because workers need no Flax.

    check_method(method, forest)
    path = {"network": WEIGHTS, "structured_forest": forest}.get(method)
    return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest() if path else None


def check_description(path: Path, description: dict[str, Any]) -> None:
    """Raises InputError unless a finished proposals file was made with these settings.

    Args:
      path: the proposals file.
      description: the settings, JSON values, without "version" and "images".
    """
    there = {k: value for k, value in load_proposals(path).description.items() if k not in ("version", "images")}
    if there != json.loads(json.dumps(description)):
        raise InputError(f"{path} was made with other settings, {json.dumps(there)}; delete it to compute it again")


def claim_partial(partial: Path, description: dict[str, Any], images: Sequence[str]) -> None:
    """Creates the folder of finished images, or checks that the existing one belongs to the same job.

    Args:
      partial: the folder.
      description: the settings, JSON values.
      images: names and digests of all images.

    Raises:
      InputError: if the folder was started with other settings or images, or cannot be written.
    """
    digest = hashlib.sha256("\n".join(images).encode()).hexdigest()
    wanted = json.dumps({**description, "images": digest}, sort_keys=True)
    marker = partial / "settings.json"
    if marker.exists() and marker.read_bytes() != wanted.encode():
        raise InputError(f"{partial} was started with other settings or images; delete it to start again")
    with not_written(partial):
        partial.mkdir(parents=True, exist_ok=True)
    remove_unfinished(partial)
    write_text(marker, wanted)


def read_part(path: Path) -> Boxes:
    """Returns the boxes and scores of one finished image.

    Raises:
      InputError: if the file is damaged.
    """
    try:
        boxes, scores = read_fields(path, BOX_FIELDS)
        checked_boxes(boxes, str(path))
        if len(boxes) != len(scores):
            raise InputError("the numbers of boxes and scores differ")
    except InputError as error:
        raise InputError(f"{path} is damaged; delete it and run again, which computes only this image") from error
    return boxes, scores


def _jobs(
    source: NamedImages, missing: Sequence[int], method: str, count: int, settings: EdgeBoxes, forest: str | None
) -> Iterator[tuple[int, Callable[..., Boxes], tuple]]:
    """Yields, for each missing image, its index and the function and arguments for a worker.

    Edge maps of the network are computed here, batch by batch.
    """
    if method != "network":
        for i in missing:
            yield i, _propose, (source[i].image, count, method, settings, forest)
        return
    from deconvnet_jax.proposals.edge_network import BATCH, network_edges_batch

    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        for i, edges in zip(batch, network_edges_batch([source[i].image for i in batch]), strict=True):
            yield i, _propose_from_edges, (edges, count, settings)


def _propose(image: np.ndarray, count: int, method: str, settings: EdgeBoxes, forest: str | None) -> Boxes:
    cv2.setNumThreads(1)  # Each worker uses one core.
    return propose_boxes(image, count, method=method, settings=settings, forest=forest)


def _propose_from_edges(edges: np.ndarray, count: int, settings: EdgeBoxes) -> Boxes:
    cv2.setNumThreads(1)
    return propose_from_edges(edges, count, settings)


def _in_parallel(
    jobs: Iterator[tuple[int, Callable[..., Boxes], tuple]], names: Sequence[str], processes: int
) -> Iterator[tuple[int, Boxes]]:
    """Yields results as they finish. Only a few jobs per worker wait, so that not all edge maps are in memory."""
    context = multiprocessing.get_context("spawn")  # A fork would copy the locks of JAX's threads.
    waiting: dict[Future[Boxes], int] = {}
    with ProcessPoolExecutor(processes, context, end_with_parent) as pool:
        try:
            for i, function, arguments in jobs:
                waiting[pool.submit(function, *arguments)] = i
                if len(waiting) >= 4 * processes:
                    yield from _finished(waiting, names)
            while waiting:
                yield from _finished(waiting, names)
        finally:
            for future in waiting:
                future.cancel()


def _finished(waiting: dict[Future[Boxes], int], names: Sequence[str]) -> Iterator[tuple[int, Boxes]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        i = waiting.pop(future)
        try:
            result = future.result()
        except InputError as error:
            raise InputError(f"image '{names[i]}': {error}") from error
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process was killed, perhaps because memory ran out; run again with fewer processes. "
                "Finished images are kept"
            ) from error
        yield i, result
