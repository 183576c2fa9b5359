"""Inference: from a photograph to its label map; the network as an artefact that runs without this package."""

from deconvnet_jax.inference.activations import decoder_activations
from deconvnet_jax.inference.combine import kernels_of, mean_of_probabilities, product_of_positive, refine
from deconvnet_jax.inference.export import PLATFORMS, export_network, flat_weights
from deconvnet_jax.inference.proposal_batch import (
    AGGREGATIONS,
    Canvas,
    canvas_scores,
    crop_windows,
    empty_canvas,
    fold_scores,
    fold_windows,
    network_scores,
    padded_size,
)
from deconvnet_jax.inference.sampling import sample_scores
from deconvnet_jax.inference.scorer import DeviceImage, Scorer, device_image
from deconvnet_jax.inference.segmenter import (
    Result,
    Segmenter,
    check_image,
    default_class_names,
    default_input_size,
)
from deconvnet_jax.inference.settings import MODES, InferenceSettings, settings_from
from deconvnet_jax.inference.windows import (
    corner_window,
    paper_windows,
    released_windows,
    sliding_windows,
    whole_window,
)

__all__ = [
    "AGGREGATIONS",
    "MODES",
    "PLATFORMS",
    "Canvas",
    "DeviceImage",
    "InferenceSettings",
    "Result",
    "Scorer",
    "Segmenter",
    "canvas_scores",
    "check_image",
    "corner_window",
    "crop_windows",
    "decoder_activations",
    "default_class_names",
    "default_input_size",
    "device_image",
    "empty_canvas",
    "export_network",
    "flat_weights",
    "fold_scores",
    "fold_windows",
    "kernels_of",
    "mean_of_probabilities",
    "network_scores",
    "padded_size",
    "paper_windows",
    "product_of_positive",
    "refine",
    "released_windows",
    "sample_scores",
    "settings_from",
    "sliding_windows",
    "whole_window",
]
