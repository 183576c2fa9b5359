"""Scores of two networks as one, and the last step: the fully connected CRF.

Scores are float32 [..., K]; `softmax(scores)` are probabilities.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deconvnet_jax.labels import label_type
from deconvnet_jax.ops import CRF_PRESETS
from deconvnet_jax.ops.dense_crf import Kernels, crf_kernels, mean_field_rows, padded_pixels


@jax.jit
def mean_of_probabilities(scores: Array, others: Array) -> Array:
    """Returns the paper's ensemble (section 4.4): the logarithm of the mean of both networks' probabilities."""
    return jnp.logaddexp(jax.nn.log_softmax(scores), jax.nn.log_softmax(others)) - jnp.log(2.0)


@jax.jit
def product_of_positive(scores: Array, others: Array) -> Array:
    """Returns the released ensemble: the product of both networks' scores, negative ones as 0."""
    return jnp.maximum(scores, 0) * jnp.maximum(others, 0)


@jax.jit
def most_likely(scores: Array) -> Array:
    """Returns the class with the highest score, [...]: uint8, uint16 if K is more than 255."""
    return scores.argmax(axis=-1).astype(label_type(scores.shape[-1]))


def kernels_of(image: np.ndarray, preset: str) -> Kernels:
    """Returns what the CRF needs to know of an image, uint8 RGB [H, W, 3]; waits for the device to count vertices.

    Raises:
      InputError: if the image is too large for a lattice.
    """
    return crf_kernels(image, CRF_PRESETS[preset]["gaussian"], CRF_PRESETS[preset]["bilateral"])


def refine(
    scores: Array, kernels: Kernels, size: tuple[int, int], preset: str, sharpness: float = 1.0
) -> tuple[Array, Array]:
    """Applies a fully connected CRF to scores; does not wait for the device.

    Args:
      scores: float32 [Hp, Wp, K], whose upper left corner is the image's.
      kernels: of the image (`kernels_of`).
      size: its height and width.
      preset: one of `ops.CRF_PRESETS`.
      sharpness: factor on the scores; the unaries are -log softmax(sharpness * scores).

    Returns:
      The most probable class of every pixel, row by row, uint8 or uint16 [P], and the logarithms of the CRF's
      probabilities, float32 [P, K]. P is at least H * W; what is beyond means nothing.
    """
    settings = CRF_PRESETS[preset]
    weights = settings["gaussian"][-1], settings["bilateral"][-1]
    unary = _unary_rows(scores, np.float32(sharpness), np.array(size, np.int32), padded_pixels(*size))
    q = mean_field_rows(unary, kernels, weights, normalization=settings["normalization"])
    return _labels_and_logarithms(q)


@partial(jax.jit, static_argnames="rows")
def _unary_rows(scores: Array, sharpness: Array, size: Array, rows: int) -> Array:
    """Returns -log p of the pixels of an image of that size, [rows, K]."""
    index = jnp.minimum(jnp.arange(rows), size[0] * size[1] - 1)
    return -jax.nn.log_softmax(sharpness * scores[index // size[1], index % size[1]])


@jax.jit
def _labels_and_logarithms(q: Array) -> tuple[Array, Array]:
    return most_likely(q), jnp.log(jnp.maximum(q, jnp.finfo(jnp.float32).tiny))
