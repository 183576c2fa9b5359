"""Folds batch normalisation into fewer numbers: at inference it is only a scale and a shift of every channel."""

import jax.numpy as jnp
from jax import Array

from deconvnet_jax.errors import InputError
from deconvnet_jax.models.deconvnet import DeconvNet, batch_norm_name
from deconvnet_jax.models.layers import Variables


def fold_statistics(net: DeconvNet, variables: Variables) -> Variables:
    """Returns variables whose running statistics are folded into scale and shift, for inference only.

    This is the form of DeconvNet_trainval_inference.caffemodel, as the original's BN_make_INFERENCE_script.py produces
    it. The outputs of the network stay the same. Further training is not possible, because scale and shift are no
    longer relative to batch statistics.

    Args:
      net: network with batch normalisation.
      variables: its "params" and "batch_stats".

    Returns:
      New variables for the same module. Running means are 0 and running variances 1 - bn_epsilon, so that normalising
      divides by 1.
    """
    params, batch_stats = dict(variables["params"]), {}
    for name, statistics in variables["batch_stats"].items():
        scale, shift = _scale_and_shift(net, variables, name)
        params[name] = {"scale": scale, "bias": shift}
        unit = jnp.full_like(statistics["var"], 1 - net.bn_epsilon)
        batch_stats[name] = {"mean": jnp.zeros_like(statistics["mean"]), "var": unit}
    return {**variables, "params": params, "batch_stats": batch_stats}


def fold_batch_norm(net: DeconvNet, variables: Variables) -> tuple[DeconvNet, Variables]:
    """Returns a network whose batch normalisation is folded into the preceding convolutions, for inference only.

    It has fewer layers and the same outputs up to rounding.

    Args:
      net: network with batch normalisation.
      variables: its "params" and "batch_stats".

    Returns:
      The module without batch normalisation, and its variables, which are only {"params": ...}.

    Raises:
      InputError: if the network has no batch normalisation to fold.
    """
    if not net.batch_norm:
        raise InputError("the network has no batch normalisation (batch_norm=False); pass the network before folding")
    params = {}
    for name, layer in variables["params"].items():
        norm = batch_norm_name(name)
        if name in variables["batch_stats"]:
            continue
        if norm not in variables["batch_stats"]:
            params[name] = layer
            continue
        scale, shift = _scale_and_shift(net, variables, norm)
        params[name] = {"kernel": layer["kernel"] * scale, "bias": layer["bias"] * scale + shift}
    return net.clone(batch_norm=False), {"params": params}


def _scale_and_shift(net: DeconvNet, variables: Variables, name: str) -> tuple[Array, Array]:
    layer, statistics = variables["params"][name], variables["batch_stats"][name]
    scale = layer["scale"] / jnp.sqrt(statistics["var"] + net.bn_epsilon)
    return scale, layer["bias"] - statistics["mean"] * scale
