"""Segments photographs with a trained network, and exports the network to run without this package.

Start with `Segmenter`. Everything else is what it is made of, in the order of use: modes (which windows), proposal
batches (windows to score maps to one canvas), ensembles and the CRF.
"""

from deconvnet_jax.images import check_image
from deconvnet_jax.inference.activations import decoder_activations
from deconvnet_jax.inference.combine import (
    kernels_of,
    mean_of_probabilities,
    mean_of_scores,
    product_of_positive,
    refine,
)
from deconvnet_jax.inference.devices import DeviceImage, device_image, padded_size
from deconvnet_jax.inference.export import PLATFORMS, export_network, flat_weights
from deconvnet_jax.inference.member import Member, default_class_names, default_input_size
from deconvnet_jax.inference.modes import (
    MODES,
    Mode,
    corner_window,
    mode_of,
    paper_windows,
    released_windows,
    scaled_windows,
    sliding_windows,
    whole_window,
)
from deconvnet_jax.inference.proposal_batch import (
    AGGREGATIONS,
    Canvas,
    canvas_scores,
    crop_windows,
    empty_canvas,
    fold_scores,
    network_scores,
    sample_scores,
)
from deconvnet_jax.inference.result import Result
from deconvnet_jax.inference.scorer import Scorer
from deconvnet_jax.inference.segmenter import Segmenter
from deconvnet_jax.inference.settings import InferenceSettings, SettingValues, settings_from
from deconvnet_jax.photographs import as_photograph

__all__ = [
    "AGGREGATIONS",
    "MODES",
    "PLATFORMS",
    "Canvas",
    "DeviceImage",
    "InferenceSettings",
    "Member",
    "Mode",
    "Result",
    "Scorer",
    "Segmenter",
    "SettingValues",
    "as_photograph",
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
    "kernels_of",
    "mean_of_probabilities",
    "mean_of_scores",
    "mode_of",
    "network_scores",
    "padded_size",
    "paper_windows",
    "product_of_positive",
    "refine",
    "released_windows",
    "sample_scores",
    "scaled_windows",
    "settings_from",
    "sliding_windows",
    "whole_window",
]
