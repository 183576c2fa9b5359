"""Builds optimizers from optax's parts: momentum SGD with the update rule of the original's Caffe, and AdamW.

Values of the original: training/00*/solver.prototxt; the rule: solver.cpp.
"""

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

_BETTER = 1e-6  # scores are 0..1; a smaller gain does not count as an improvement


def _lowered_at_drops(config: Mapping[str, Any]) -> optax.Schedule:
    drops = {step: config["drop_factor"] for step in config["drops"]}
    return optax.piecewise_constant_schedule(config["learning_rate"], drops)


def _constant(config: Mapping[str, Any]) -> optax.Schedule:
    return optax.constant_schedule(config["learning_rate"])


def _polynomial(config: Mapping[str, Any]) -> optax.Schedule:
    rate, begin = config["learning_rate"], config.get("warmup_steps", 0)
    return optax.polynomial_schedule(
        init_value=rate,
        end_value=rate * config["end_factor"],
        power=config["power"],
        transition_steps=config["decay_steps"] - begin,
        transition_begin=begin,
    )


def _cosine(config: Mapping[str, Any]) -> optax.Schedule:
    rate, begin = config["learning_rate"], config.get("warmup_steps", 0)
    decay = optax.cosine_decay_schedule(rate, config["decay_steps"] - begin, alpha=config["end_factor"])
    return optax.join_schedules([optax.constant_schedule(rate), decay], [begin])


@dataclass(frozen=True)
class Schedule:
    """A row of `SCHEDULES`: how the learning rate depends on the step.

    Attributes:
      rate: takes section "optimizer" of the config and returns an optax schedule, a function step -> learning rate. It
        keeps the whole rate during the warm-up, which `make_schedule` adds.
      of_scores: True if the scores of evaluations lower the rate further (`make_plateau`); the run then needs
        evaluations.
      has_end: True if the rate falls from the end of the warm-up to step `decay_steps`, which must then be set.
    """

    rate: Callable[[Mapping[str, Any]], optax.Schedule]
    of_scores: bool = False
    has_end: bool = False


SCHEDULES = {
    "step": Schedule(_lowered_at_drops),
    "plateau": Schedule(_constant, of_scores=True),
    "poly": Schedule(_polynomial, has_end=True),
    "cosine": Schedule(_cosine, has_end=True),
}


