"""Flax linen modules: DeconvNet."""

from deconvnet_jax.models.deconvnet import (
    DeconvNet,
    check_input_size,
    compiler_options,
    count_parameters,
    deconvnet_from_config,
)

__all__ = ["DeconvNet", "check_input_size", "compiler_options", "count_parameters", "deconvnet_from_config"]
