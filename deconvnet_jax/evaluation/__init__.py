"""Evaluation: the confusion matrix of label maps, and the scores that it holds."""

from deconvnet_jax.evaluation.confusion import confusion_matrix
from deconvnet_jax.evaluation.scores import scores_table, segmentation_scores

__all__ = ["confusion_matrix", "scores_table", "segmentation_scores"]
