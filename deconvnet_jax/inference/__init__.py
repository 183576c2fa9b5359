"""Inference: from a photograph to its label map."""

from deconvnet_jax.inference.sampling import sample_scores
from deconvnet_jax.inference.segmenter import Result, Segmenter, default_class_names, default_input_size

__all__ = ["Result", "Segmenter", "default_class_names", "default_input_size", "sample_scores"]
