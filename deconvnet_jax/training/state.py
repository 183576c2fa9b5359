"""What a training step changes."""

from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from deconvnet_jax.models import Network, Variables


class TrainState(struct.PyTreeNode):
    """Step count, network and optimizer; replicated on every device.

    Attributes:
      step: int32 scalar, updates done.
      variables: {"params": ..., "batch_stats": ...}; without the latter if the network has no batch normalisation.
      opt_state: the optimizer's state.
      plateau: how evaluations have gone; its `scale` multiplies the learning rate (`optimizer.make_plateau`).
    """

    step: Array
    variables: Variables
    opt_state: optax.OptState
    plateau: optax.contrib.ReduceLROnPlateauState


def init_variables(net: Network, seed: int) -> Variables:
    """Fresh variables of the network, the same for the same seed."""
    return _initialised(net, jax.random.key(seed))


@partial(jax.jit, static_argnums=0)
def _initialised(net: Network, key: Array) -> Variables:
    return dict(net.init(key, jnp.zeros((1, net.min_input_size, net.min_input_size, 3), jnp.float32)))


def create_state(variables: Variables, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    plateau = optax.contrib.reduce_on_plateau().init(jnp.zeros((), jnp.float32))
    plateau = cast(optax.contrib.ReduceLROnPlateauState, plateau)
    return TrainState(jnp.zeros((), jnp.int32), variables, optimizer.init(variables["params"]), plateau)
