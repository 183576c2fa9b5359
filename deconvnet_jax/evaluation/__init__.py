"""Evaluation: confusion matrix, segmentation scores, boundary F1, object scores, box recall, edges, VOC submissions."""

from deconvnet_jax.evaluation.boundary_f1 import boundary_f1, mean_boundary_f1
from deconvnet_jax.evaluation.confusion import confusion_matrix
from deconvnet_jax.evaluation.edges import EdgeScores, edge_scores
from deconvnet_jax.evaluation.objects import SIZES, ObjectScore, box_recall, object_scores, sums_by_size
from deconvnet_jax.evaluation.scores import scores_table, segmentation_scores, submission_folder
from deconvnet_jax.evaluation.tally import Tally

__all__ = [
    "SIZES",
    "EdgeScores",
    "ObjectScore",
    "Tally",
    "boundary_f1",
    "box_recall",
    "confusion_matrix",
    "edge_scores",
    "mean_boundary_f1",
    "object_scores",
    "scores_table",
    "segmentation_scores",
    "submission_folder",
    "sums_by_size",
]
