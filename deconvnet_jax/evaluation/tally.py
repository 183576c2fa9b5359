"""Collects all scores of a set of images, one image at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deconvnet_jax.evaluation.boundary_f1 import boundary_f1, mean_boundary_f1
from deconvnet_jax.evaluation.confusion import confusion_matrix
from deconvnet_jax.evaluation.objects import SIZES, object_scores, sums_by_size
from deconvnet_jax.evaluation.scores import segmentation_scores
from deconvnet_jax.labels import ignored_id


class Tally:
    """Running sums over images, from which the scores of the set are computed at the end.

    Attributes:
      matrix: int64 [K, K], the confusion matrix; rows are the ground truth.
    """

    def __init__(self, num_classes: int):
        self.matrix = np.zeros((num_classes, num_classes), np.int64)
        # Each row is (sum of F1, number of images): one row per class, and a last row for the mean of each image.
        self._contours = np.zeros((num_classes + 1, 2))
        self._objects = np.zeros((len(SIZES), 2))

    def add(self, labels: np.ndarray, predictions: np.ndarray, instances: np.ndarray | None = None) -> None:
        """Adds one image.

        Args:
          labels: ground truth, integers [H, W], class ids; 255 marks ignored pixels (65535 with more than 255 classes).
          predictions: integers [H, W], class ids.
          instances: integers [H, W], object numbers as in `object_scores`; None if objects are not annotated.

        Raises:
          InputError: if the shapes differ or an id is unknown.
        """
        count, ignored = len(self.matrix), ignored_id(len(self.matrix))
        self.matrix += confusion_matrix(labels, predictions, count, ignored)
        contours = boundary_f1(labels, predictions, count, ignored)
        for i, score in enumerate([*contours, mean_boundary_f1(contours)]):
            if np.isfinite(score):
                self._contours[i] += (score, 1)
        if instances is not None:
            self._objects += sums_by_size(object_scores(labels, instances, predictions, ignored))

    def summed(self, over_processes: Callable[[np.ndarray], np.ndarray]) -> "Tally":
        """Returns a new Tally with `over_processes` applied to every array.

        Args:
          over_processes: function that maps an array to the sum of that array over all processes.

        Returns:
          The tally of all processes' images, equal on every process.
        """
        total = Tally(len(self.matrix))
        total.matrix = over_processes(self.matrix)
        total._contours, total._objects = over_processes(self._contours), over_processes(self._objects)
        return total

    def scores(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Returns the scores of all images added so far.

        Args:
          class_names: K different names, in the order of the ids.

        Returns:
          The scores of `segmentation_scores`; "boundary_f1", the mean over images; "boundary_f1_per_class"; and, if
          objects were annotated, "object_iou" (mean IoU) and "objects" (number of objects) by size.

        Raises:
          InputError: if no pixel was annotated.
        """
        means = [total / count if count else None for total, count in self._contours.tolist()]
        scores = segmentation_scores(self.matrix, class_names) | {
            "boundary_f1": means[-1],
            "boundary_f1_per_class": dict(zip(class_names, means[:-1], strict=True)),
        }
        if not self._objects[:, 1].any():
            return scores
        by_size = dict(zip(SIZES, self._objects.tolist(), strict=True))
        scores["object_iou"] = {name: total / count if count else None for name, (total, count) in by_size.items()}
        scores["objects"] = {name: int(count) for name, (_, count) in by_size.items()}
        return scores
