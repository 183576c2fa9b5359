"""Measures the recall and the time of every method of object proposals.

    python -m experiments.benchmark proposals --voc_root=FOLDER [--split=val] [--forest=FILE] [--json=FILE]

Recall is the share of objects that are found by the first 50, 200 and 2,000 boxes. The column "50@0.5" counts an object
if one of the first 50 boxes overlaps its tight box with an intersection over union of at least 0.5. Objects are
instances of more than 1,000 pixels; without instance masks, connected parts of a class. Times are those of one thread,
the edge network included.
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
from deconvnet_jax.terminal import ProgressBar

from .harness import Numbers, Table

COUNTS, THRESHOLDS = (50, 200, 2000), (0.5, 0.7)
MIN_AREA = 1000  # Objects have more pixels than this.


def run(voc_root: Path | None, split: str, forest: Path | None = None) -> Numbers:
    """Measures all methods.

    Args:
      voc_root: folder in the VOC layout; None is refused.
      split: whose objects are searched.
      forest: model file of a structured forest, which is then measured too; None leaves it out.

    Returns:
      The numbers for `tables`, one JSON object.

    Raises:
      InputError: without a folder, or if no image has an object that is large enough.
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
    """Reads the photographs of a split and the boxes of their objects.

    Args:
      voc_root: folder in the VOC layout.
      split: name in ImageSets/Segmentation.

    Returns:
      For each photograph with a mask: uint8 RGB [H, W, 3] and float64 [n, 4], the tight boxes of its objects.
    """
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
    """Measures one method.

    Args:
      images: the result of `load`.
      method: one of `METHODS`.
      forest: model file for the method "structured_forest"; otherwise None.

    Returns:
      "recall" in percent, by threshold and then by number of boxes, and "seconds", the median per image.
    """
    propose = partial(propose_boxes, method=method, forest=str(forest) if forest else None)
    overlaps, seconds = [], []
    for image, _ in images:  # The first call for an image compiles and fills caches.
        propose(image, 1)
    with ProgressBar(method) as bar:
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
    """Returns one table with a row for each method, from the numbers of `run`."""
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
