"""Momentum SGD as the original's Caffe does it, from optax's parts (training/00*/solver.prototxt)."""

from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import optax

from deconvnet_jax.errors import InputError


def step_schedule(learning_rate: float, drops: Sequence[int], factor: float) -> optax.Schedule:
    """The learning rate at a step: multiplied by `factor` from every step in `drops` on."""
    return optax.piecewise_constant_schedule(learning_rate, {step: factor for step in drops})


def make_optimizer(config: Mapping[str, Any], params: chex.ArrayTree) -> optax.GradientTransformation:
    """v <- momentum * v + rate * (gradient + decay * w);  w <- w - v.

    The learning rate is inside the velocity, so a drop does not shrink the velocity that is under way. Biases learn
    `bias_rate` times as fast as kernels and do not decay; scale and shift of batch normalisation do both like kernels
    (Caffe's defaults, which the original leaves as they are).

    Args:
      config: section "optimizer" of the experiment's config: learning_rate, drops, drop_factor, momentum,
        weight_decay, bias_rate, freeze (prefixes of layer names that keep their initial values).
      params: the network's parameters; only their names are used.

    Raises:
      InputError: for a prefix in `freeze` that no layer has.
    """
    for prefix in config["freeze"]:
        if not any(layer.startswith(prefix) for layer in params):
            raise InputError(f"config.optimizer.freeze: no layer begins with '{prefix}'; there are {', '.join(params)}")
    schedule = step_schedule(config["learning_rate"], config["drops"], config["drop_factor"])

    def sgd(rate_multiplier: float, weight_decay: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(lambda step: schedule(step) * rate_multiplier),
            optax.trace(decay=config["momentum"]),
        )

    groups = {
        "weight": sgd(1.0, config["weight_decay"]),
        "bias": sgd(config["bias_rate"], 0.0),
        "frozen": optax.set_to_zero(),
    }
    return optax.multi_transform(groups, parameter_groups(params, config["freeze"]))


def parameter_groups(params: chex.ArrayTree, freeze: Sequence[str] = ()) -> chex.ArrayTree:
    """The group of every parameter, by layer name and part: "weight", "bias" or "frozen"."""

    def group(path: tuple[Any, ...], _: chex.Array) -> str:
        layer, part = path[0].key, path[1].key
        if is_frozen(layer, freeze):
            return "frozen"
        return "bias" if part == "bias" and "bn" not in layer else "weight"

    return jax.tree_util.tree_map_with_path(group, params)


def is_frozen(layer: str, freeze: Sequence[str]) -> bool:
    """True if the layer's name begins with one of the prefixes."""
    return layer.startswith(tuple(freeze))
