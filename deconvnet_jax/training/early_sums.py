"""Sums of the largest gradients over devices that start while the backward pass still runs.

Only the update reads the gradients of fc6, fc7 and fc6-deconv, which hold 88 % of DeconvNet's parameters. XLA therefore
computes them last, and their all-reduces have no arithmetic left to hide behind. Here the sums over devices are an
input of the backward pass of the first blocks: XLA must compute the gradients before it, and start to send them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from deconvnet_jax.models import Layers

Before = dict[str, dict[str, Array] | None]  # layers with their gradients from other micro-batches, if there are any
LARGE = 0.05  # share of all parameters
# TPUs wait for every all-reduce unless both options are given (libtpu 0.0.50; 0.0.42 accepts them, too). They are given
# by device kind: XLA supports them on v5e alone, and refuses to compile with them for v5p.
COMPILER_OPTIONS = {
    "TPU v5 lite": {
        "xla_enable_async_all_reduce": "true",
        "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
    }
}
BEFORE_HALFWAY = ("conv1_", "conv2_")


def large_layers(params: Layers, freeze: Sequence[str]) -> list[str]:
    """Returns the layers after `halfway` that learn and hold at least the share `LARGE` of all parameters.

    Args:
      params: the network's parameters, by layer.
      freeze: prefixes of the names of layers that do not learn.
    """
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(layer)) for name, layer in params.items()}
    large = [name for name, size in sizes.items() if size >= LARGE * sum(sizes.values())]
    return [name for name in large if not name.startswith((*freeze, *BEFORE_HALFWAY))]


def sum_over_devices(gradients: Layers, axis_name: str, dtype: DTypeLike) -> Layers:
    """Returns the gradients summed over a mapped axis; they travel as `dtype`."""
    sums = lax.psum(jax.tree.map(lambda g: g.astype(dtype), gradients), axis_name)
    return jax.tree.map(lambda s, g: s.astype(g.dtype), sums, gradients)


def early_sums(before: Before, params: Layers, axis_name: str, dtype: DTypeLike) -> AbstractContextManager[Any]:
    """Returns a context in which to apply a network whose gradient will be taken.

    The gradients of some layers are then sums over devices, and the backward pass of everything before the network's
    `halfway` waits for them. No other result changes.

    Args:
      before: these layers (`large_layers`), each with its gradient from other micro-batches, which is added before the
        sum over devices, or None.
      params: the network's parameters, by layer.
      axis_name: the mapped axis over devices.
      dtype: of the gradients while they are summed over devices.
    """
    if not before:
        return nullcontext()
    joined: Layers = {}

    def interceptor(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name == "halfway":
            after = {name: params[name] for name in before}
            x, layers = cast(tuple[Array, Layers], _join(axis_name, dtype, args[0], after, before))
            joined.update(layers)
            return x
        if context.method_name == "__call__" and module.name in before:
            return module.clone(parent=None, name=None).apply({"params": joined[module.name]}, *args, **kwargs)
        return method(*args, **kwargs)

    return nn.intercept_methods(interceptor)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _join(axis_name: str, dtype: DTypeLike, x: Array, layers: Layers, before: Before) -> tuple[Array, Layers]:
    """Returns x and layers; the gradient of x waits for the sums over devices of those of the layers."""
    del axis_name, dtype, before
    return x, layers


def _join_fwd(axis_name, dtype, x, layers, before):
    return (x, layers), before


def _join_bwd(axis_name, dtype, before, gradients):
    of_x, of_layers = gradients
    totals = {
        name: layer if before[name] is None else jax.tree.map(jnp.add, before[name], layer)
        for name, layer in of_layers.items()
    }
    return *lax.optimization_barrier((of_x, sum_over_devices(totals, axis_name, dtype))), None


_join.defvjp(_join_fwd, _join_bwd)
