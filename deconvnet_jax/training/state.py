"""What a training step changes."""

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from deconvnet_jax.models import DeconvNet


class TrainState(struct.PyTreeNode):
    """Step count, network and optimizer; replicated on every device.

    Attributes:
      step: int32 scalar, updates done.
      variables: {"params": ..., "batch_stats": ...}.
      opt_state: the optimizer's state.
    """

    step: Array
    variables: chex.ArrayTree
    opt_state: optax.OptState


def init_variables(net: DeconvNet, seed: int) -> chex.ArrayTree:
    """Fresh variables of the network, the same for the same seed."""
    images = jax.ShapeDtypeStruct((1, net.min_input_size, net.min_input_size, 3), jnp.float32)

    def init(key: Array) -> chex.ArrayTree:
        return net.init(key, jnp.zeros(images.shape, images.dtype))

    return jax.jit(init)(jax.random.key(seed))


def create_state(variables: chex.ArrayTree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), variables, optimizer.init(variables["params"]))
