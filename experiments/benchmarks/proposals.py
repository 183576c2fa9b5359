"""Recall of object proposals: how many objects the first 50, 200 and 2,000 boxes of each method find, and the time.

An object is an instance of more than 1,000 pixels (without instance masks: a connected part of a class). "50@0.5" is
the share of objects whose tight box one of the first 50 boxes overlaps by an intersection over union of 0.5. Times are
those of one thread, the edge network's included.
"""

import statistics
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from deconvnet_jax.data import class_names, instance_boxes, propose_boxes, read_example, split_names
from deconvnet_jax.data.windows import number_parts
from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import box_recall
from deconvnet_jax.ops import box_iou
from deconvnet_jax.proposals.edge_boxes import METHODS

from ..common import cli
from .harness import Numbers, Table

COUNTS, THRESHOLDS = (50, 200, 2000), (0.5, 0.7)
MIN_AREA = 1000  # pixels of an object


def run(voc_root: Path | None, split: str, forest: Path | None = None) -> Numbers:
    """Measures all methods.

    Raises:
      InputError: without data or objects in it.
    """
    if not voc_root:
        raise InputError("this benchmark needs photographs with masks: --voc_root=FOLDER in the VOC layout")
    images = load(voc_root, split)
    objects = sum(len(boxes) for _, boxes in images)
    if not objects:
        raise InputError(f"{voc_root}, split '{split}': no object of more than {MIN_AREA} pixels")
    cv2.setNumThreads(1)
    methods = [method for method in METHODS if method != "structured_forest" or forest]
    results = {method: measure(images, method, forest) for method in methods}
    error = 100 * 0.5 / np.sqrt(objects)
    return {"split": split, "images": len(images), "objects": objects, "standard_error": error, "methods": results}


def load(voc_root: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns photographs and the boxes [n, 4] of their objects."""
    images = []
    num_classes = len(class_names(voc_root))
    for name in split_names(voc_root, split):
        example = read_example(voc_root, name, num_classes)
        if example.label is None:
            continue
        numbers = number_parts(example.label) if example.instances is None else example.instances
        found = instance_boxes(example.label, numbers)
        areas = np.array([np.count_nonzero(numbers == i) for i in found.instance_ids])
        images.append((example.image, found.boxes[areas > MIN_AREA]))
    return images


def measure(images: list[tuple[np.ndarray, np.ndarray]], method: str, forest: Path | None) -> Numbers:
    """Returns recall in percent, [thresholds][counts], and the median time per image in seconds."""
    propose = partial(propose_boxes, method=method, forest=str(forest) if forest else None)
    overlaps, seconds = [], []
    for image, _ in images:  # compilation, caches
        propose(image, 1)
    with cli.ProgressBar(method) as bar:
        for done, (image, truth) in enumerate(images, 1):
            start = time.perf_counter()
            boxes, _ = propose(image, max(COUNTS))
            seconds.append(time.perf_counter() - start)
            overlaps.append(box_iou(boxes, truth))
            bar.update(done, len(images))
    recall = 100 * box_recall(overlaps, COUNTS, THRESHOLDS)
    return {
        "recall": {
            str(threshold): {str(count): round(float(recall[i, j]), 1) for i, count in enumerate(COUNTS)}
            for j, threshold in enumerate(THRESHOLDS)
        },
        "seconds": statistics.median(seconds),
    }


def tables(numbers: Numbers) -> list[Table]:
    """Returns a row for each method."""
    title = (
        f"{numbers['objects']} objects in {numbers['images']} images of '{numbers['split']}'; recall in %, standard "
        f"error up to {numbers['standard_error']:.1f}"
    )
    columns = [f"{count}@{threshold:g}" for threshold in THRESHOLDS for count in COUNTS]
    rows = []
    for method, found in numbers["methods"].items():
        cells = [f"{share:.0f}" for of_threshold in found["recall"].values() for share in of_threshold.values()]
        rows.append([method, *cells, f"{found['seconds']:.2f}"])
    return [Table(title, ("method", *columns, "s/image"), rows)]
