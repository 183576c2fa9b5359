"""Evaluation: confusion matrix, scores, contours, objects, recall of boxes, edges, where a submission to VOC goes."""

from deconvnet_jax.evaluation.boundaries import BoundaryScores, boundary_scores
from deconvnet_jax.evaluation.confusion import confusion_matrix
from deconvnet_jax.evaluation.contours import contour_scores, mean_contour_score
from deconvnet_jax.evaluation.objects import SIZES, ObjectScore, object_scores, sums_by_size
from deconvnet_jax.evaluation.recall import box_recall
from deconvnet_jax.evaluation.scores import scores_table, segmentation_scores
from deconvnet_jax.evaluation.submission import submission_folder
from deconvnet_jax.evaluation.tally import Tally

__all__ = [
    "SIZES",
    "BoundaryScores",
    "ObjectScore",
    "Tally",
    "boundary_scores",
    "box_recall",
    "confusion_matrix",
    "contour_scores",
    "mean_contour_score",
    "object_scores",
    "scores_table",
    "segmentation_scores",
    "submission_folder",
    "sums_by_size",
]
