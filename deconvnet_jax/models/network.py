"""Converts networks to and from the JSON description that checkpoints keep beside their variables."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deconvnet_jax.models.deconvnet import DeconvNet
from deconvnet_jax.models.fcn8s import FCN8s

Network = DeconvNet | FCN8s
ARCHITECTURES: dict[str, type[Network]] = {"deconvnet": DeconvNet, "fcn8s": FCN8s}
# These fields say how a module is used, not what it is.
NOT_DESCRIBED = ("parent", "name", "bn_axis_name", "bn_axis_groups", "remat")


def network_from_config(config: Mapping[str, Any]) -> Network:
    """Returns the network that the section "model" of a config describes.

    Args:
      config: the fields of the network, with "dtype" as a name. "architecture" is a key of ARCHITECTURES; without it
        the network is a DeconvNet.

    Raises:
      KeyError: if the architecture is unknown.
      TypeError: if a field is unknown, or the dtype is not floating-point.
    """
    fields = dict(config)
    network = ARCHITECTURES[fields.pop("architecture", "deconvnet")]
    dtype = jnp.dtype(fields["dtype"])
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype '{dtype}' is not a floating-point type")
    return network(**{**fields, "dtype": dtype})


def layer_names(net: Network) -> list[str]:
    """Returns the names of the layers that have parameters, in the order in which the network applies them."""
    names: list[str] = []

    def init() -> None:
        images = jnp.zeros((1, net.min_input_size, net.min_input_size, 3))
        names.extend(net.init(jax.random.key(0), images)["params"])

    jax.eval_shape(init)  # Only traces. The names are collected inside, because eval_shape's result is sorted.
    return names


def config_from_network(net: Network) -> dict[str, Any]:
    """Returns the description of a network as JSON values; the inverse of `network_from_config`."""
    names = [field.name for field in dataclasses.fields(net) if field.name not in NOT_DESCRIBED]
    architecture = next(name for name, network in ARCHITECTURES.items() if isinstance(net, network))
    fields = {name: getattr(net, name) for name in names}
    return {"architecture": architecture, **fields, "dtype": jnp.dtype(net.dtype).name}
