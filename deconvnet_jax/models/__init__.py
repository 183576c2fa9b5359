"""Flax linen modules: DeconvNet, FCN-8s, and the edge network behind the object proposals."""

from deconvnet_jax.models.deconvnet import (
    DECODER_INITS,
    UNPOOLINGS,
    DeconvNet,
    batch_norm_name,
    check_input_size,
    compiler_options,
    count_parameters,
)
from deconvnet_jax.models.edge_network import EdgeNetwork
from deconvnet_jax.models.fcn8s import FCN8s
from deconvnet_jax.models.folding import fold_batch_norm, fold_statistics
from deconvnet_jax.models.layers import Layers, Variables
from deconvnet_jax.models.network import Network, config_from_network, layer_names, network_from_config

__all__ = [
    "DECODER_INITS",
    "UNPOOLINGS",
    "DeconvNet",
    "EdgeNetwork",
    "FCN8s",
    "Layers",
    "Network",
    "Variables",
    "batch_norm_name",
    "check_input_size",
    "compiler_options",
    "config_from_network",
    "count_parameters",
    "fold_batch_norm",
    "fold_statistics",
    "layer_names",
    "network_from_config",
]
