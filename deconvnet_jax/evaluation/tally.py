"""Everything that is counted of a set of images, one image after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deconvnet_jax.evaluation.boundary_f1 import boundary_f1, mean_boundary_f1
from deconvnet_jax.evaluation.confusion import confusion_matrix
from deconvnet_jax.evaluation.objects import SIZES, object_scores, sums_by_size
from deconvnet_jax.evaluation.scores import segmentation_scores
from deconvnet_jax.labels import ignored_id


class Tally:
    """Sums over images, from which scores are made at the end.

    Attributes:
      matrix: int64 [K, K], the confusion matrix.
    """

    def __init__(self, num_classes: int):
        self.matrix = np.zeros((num_classes, num_classes), np.int64)
        self._contours = np.zeros((num_classes + 1, 2))  # sum of F1 and number of images, by class; last, of images
        self._objects = np.zeros((len(SIZES), 2))

    def add(self, labels: np.ndarray, predictions: np.ndarray, instances: np.ndarray | None = None) -> None:
        """Counts one image.

        Args:
          labels: integers [H, W], class ids or 255 for ignored pixels (65535 if there are more than 255 classes).
          predictions: integers [H, W], class ids.
          instances: numbers of the objects (`objects.object_scores`), where they are annotated.

        Raises:
          InputError: for shapes or ids that do not fit.
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
        """The same with all arrays replaced by what a function makes of them."""
        total = Tally(len(self.matrix))
        total.matrix = over_processes(self.matrix)
        total._contours, total._objects = over_processes(self._contours), over_processes(self._objects)
        return total

    def scores(self, class_names: Sequence[str]) -> dict[str, Any]:
        """`segmentation_scores`, and "boundary_f1", the mean over images; "boundary_f1_per_class"; and, if objects were
        annotated, "object_iou" and "objects" of every size: the mean IoU of objects, and how many there are.

        Raises:
          InputError: if nothing was annotated.
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
