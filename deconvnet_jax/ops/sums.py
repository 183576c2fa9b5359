"""Sums over millions of elements.

XLA's sums on CPU keep the order of a loop, which rules vectors out: the sum of squares of DeconvNet's parameters alone
takes a tenth of a training step. Here rows are added up eight at a time, element by element, and what is left is a
product with ones; both run at the speed of memory. Other backends get XLA's sum.
"""

import chex
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

_PARTS = 8  # 16 at once are 20 times slower


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """The type to compute statistics in: float32, or the type itself if it is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def channel_sums(x: Array) -> Array:
    """The sum over all axes but the last: [..., C] -> [C], float32 or wider."""
    rows = x.reshape(-1, x.shape[-1]).astype(at_least_float32(x.dtype))
    return rows.sum(axis=0) if jax.default_backend() != "cpu" else _sum_rows(rows)


def sum_of_squares(tree: chex.ArrayTree) -> Array:
    """The sum over all elements of all arrays, a scalar, float32 or wider."""
    return sum((_squared(leaf) for leaf in jax.tree.leaves(tree)), jnp.zeros((), jnp.float32))


def _squared(x: Array) -> Array:
    x = x.astype(at_least_float32(x.dtype))
    if jax.default_backend() != "cpu" or x.ndim == 0:
        return jnp.sum(x * x)
    rows = x.reshape(-1, x.shape[-1])
    return jnp.sum(_sum_rows(rows * rows))


def _sum_rows(rows: Array) -> Array:
    parts = next(parts for parts in range(_PARTS, 0, -1) if len(rows) % parts == 0)
    part = len(rows) // parts
    folded = sum(rows[i * part : (i + 1) * part] for i in range(parts))
    return jnp.matmul(jnp.ones((1, part), rows.dtype), folded, precision=lax.Precision.HIGHEST)[0]
