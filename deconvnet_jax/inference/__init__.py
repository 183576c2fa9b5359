"""Inference: from a photograph to its label map; the network as an artefact that runs without this package."""

from deconvnet_jax.inference.export import PLATFORMS, export_network, flat_weights
from deconvnet_jax.inference.sampling import sample_scores
from deconvnet_jax.inference.segmenter import (
    MAX_SIDE,
    MIN_SIDE,
    Result,
    Segmenter,
    default_class_names,
    default_input_size,
)

__all__ = [
    "MAX_SIDE",
    "MIN_SIDE",
    "PLATFORMS",
    "Result",
    "Segmenter",
    "default_class_names",
    "default_input_size",
    "export_network",
    "flat_weights",
    "sample_scores",
]
