"""Scores of two networks as one, and the last step: the fully connected CRF.

Scores are such that `softmax(scores)` are probabilities.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deconvnet_jax.ops import CRF_PRESETS, dense_crf


@jax.jit
def mean_of_probabilities(scores: Array, others: Array) -> Array:
    """The paper's ensemble (section 4.4): the logarithm of the mean of both networks' probabilities.

    Args:
      scores: float32 [..., K].
      others: float32 [..., K], of the second network.

    Returns:
      float32 [..., K].
    """
    return jnp.logaddexp(jax.nn.log_softmax(scores), jax.nn.log_softmax(others)) - jnp.log(2.0)


@jax.jit
def product_of_positive(scores: Array, others: Array) -> Array:
    """The released ensemble: both networks' scores, negative ones as 0, multiplied; arguments as above."""
    return jnp.maximum(scores, 0) * jnp.maximum(others, 0)


def refine(scores: np.ndarray, image: np.ndarray, preset: str) -> np.ndarray:
    """The scores after a fully connected CRF.

    Args:
      scores: float32 [H, W, K].
      image: uint8 RGB [H, W, 3].
      preset: one of `ops.CRF_PRESETS`.

    Returns:
      float32 [H, W, K]: logarithms of the CRF's probabilities.
    """
    probabilities = dense_crf(-jax.nn.log_softmax(jnp.asarray(scores)), image, **CRF_PRESETS[preset])
    return np.log(np.maximum(np.asarray(probabilities), np.finfo(np.float32).tiny))
