"""Momentum SGD as the original's Caffe does it, from optax's parts (training/00*/solver.prototxt)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import Layers
from deconvnet_jax.ops.sums import sums_of_squares

T = TypeVar("T")

_BETTER = 1e-6  # a score of 0..1 is better than another by at least this


def _lowered_at_drops(config: Mapping[str, Any]) -> optax.Schedule:
    drops = {step: config["drop_factor"] for step in config["drops"]}
    return optax.piecewise_constant_schedule(config["learning_rate"], drops)


def _constant(config: Mapping[str, Any]) -> optax.Schedule:
    return optax.constant_schedule(config["learning_rate"])


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule.

    Attributes:
      rate: function of section "optimizer" of the config to the learning rate at a step.
      of_scores: the scores of evaluations lower the rate further (`make_plateau`); so the run needs evaluations.
    """

    rate: Callable[[Mapping[str, Any]], optax.Schedule]
    of_scores: bool = False


SCHEDULES = {"step": Schedule(_lowered_at_drops), "plateau": Schedule(_constant, of_scores=True)}


def make_schedule(config: Mapping[str, Any]) -> optax.Schedule:
    """Returns the learning rate at a step, by the row of `SCHEDULES` that the config names.

    To add a schedule, add a row; its function reads section "optimizer" only. A schedule with an end needs a new
    setting for that end. It cannot be `num_steps`, which may change when a run resumes (`workdir.HARMLESS`) and would
    then change the rates of steps already done. If both stages of a config need their own value of a new setting, name
    it in `OWN` of experiments/configs/stages.py.

    Args:
      config: section "optimizer" of the experiment's config.

    Raises:
      InputError: for an unknown schedule.
    """
    name = config["schedule"]
    if name not in SCHEDULES:
        raise InputError(f"config.optimizer.schedule='{name}': unknown; expected {' or '.join(SCHEDULES)}")
    return SCHEDULES[name].rate(config)


def make_plateau(config: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
    """Returns what lowers the learning rate by scores: `update({}, state, value=-score)` gives the new `scale`.

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


def make_optimizer(config: Mapping[str, Any], params: Layers) -> optax.GradientTransformationExtraArgs:
    """v <- momentum * v + rate * (gradient + decay * w);  w <- w - v.

    The learning rate is inside the velocity, so a drop does not shrink the velocity that is under way. Biases learn
    `bias_rate` times as fast as kernels and do not decay; scale and shift of batch normalisation learn like kernels,
    and decay like them if `decay_bn` (Caffe's defaults, which the original leaves as they are).

    Args:
      config: section "optimizer" of the experiment's config: learning_rate, schedule and its settings, momentum,
        weight_decay, decay_bn, bias_rate, rates (pairs of a prefix of layer names and the learning rate of these
        layers, relative), freeze (prefixes of layer names that keep their initial values).
      params: the network's parameters; only their names are used.

    Returns:
      A transformation whose `update` takes `rate_scale`, which multiplies the learning rate. The shape of its state
      depends on the parameters alone: a run can go on with other settings.

    Raises:
      InputError: for a prefix in `freeze` or `rates` that no layer has, or an unknown schedule.
    """
    for key, prefixes in (("freeze", config["freeze"]), ("rates", [prefix for prefix, _ in config["rates"]])):
        for prefix in prefixes:
            if not any(layer.startswith(prefix) for layer in params):
                raise InputError(
                    f"config.optimizer.{key}: no layer begins with '{prefix}'; there are {', '.join(params)}"
                )

    def each(value: Callable[[str, str], T]) -> dict[str, dict[str, T]]:
        return {layer: {part: value(layer, part) for part in parts} for layer, parts in params.items()}

    return optax.chain(
        optax.add_decayed_weights(config["weight_decay"], mask=each(partial(_decays, config))),
        optax.scale_by_learning_rate(make_schedule(config)),
        _scale_each(each(partial(_relative_rate, config))),
        optax.trace(decay=config["momentum"]),
        optax.masked(optax.set_to_zero(), each(lambda layer, _: is_frozen(layer, config["freeze"]))),
    )


def apply_gradients(
    optimizer: optax.GradientTransformationExtraArgs,
    gradients: Layers,
    opt_state: optax.OptState,
    params: Layers,
    rate_scale: ArrayLike,
) -> tuple[Layers, optax.OptState, dict[str, jax.Array]]:
    """Applies one update and measures it, in one pass over gradients, parameters and velocity.

    XLA writes the new velocity to memory before it computes what else depends on it, and then reads it and the
    parameters again: 7 passes over arrays of 411 MB instead of 5. So the update is computed twice from the same
    arrays, once for the optimizer's state and once for everything else. A barrier hides from XLA that both are equal;
    it then computes all of it in one kernel. On a CPU it computes the update once.

    Args:
      optimizer: the result of `make_optimizer`.
      gradients, params: trees of the same structure.
      opt_state: the optimizer's state.
      rate_scale: multiplies the learning rate.

    Returns:
      The new parameters, the new state and float32 scalars: "gradient_norm", "parameter_norm" (of the new
      parameters), "update_norm".
    """
    hidden = lax.platform_dependent(jnp.asarray(rate_scale), cpu=lambda x: x, default=lax.optimization_barrier)
    _, new_state = optimizer.update(gradients, opt_state, params, rate_scale=rate_scale)
    updates, _ = optimizer.update(gradients, opt_state, params, rate_scale=hidden)
    params = cast(Layers, optax.apply_updates(params, updates))
    names = ("gradient_norm", "parameter_norm", "update_norm")
    sums = sums_of_squares(gradients, params, cast(Layers, updates))
    return params, new_state, {name: jnp.sqrt(total) for name, total in zip(names, sums, strict=True)}


def _decays(config: Mapping[str, Any], layer: str, part: str) -> bool:
    return config["decay_bn"] if is_batch_norm(layer) else part != "bias"


def _relative_rate(config: Mapping[str, Any], layer: str, part: str) -> float:
    """The first prefix that fits the layer counts."""
    rate = next((rate for prefix, rate in config["rates"] if layer.startswith(prefix)), 1.0)
    return rate * config["bias_rate"] if part == "bias" and not is_batch_norm(layer) else rate


def _scale_each(rates: dict[str, dict[str, float]]) -> optax.GradientTransformationExtraArgs:
    """Multiplies every update by its rate and by the argument `rate_scale`."""

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        rate_scale: ArrayLike = 1.0,
        **_: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        def scaled(update: jax.Array, rate: float) -> jax.Array:
            return update * (jnp.asarray(rate, update.dtype) * jnp.asarray(rate_scale, update.dtype))

        return jax.tree.map(scaled, updates, rates), state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def is_frozen(layer: str, freeze: Sequence[str]) -> bool:
    """True if the layer's name begins with one of the prefixes."""
    return layer.startswith(tuple(freeze))


def is_batch_norm(layer: str) -> bool:
    """True for the layers that hold scale and shift."""
    return "bn" in layer
