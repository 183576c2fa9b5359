"""Defines the state that a training step updates, and creates its initial value."""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from deconvnet_jax.models import Network, Variables
from deconvnet_jax.short_repr import short_repr


class TrainState(struct.PyTreeNode):
    """State of a run: step count, network and optimizer; every device holds all of it.

    Attributes:
      step: int32 scalar, the number of updates done.
      variables: {"params": {layer: {part: float32 array}}, "batch_stats": the same}; "batch_stats" is missing if the
        network has no batch normalisation.
      opt_state: the optimizer's state; the velocity, or each moment of AdamW, has the shapes of "params", float32.
      plateau: the history of evaluation scores, scalars; its `scale` multiplies the learning rate
        (`optimizer.make_plateau`).
      averages: the moving average of `variables`, a tree like it (`averages.update_averages`); None if there is none.
    """

    step: Array
    variables: Variables
    opt_state: optax.OptState
    plateau: optax.contrib.ReduceLROnPlateauState
    averages: Variables | None = None

    __repr__ = short_repr

    @property
    def evaluated(self) -> Variables:
        """The variables that evaluations use: the averages if there are any."""
        return self.variables if self.averages is None else self.averages


def init_variables(net: Network, seed: int) -> Variables:
    """Returns newly initialised variables of a network, float32, the same for the same seed.

    Args:
      net: the network.
      seed: the seed of all random numbers.

    Returns:
      {"params": {layer: {part: array}}, "batch_stats": the same}, on the default device.

    Example:
      >>> from deconvnet_jax.models import DeconvNet
      >>> net = DeconvNet(num_classes=21)
      >>> variables = jax.eval_shape(lambda: init_variables(net, seed=0))  # the shapes only: this allocates nothing
      >>> variables["params"]["fc6"]["kernel"].shape
      (7, 7, 512, 4096)
    """
    return _initialised(net, jax.random.key(seed))


@partial(jax.jit, static_argnums=0)
def _initialised(net: Network, key: Array) -> Variables:
    return dict(net.init(key, jnp.zeros((1, net.min_input_size, net.min_input_size, 3), jnp.float32)))


def create_state(variables: Variables, optimizer: optax.GradientTransformation, averaged: bool = False) -> TrainState:
    """Returns the state before the first step.

    Args:
      variables: {"params", "batch_stats"} of the network, float32; kept as they are, not copied.
      optimizer: the result of `make_optimizer` for these parameters.
      averaged: True adds averages of the variables, which start as a copy of them; `train_step` then needs `ema_decay`.

    Returns:
      A state with step 0, a velocity or moments of zeros, and a `plateau.scale` of 1.
    """
    plateau = optax.contrib.reduce_on_plateau().init(jnp.zeros((), jnp.float32))
    plateau = cast(optax.contrib.ReduceLROnPlateauState, plateau)
    # The step reuses the memory of its arguments, so no array may occur twice.
    averages = jax.tree.map(jnp.copy, variables) if averaged else None
    return TrainState(jnp.zeros((), jnp.int32), variables, optimizer.init(variables["params"]), plateau, averages)
