"""Linear functions whose transpose is given, instead of derived by JAX."""

from collections.abc import Callable
from typing import TypeVar

from jax import Array, lax

Residuals = TypeVar("Residuals")


def linear_call(
    function: Callable[[Residuals, Array], Array],
    transpose: Callable[[Residuals, Array], Array],
    residuals: Residuals,
    values: Array,
) -> Array:
    """Returns function(residuals, values), whose derivative uses the given transpose.

    It works under vmap, in forward and in reverse mode, and to any order. `jax.custom_derivatives.linear_call` does the
    same but cannot be vmapped. The custom solve of a linear system can, and JAX treats every solution as linear in the
    right-hand side. So `function` is passed as a solver; JAX would use the system itself only for derivatives with
    respect to the residuals, which are cut off here.

    Args:
      function: a function that is linear in its second argument and returns its shape and dtype.
      transpose: the transpose of `function` in its second argument.
      residuals: a tree of arrays that both functions get first; no derivative with respect to them is computed.
      values: float array of any shape.

    Returns:
      An array in the shape and dtype of `values`.
    """
    fixed = lax.stop_gradient(residuals)
    return lax.custom_linear_solve(
        lambda x: x,
        values,
        solve=lambda _, b: function(fixed, b),
        transpose_solve=lambda _, b: transpose(fixed, b),
    )
