"""Keeps an exponential moving average of a network's variables, which evaluations and predictions use."""

from typing import cast

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from deconvnet_jax.models import Variables


def update_averages(averages: Variables, variables: Variables, step: ArrayLike, decay: float) -> Variables:
    """Returns the averages after an update of the network: d * averages + (1 - d) * variables.

    d is `decay`, or (1 + step) / (10 + step) while that is smaller, as in TensorFlow's ExponentialMovingAverage. Early
    averages therefore cover about the last ninth of the steps, and the initial values are forgotten within ten steps.
    With a decay of 0.999 this lasts for 9,000 steps.

    Running statistics of batch normalisation are averaged like parameters, as in timm. They change slowly with the
    parameters, so averages over the same steps fit each other. `calibrate_batch_norm` re-estimates them exactly.

    Args:
      averages: {"params": {layer: {part: float32 array}}, "batch_stats": the same}.
      variables: the network's variables after the update, a tree like `averages`.
      step: the number of updates before this one, an int or an int32 scalar.
      decay: the share of the old averages that is kept, from 0 and below 1.

    Returns:
      The new averages, a tree like `averages`.

    Example:
      >>> old, new = {"params": {"conv": {"bias": jnp.zeros(2)}}}, {"params": {"conv": {"bias": jnp.ones(2)}}}
      >>> [update_averages(old, new, step, 0.75)["params"]["conv"]["bias"][0].item() for step in (0, 8, 10_000)]
      [0.8999999761581421, 0.5, 0.25]
    """
    return cast(Variables, optax.incremental_update(variables, averages, 1 - _decay(step, decay)))


def _decay(step: ArrayLike, decay: float) -> Array:
    done = jnp.asarray(step, jnp.float32)
    return jnp.minimum(jnp.float32(decay), (1 + done) / (10 + done))
