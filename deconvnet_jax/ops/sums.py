"""Sums over millions of elements, fast and exact to a few float32 roundings.

XLA's sum on CPU computes what it adds up inside a loop that rules vectors out: the sum of squares of DeconvNet's
parameters alone takes a tenth of a training step. A product with ones runs at the speed of memory, but adds its rows
one after the other: over the 50,176 rows of conv1_2's map the rounding errors grow to 1e-5. Here up to 8 parts
are added up element by element, then up to 16 rows of the result by a product with ones, and so on until few rows are
left, which are added up in pairs. Programs for other platforms have XLA's sum.
"""

import math

import chex
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

_PARTS = range(8, 3, -1)  # 16 at once are 20 times slower
_FEW = 32  # rows to be added up in pairs
_DEPTHS = range(16, 7, -1)  # rows that one product adds up; of 64 equal ones the rounding errors are a few 1e-7 more


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """The type to compute statistics in: float32, or the type itself if it is wider."""
    return jnp.promote_types(dtype, jnp.float32)


def channel_sums(x: Array) -> Array:
    """Returns the sum over all axes but the last.

    Args:
      x: [..., C], of any size and dtype; float32 or wider inside.

    Returns:
      [C], float32 or wider. Differentiable.
    """
    return lax.platform_dependent(_rows(x), cpu=_sum_rows, default=_sum)


def sum_of_squares(tree: chex.ArrayTree) -> Array:
    """Returns the sum of the squares of all elements of all arrays, a scalar, float32 or wider. Differentiable."""
    return sum((_squared(jnp.asarray(leaf)) for leaf in jax.tree.leaves(tree)), jnp.zeros((), jnp.float32))


def sums_of_squares(*trees: chex.ArrayTree) -> list[Array]:
    """Returns `sum_of_squares` of every tree, in a form that XLA computes in one pass over all of them.

    On a GPU one operation adds up everything: beside several, XLA copies the arrays that the same pass updates.

    Args:
      trees: of the same structure and shapes.

    Returns:
      A scalar per tree, float32 or wider.
    """
    each, together = _squared_each, _squared_together
    of_leaves = [
        lax.platform_dependent(*leaves, cuda=together, rocm=together, default=each)
        for leaves in zip(*map(jax.tree.leaves, trees), strict=True)
    ]
    return [sum(of_tree, jnp.zeros((), jnp.float32)) for of_tree in zip(*of_leaves, strict=True)]


def _squared_each(*arrays: Array) -> list[Array]:
    return [_squared(x) for x in arrays]


def _squared_together(*arrays: Array) -> list[Array]:
    squares = [jnp.square(x.astype(at_least_float32(x.dtype))) for x in arrays]
    zeros = [jnp.zeros((), x.dtype) for x in squares]
    return lax.reduce(squares, zeros, lambda a, b: jax.tree.map(jnp.add, a, b), range(arrays[0].ndim))


def _squared(x: Array) -> Array:
    squares = jnp.square(x.astype(at_least_float32(x.dtype)))
    if x.ndim < 2:
        return jnp.sum(squares)
    return lax.platform_dependent(squares, cpu=_sum_all, default=jnp.sum)


def _sum_all(x: Array) -> Array:
    return jnp.sum(_sum_rows(_rows(x)))


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).astype(at_least_float32(x.dtype))


def _sum(rows: Array) -> Array:
    return rows.sum(axis=0)


def _sum_rows(rows: Array) -> Array:
    """[count, C] -> [C]."""
    count, channels = rows.shape
    fitting = ((parts, depth) for parts in _PARTS for depth in _DEPTHS if count % (parts * depth) == 0)
    parts, depth = next(fitting, (_PARTS[0], _DEPTHS[0]))
    whole = count - count % (parts * depth)
    if not whole:
        return rows.sum(axis=0)
    step = whole // parts
    folded = sum((rows[i : i + step] for i in range(step, whole, step)), rows[:step])
    blocks = folded.reshape(-1, depth, channels)
    sums = jnp.matmul(jnp.ones((len(blocks), 1, depth), rows.dtype), blocks, precision=lax.Precision.HIGHEST)
    left = jnp.concatenate([sums[:, 0], rows[whole:]])
    return _sum_rows(left) if len(left) > _FEW else _sum_in_pairs(left)


def _sum_in_pairs(rows: Array) -> Array:
    while len(rows) > 1:
        half = len(rows) // 2
        rows = jnp.concatenate([rows[:half] + rows[half : 2 * half], rows[2 * half :]])
    return rows[0]