def make_schedule(config: Mapping[str, Any]) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates done.

    During the first `warmup_steps` updates the rate of the schedule is multiplied by 1 / warmup_steps, 2 /
    warmup_steps, ..., 1. With w = warmup_steps, d = decay_steps and e = end_factor, update t + 1 has these rates after
    the warm-up:

    - "poly": learning_rate * (e + (1 - e) * (1 - (t - w) / (d - w)) ** power)
    - "cosine": learning_rate * (e + (1 - e) * (1 + cos(pi * (t - w) / (d - w))) / 2)

    From t = d on, both are learning_rate * e. Drops of "step" count from step 0, with and without a warm-up.

    To add a schedule, add a row to `SCHEDULES`; its function reads section "optimizer" only. The end of a schedule is
    `decay_steps` and not `num_steps`: that may change when a run resumes (`workdir.HARMLESS`) and would then change the
    rates of steps already done. If the two stages of a config need different values of a new setting, name it in `OWN`
    of experiments/configs/stages.py.

    Args:
      config: section "optimizer" of the experiment's config.

    Returns:
      An optax schedule: takes the number of updates done, an int or an int32 array, and returns the learning rate of
      the next update.

    Raises:
      InputError: if "schedule" names no row of `SCHEDULES`, or the schedule has an end and `decay_steps` is not above
        `warmup_steps`.

    Example:
      >>> settings = {"schedule": "step", "learning_rate": 0.01, "drops": (9_000, 18_000), "drop_factor": 0.1}
      >>> schedule = make_schedule(settings)
      >>> [f"{schedule(step):.0e}" for step in (0, 8_999, 9_000, 18_000)]
      ['1e-02', '1e-02', '1e-03', '1e-04']
    """
    name = config["schedule"]
    if name not in SCHEDULES:
        raise InputError(f"config.optimizer.schedule='{name}': unknown; expected {' or '.join(SCHEDULES)}")
    schedule, warmup = SCHEDULES[name], config.get("warmup_steps", 0)
    if schedule.has_end:
        _check_end(name, config.get("decay_steps", 0), warmup)
    rate = schedule.rate(config)
    if not warmup:
        return rate
    factor = optax.linear_schedule(1 / warmup, 1.0, transition_steps=warmup - 1)
    return lambda step: factor(step) * rate(step)


def _check_end(schedule: str, end: int, warmup: int) -> None:
    if not end:
        raise InputError(
            f"config.optimizer.schedule={schedule} needs the step at which the learning rate reaches its end: give "
            "--config.optimizer.decay_steps=STEP, usually num_steps; stage 1 of a two-stage config has its own, "
            "--config.stage1.optimizer.decay_steps"
        )
    if end <= warmup:
        raise InputError(
            f"config.optimizer.decay_steps={end}: expected more than config.optimizer.warmup_steps={warmup}, because "
            f"the learning rate falls after the warm-up; for a shorter one, --config.optimizer.warmup_steps={end // 10}"
        )


def make_plateau(config: Mapping[str, Any]) -> optax.GradientTransformationExtraArgs:
    """Returns the transformation that lowers the learning rate when the scores of evaluations stop improving.

    It multiplies the rate by `drop_factor` after `plateau_patience` evaluations in a row whose score is not better than
    the best one before (paper, section 6.1: "whenever the validation accuracy does not improve").

    Args:
      config: section "optimizer" of the experiment's config: drop_factor and plateau_patience.

    Returns:
      A transformation that is called once per evaluation: `update({}, state, value=-score)` returns ({}, new state).
      The state's `scale`, a float32 scalar, is the factor for `rate_scale` of the optimizer.

    Raises:
      InputError: if drop_factor is not between 0 and 1.
    """
    if not 0 < config["drop_factor"] < 1:
        raise InputError(f"config.optimizer.drop_factor={config['drop_factor']}: expected more than 0 and less than 1")
    return optax.contrib.reduce_on_plateau(
        factor=config["drop_factor"], patience=config["plateau_patience"], rtol=0.0, atol=_BETTER
    )


def _sgd(config: Mapping[str, Any], params: Layers) -> list[optax.GradientTransformation]:
    """Returns momentum SGD as Caffe computes it: v <- momentum * v + rate * (gradient + decay * w), w <- w - v."""
    return [
        optax.add_decayed_weights(config["weight_decay"], mask=_each(params, partial(_decays, config))),
        optax.scale_by_learning_rate(make_schedule(config)),
        _scale_each(_each(params, partial(_relative_rate, config, bias_rate=config["bias_rate"]))),
        optax.trace(decay=config["momentum"]),
    ]


def _adamw(config: Mapping[str, Any], params: Layers) -> list[optax.GradientTransformation]:
    """Returns AdamW, whose decay is decoupled from the moments: w <- w - rate * (m / (sqrt(v) + eps) + decay * w)."""
    return [
        optax.scale_by_adam(config["b1"], config["b2"], config["eps"]),
        optax.add_decayed_weights(config["weight_decay"], mask=_each(params, lambda _, part: part == "kernel")),
        optax.scale_by_learning_rate(make_schedule(config)),
        _scale_each(_each(params, partial(_relative_rate, config, bias_rate=1.0))),
    ]


@dataclass(frozen=True)
class Optimizer:
    """A row of `OPTIMIZERS`: an update rule.

    Attributes:
      parts: takes section "optimizer" of the config and the parameters, and returns the transformations of a chain.
      moments: arrays of the size of the parameters that its state holds.
    """

    parts: Callable[[Mapping[str, Any], Layers], list[optax.GradientTransformation]]
    moments: int


OPTIMIZERS = {"sgd": Optimizer(_sgd, moments=1), "adamw": Optimizer(_adamw, moments=2)}


def make_optimizer(config: Mapping[str, Any], params: Layers) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer that a config names.

    "sgd" is momentum SGD: v <- momentum * v + rate * (gradient + decay * w), then w <- w - v. The velocity v contains
    the learning rate, so a drop of the rate does not shrink the velocity of earlier steps. Biases learn `bias_rate`
    times as fast as kernels and do not decay. Scale and shift of batch normalisation learn like kernels, and decay like
    them if `decay_bn` is set. These are Caffe's defaults, which the original keeps.

    "adamw" is AdamW (Loshchilov and Hutter, 2019) as in PyTorch: w <- w - rate * (m / (sqrt(v) + eps) + decay * w),
    where m and v are the bias-corrected averages of the gradient and of its square. Only kernels decay.
    Biases learn as fast as kernels; `momentum`, `decay_bn` and `bias_rate` are not used.

    Args:
      config: section "optimizer" of the experiment's config: name ("sgd" if it is missing), learning_rate, schedule and
        its settings, weight_decay; for "sgd" momentum, decay_bn and bias_rate, for "adamw" b1, b2 and eps; rates, pairs
        (prefix of layer names, factor on the learning rate of these layers), of which the first that fits counts;
        freeze, prefixes of the names of layers that keep their values.
      params: {layer: {part: array}}, the network's parameters or their shapes; only the names are used.

    Returns:
      A transformation. `update` takes gradients, state and parameters (float32 trees of the same structure) and the
      keyword `rate_scale`, a factor on the learning rate; it returns the change of the parameters and the new state.
      The structure of the state depends on the parameters and on "name" only, so a run can resume with other settings.

    Raises:
      InputError: if no layer has a prefix in `freeze` or `rates`, the optimizer or the schedule is unknown, or the
        schedule has no end.

    Example:
      >>> params = {"conv1_1": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
      >>> settings = {"schedule": "step", "learning_rate": 0.5, "drops": (), "drop_factor": 0.1, "momentum": 0.9}
      >>> settings |= {"weight_decay": 0.0, "decay_bn": True, "bias_rate": 2.0, "rates": (), "freeze": ()}
      >>> optimizer = make_optimizer(settings, params)
      >>> gradients = params
      >>> updates, state = optimizer.update(gradients, optimizer.init(params), params)
      >>> updates["conv1_1"]["kernel"].tolist(), updates["conv1_1"]["bias"].tolist()
      ([-0.5, -0.5], [-1.0, -1.0])
    """
    for key, prefixes in (("freeze", config["freeze"]), ("rates", [prefix for prefix, _ in config["rates"]])):
        for prefix in prefixes:
            if not any(layer.startswith(prefix) for layer in params):
                layers = ", ".join(params)
                raise InputError(
                    f"config.optimizer.{key}: no layer's name begins with '{prefix}'; the layers are {layers}"
                )
    name = config.get("name", "sgd")
    if name not in OPTIMIZERS:
        raise InputError(f"config.optimizer.name='{name}': unknown; expected {' or '.join(OPTIMIZERS)}")
    frozen = _each(params, lambda layer, _: is_frozen(layer, config["freeze"]))
    return optax.chain(*OPTIMIZERS[name].parts(config, params), optax.masked(optax.set_to_zero(), frozen))


