"""Batch normalisation at inference is a scale and a shift of every channel: folded into fewer numbers here."""

import jax.numpy as jnp
from jax import Array

from deconvnet_jax.errors import InputError
from deconvnet_jax.models.deconvnet import DeconvNet, batch_norm_name
from deconvnet_jax.models.layers import Variables


def fold_statistics(net: DeconvNet, variables: Variables) -> Variables:
    """Running statistics folded into scale and shift, the form of DeconvNet_trainval_inference.caffemodel.

    As the original's BN_make_INFERENCE_script.py does it. The network computes what it did; it can no longer be trained
    on, because scale and shift are no longer relative to a batch's statistics.

    Returns:
      New variables for the same module; running means are 0 and variances such that they divide by 1.
    """
    params, batch_stats = dict(variables["params"]), {}
    for name, statistics in variables["batch_stats"].items():
        scale, shift = _scale_and_shift(net, variables, name)
        params[name] = {"scale": scale, "bias": shift}
        unit = jnp.full_like(statistics["var"], 1 - net.bn_epsilon)
        batch_stats[name] = {"mean": jnp.zeros_like(statistics["mean"]), "var": unit}
    return {**variables, "params": params, "batch_stats": batch_stats}


def fold_batch_norm(net: DeconvNet, variables: Variables) -> tuple[DeconvNet, Variables]:
    """Batch normalisation folded into the convolutions before it: fewer layers, the same outputs up to rounding.

    Args:
      net: with batch normalisation.
      variables: of it, with running statistics.

    Returns:
      The module without batch normalisation, for inference only, and its variables: {"params"}.

    Raises:
      InputError: if there is nothing to fold.
    """
    if not net.batch_norm:
        raise InputError("the network's batch normalisation is folded already (batch_norm=False)")
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
