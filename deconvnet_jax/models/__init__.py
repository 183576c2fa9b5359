"""Flax linen modules: DeconvNet."""

from deconvnet_jax.models.deconvnet import (
    DeconvNet,
    batch_norm_name,
    check_input_size,
    compiler_options,
    config_from_deconvnet,
    count_parameters,
    deconvnet_from_config,
)

__all__ = [
    "DeconvNet",
    "batch_norm_name",
    "check_input_size",
    "compiler_options",
    "config_from_deconvnet",
    "count_parameters",
    "deconvnet_from_config",
]
