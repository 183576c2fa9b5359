"""Starts the all-reduces of the largest gradients while the backward pass still runs.

fc6, fc7 and fc6-deconv hold 88 % of DeconvNet's parameters, and only the update reads their gradients. XLA therefore
computes them last, and no arithmetic is left that could overlap with their all-reduces.

This module makes the summed gradients an input of the backward pass of encoder blocks 1 and 2: an
`optimization_barrier` ties them to the gradient of the input of block 3. XLA must then compute the large gradients
first and start their all-reduces, which overlap with the backward pass of those two blocks.
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

# {layer: its gradient from the earlier micro-batches}; None if there is only one micro-batch.
Before = dict[str, dict[str, Array] | None]
LARGE = 0.05  # a layer with at least this share of all parameters is summed early
# TPUs wait for every all-reduce unless both options are given (libtpu 0.0.50; 0.0.42 accepts them, too). The table is
# by device kind because XLA supports them on v5e only, and refuses to compile with them for v5p.
COMPILER_OPTIONS = {
    "TPU v5 lite": {
        "xla_enable_async_all_reduce": "true",
        "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": "true",
    }
}
BEFORE_HALFWAY = ("conv1_", "conv2_")  # layers whose backward pass overlaps with the early sums


def large_layers(params: Layers, freeze: Sequence[str]) -> list[str]:
    """Returns the names of the layers whose gradients are summed early, in the order of `params`.

    These are the layers after the network's `halfway` that learn and hold at least the share `LARGE` of all parameters.

    Args:
      params: {layer: {"kernel": array, ...}}, the network's parameters or their shapes.
      freeze: prefixes of the names of layers that do not learn.

    Returns:
      The names; an empty list if no layer is large enough.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from deconvnet_jax.models import DeconvNet
      >>> shapes = jax.eval_shape(DeconvNet(num_classes=21).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
      >>> sorted(large_layers(shapes["params"], freeze=()))
      ['fc6', 'fc6-deconv', 'fc7']
    """
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(layer)) for name, layer in params.items()}
    large = [name for name, size in sizes.items() if size >= LARGE * sum(sizes.values())]
    return [name for name in large if not name.startswith((*freeze, *BEFORE_HALFWAY))]


def sum_over_devices(gradients: Layers, axis_name: str, dtype: DTypeLike) -> Layers:
    """Returns the gradients summed over a mapped axis by `lax.psum`.

    Args:
      gradients: {layer: {part: array}}, this device's gradients, usually float32.
      axis_name: the mapped axis over devices.
      dtype: the arrays are cast to it before the all-reduce; bfloat16 halves the bytes that are sent.

    Returns:
      The sums, with the shapes and dtypes of `gradients`, equal on every device of the axis.
    """
    sums = lax.psum(jax.tree.map(lambda g: g.astype(dtype), gradients), axis_name)
    return jax.tree.map(lambda s, g: s.astype(g.dtype), sums, gradients)


def early_sums(before: Before, params: Layers, axis_name: str, dtype: DTypeLike) -> AbstractContextManager[Any]:
    """Returns a context in which to apply a network inside a function that is then differentiated.

    Inside the context, the gradients of the layers in `before` come out of `jax.grad` already summed over the axis. The
    other gradients are this device's own. The backward pass of everything before the network's `halfway` (encoder
    blocks 1 and 2) waits for those sums. The forward pass and all other results do not change.

    The context intercepts `halfway` and the call of each layer in `before`: these layers read their parameters through
    `_join`, whose backward pass holds the all-reduce and the barrier.

    Args:
      before: {layer: gradient or None} for the layers to sum early (`large_layers`). A gradient, of this device from
        its earlier micro-batches, is added before the sum over devices. If empty, the context does nothing.
      params: {layer: {part: array}}, the parameters by which the function is differentiated.
      axis_name: the mapped axis over devices.
      dtype: the gradients are cast to it while they are summed over devices.

    Returns:
      A context manager.
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
    """Returns x and layers unchanged; the gradient of x waits for the all-reduce of the layers' gradients."""
    del axis_name, dtype, before
    return x, layers


def _join_fwd(axis_name, dtype, x, layers, before):
    return (x, layers), before


def _join_bwd(axis_name, dtype, before, gradients):
    """Sums the layers' gradients over devices; the barrier makes everything that reads the gradient of x wait."""
    of_x, of_layers = gradients
    totals = {
        name: layer if before[name] is None else jax.tree.map(jnp.add, before[name], layer)
        for name, layer in of_layers.items()
    }
    return *lax.optimization_barrier((of_x, sum_over_devices(totals, axis_name, dtype))), None


_join.defvjp(_join_fwd, _join_bwd)
