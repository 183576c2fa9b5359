"""Evaluation: confusion matrix, scores, recall of boxes, boundaries, the folder of a submission to VOC."""

from deconvnet_jax.evaluation.boundaries import BoundaryScores, boundary_scores
from deconvnet_jax.evaluation.confusion import confusion_matrix
from deconvnet_jax.evaluation.recall import box_recall
from deconvnet_jax.evaluation.scores import scores_table, segmentation_scores
from deconvnet_jax.evaluation.submission import submission_folder

__all__ = [
    "BoundaryScores",
    "boundary_scores",
    "box_recall",
    "confusion_matrix",
    "scores_table",
    "segmentation_scores",
    "submission_folder",
]