def _each(params: Layers, value: Callable[[str, str], T]) -> dict[str, dict[str, T]]:
    """Returns a tree like the parameters, with the value of (layer, part) in place of each array."""
    return {layer: {part: value(layer, part) for part in parts} for layer, parts in params.items()}


def apply_gradients(
    optimizer: optax.GradientTransformationExtraArgs,
    gradients: Layers,
    opt_state: optax.OptState,
    params: Layers,
    rate_scale: ArrayLike,
) -> tuple[Layers, optax.OptState, dict[str, jax.Array]]:
    """Applies one update and returns its norms; with SGD in one pass over gradients, parameters and velocity.

    The update is computed twice from the same arrays: once for the optimizer's state, once for everything else. A
    barrier hides from XLA that both are equal, so that it fuses each with its consumers into one kernel. Otherwise XLA
    writes the new velocity to memory first and then reads it and the parameters again: 7 passes over arrays of 411 MB
    instead of 5. On a CPU there is no barrier, and XLA computes the update once.

    Works on the arrays of one device; there are no reductions over devices.

    Args:
      optimizer: the result of `make_optimizer`.
      gradients: {layer: {part: array}}, float32, already summed over devices and divided by the weight of the loss.
      opt_state: the optimizer's state.
      params: the parameters, float32, with the structure and shapes of `gradients`.
      rate_scale: a factor on the learning rate, a scalar.

    Returns:
      The new parameters; the new optimizer state; and float32 scalars, L2 norms over all parameters: "gradient_norm",
      "parameter_norm" (of the new parameters) and "update_norm" (of the change).
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


def _relative_rate(config: Mapping[str, Any], layer: str, part: str, bias_rate: float) -> float:
    """Returns the factor on the learning rate of a parameter; the first prefix that fits the layer counts."""
    rate = next((rate for prefix, rate in config["rates"] if layer.startswith(prefix)), 1.0)
    return rate * bias_rate if part == "bias" and not is_batch_norm(layer) else rate


def _scale_each(rates: dict[str, dict[str, float]]) -> optax.GradientTransformationExtraArgs:
    """Returns a transformation that multiplies every update by its rate and by the argument `rate_scale`."""

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
    """Returns whether a layer keeps its values.

    Args:
      layer: the name of the layer.
      freeze: prefixes of the names of frozen layers; none freezes nothing.

    Returns:
      True if the name begins with one of the prefixes.
    """
    return layer.startswith(tuple(freeze))


def is_batch_norm(layer: str) -> bool:
    """Returns whether a layer of this name is a batch normalisation, which holds scale and shift."""
    return "bn" in layer
