"""Networks described by JSON, as checkpoints keep them beside their variables."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deconvnet_jax.models.deconvnet import DeconvNet
from deconvnet_jax.models.fcn8s import FCN8s

Network = DeconvNet | FCN8s
ARCHITECTURES: dict[str, type[Network]] = {"deconvnet": DeconvNet, "fcn8s": FCN8s}
NOT_DESCRIBED = ("parent", "name", "bn_axis_name", "bn_axis_groups", "remat")  # how a module is used, not what it is


def network_from_config(config: Mapping[str, Any]) -> Network:
    """The network that a config's section "model" describes: its fields, dtype by name, "architecture" if no DeconvNet.

    Raises:
      KeyError: for an unknown architecture.
      TypeError: for an unknown field, or a dtype without fractions.
    """
    fields = dict(config)
    network = ARCHITECTURES[fields.pop("architecture", "deconvnet")]
    dtype = jnp.dtype(fields["dtype"])
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype '{dtype}' is no floating-point type")
    return network(**{**fields, "dtype": dtype})


def layer_names(net: Network) -> list[str]:
    """The layers that have parameters, in the order in which the network applies them."""
    names: list[str] = []

    def init() -> None:
        images = jnp.zeros((1, net.min_input_size, net.min_input_size, 3))
        names.extend(net.init(jax.random.key(0), images)["params"])

    jax.eval_shape(init)  # traces only; in what it returns, names would be sorted
    return names


def config_from_network(net: Network) -> dict[str, Any]:
    """The description of a network as JSON values; inverse of `network_from_config`."""
    names = [field.name for field in dataclasses.fields(net) if field.name not in NOT_DESCRIBED]
    architecture = next(name for name, network in ARCHITECTURES.items() if isinstance(net, network))
    fields = {name: getattr(net, name) for name in names}
    return {"architecture": architecture, **fields, "dtype": jnp.dtype(net.dtype).name}
