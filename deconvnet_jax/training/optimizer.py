"""Momentum SGD as the original's Caffe does it, from optax's parts (training/00*/solver.prototxt)."""

from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import optax
from jax.typing import ArrayLike

from deconvnet_jax.errors import InputError

SCHEDULES = ("step", "plateau")
_BETTER = 1e-6  # a score of 0..1 is better than another by at least this


def step_schedule(learning_rate: float, drops: Sequence[int], factor: float) -> optax.Schedule:
    """The learning rate at a step: multiplied by `factor` from every step in `drops` on."""
    return optax.piecewise_constant_schedule(learning_rate, {step: factor for step in drops})


def make_schedule(config: Mapping[str, Any]) -> optax.Schedule:
    """The learning rate at a step as section "optimizer" of the config says; a plateau's drops come on top of it.

    Raises:
      InputError: for an unknown schedule.
    """
    if config["schedule"] not in SCHEDULES:
        raise InputError(
            f"config.optimizer.schedule='{config['schedule']}': unknown; expected {' or '.join(SCHEDULES)}"
        )
    drops = config["drops"] if config["schedule"] == "step" else ()
    return step_schedule(config["learning_rate"], drops, config["drop_factor"])


def make_plateau(config: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
    """For schedule "plateau": `update({}, state, value=-score)` after an evaluation gives a state with a new `scale`.

    The learning rate is multiplied by `drop_factor` after `plateau_patience` evaluations in a row whose score is not
    better than the best before them (paper, section 4.2: "whenever the validation accuracy does not improve").

    Raises:
      InputError: for a drop_factor that is no fraction.
    """
    if not 0 < config["drop_factor"] < 1:
        raise InputError(f"config.optimizer.drop_factor={config['drop_factor']}: expected more than 0 and less than 1")
    return optax.contrib.reduce_on_plateau(
        factor=config["drop_factor"], patience=config["plateau_patience"], rtol=0.0, atol=_BETTER
    )


def make_optimizer(config: Mapping[str, Any], params: chex.ArrayTree) -> optax.GradientTransformationExtraArgs:
    """v <- momentum * v + rate * (gradient + decay * w);  w <- w - v.

    The learning rate is inside the velocity, so a drop does not shrink the velocity that is under way. Biases learn
    `bias_rate` times as fast as kernels and do not decay; scale and shift of batch normalisation learn like kernels,
    and decay like them if `decay_bn` (Caffe's defaults, which the original leaves as they are).

    Args:
      config: section "optimizer" of the experiment's config: learning_rate, schedule, drops, drop_factor, momentum,
        weight_decay, decay_bn, bias_rate, rates (pairs of a prefix of layer names and the learning rate of these
        layers, relative), freeze (prefixes of layer names that keep their initial values).
      params: the network's parameters; only their names are used.

    Returns:
      A transformation whose `update` takes `rate_scale`, which multiplies the learning rate.

    Raises:
      InputError: for a prefix in `freeze` or `rates` that no layer has, or an unknown schedule.
    """
    for key, prefixes in (("freeze", config["freeze"]), ("rates", [prefix for prefix, _ in config["rates"]])):
        for prefix in prefixes:
            if not any(layer.startswith(prefix) for layer in params):
                raise InputError(
                    f"config.optimizer.{key}: no layer begins with '{prefix}'; there are {', '.join(params)}"
                )
    schedule = make_schedule(config)

    def sgd(rate_multiplier: float, weight_decay: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(lambda step: schedule(step) * rate_multiplier),
            _scale_by_argument(),
            optax.trace(decay=config["momentum"]),
        )

    settings = {
        "weight": (1.0, config["weight_decay"]),
        "bias": (config["bias_rate"], 0.0),
        "batch_norm": (1.0, config["weight_decay"] if config["decay_bn"] else 0.0),
    }
    groups = parameter_groups(params, config["freeze"], config["rates"])
    transforms = {"frozen": optax.set_to_zero()}
    for group in sorted({*jax.tree.leaves(groups)} - {"frozen"}):
        kind, _, layer_rate = group.partition(" ")
        rate, decay = settings[kind]
        transforms[group] = sgd(rate * float(layer_rate or 1), decay)
    return optax.multi_transform(transforms, groups)


def _scale_by_argument() -> optax.GradientTransformationExtraArgs:
    def update(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        *,
        rate_scale: ArrayLike = 1.0,
        **_: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        return jax.tree.map(lambda u: u * rate_scale, updates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def parameter_groups(
    params: chex.ArrayTree, freeze: Sequence[str] = (), rates: Sequence[tuple[str, float]] = ()
) -> dict[str, dict[str, str]]:
    """The group of every parameter, by layer name and part: "weight", "bias", "batch_norm" or "frozen".

    Where `rates` gives the layer another learning rate than 1, it follows: "weight 0.1".
    """

    def group(path: tuple[Any, ...], _: chex.Array) -> str:
        layer, part = path[0].key, path[1].key
        if is_frozen(layer, freeze):
            return "frozen"
        kind = "batch_norm" if is_batch_norm(layer) else "bias" if part == "bias" else "weight"
        rate = next((rate for prefix, rate in rates if layer.startswith(prefix)), 1)
        return kind if rate == 1 else f"{kind} {rate}"

    return jax.tree_util.tree_map_with_path(group, params)


def is_frozen(layer: str, freeze: Sequence[str]) -> bool:
    """True if the layer's name begins with one of the prefixes."""
    return layer.startswith(tuple(freeze))


def is_batch_norm(layer: str) -> bool:
    """True for the layers that hold scale and shift."""
    return "bn" in layer
