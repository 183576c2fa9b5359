"""Inference: from a photograph to its label map."""

from deconvnet_jax.inference.sampling import sample_scores
from deconvnet_jax.inference.segmenter import Result, Segmenter

__all__ = ["Result", "Segmenter", "sample_scores"]
