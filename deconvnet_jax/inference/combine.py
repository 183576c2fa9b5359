"""Combines the scores of two networks, and applies the fully connected CRF.

Scores are float32 [..., K]; `softmax(scores)` are probabilities.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.images import check_image
from deconvnet_jax.labels import label_type
from deconvnet_jax.ops import CRF_PRESETS
from deconvnet_jax.ops.dense_crf import Kernels, crf_kernels, mean_field_rows, padded_pixels


@jax.jit
def mean_of_probabilities(scores: Array, others: Array) -> Array:
    """Returns the ensemble of the paper (section 5.2): the logarithm of the mean of both networks' probabilities.

    Args:
      scores: float32 [..., K], the scores of the first network.
      others: float32 [..., K], the scores of the second network.

    Returns:
      float32 [..., K], log probabilities.

    Example:
      >>> one, two = jnp.log(jnp.array([0.8, 0.2])), jnp.log(jnp.array([0.4, 0.6]))
      >>> print(jnp.exp(mean_of_probabilities(one, two)).round(3))
      [0.6 0.4]
    """
    check_arrays("mean_of_probabilities", scores=(scores, "... K", "float"), others=(others, "... K", "float"))
    return jnp.logaddexp(jax.nn.log_softmax(scores), jax.nn.log_softmax(others)) - jnp.log(2.0)


@jax.jit
def mean_of_scores(*scores: Array) -> Array:
    """Returns the mean of the scores of one network at several scales.

    Args:
      *scores: float32 [..., K], the scores at each scale.

    Returns:
      float32 [..., K].
    """
    return sum(scores[1:], scores[0]) / len(scores)


@jax.jit
def product_of_positive(scores: Array, others: Array) -> Array:
    """Returns the ensemble of the released code: the product of both networks' scores, with 0 for negative scores.

    Args:
      scores: float32 [..., K], the scores of the first network.
      others: float32 [..., K], the scores of the second network.

    Returns:
      float32 [..., K], at least 0.
    """
    check_arrays("product_of_positive", scores=(scores, "... K", "float"), others=(others, "... K", "float"))
    return jnp.maximum(scores, 0) * jnp.maximum(others, 0)


@jax.jit
def most_likely(scores: Array) -> Array:
    """Returns the class with the highest score; of equal scores, the one with the lowest id.

    Args:
      scores: [..., K], of any real dtype.

    Returns:
      Class ids [...], uint8, or uint16 if K is more than 255.
    """
    return scores.argmax(axis=-1).astype(label_type(scores.shape[-1]))


def kernels_of(image: np.ndarray, preset: str) -> Kernels:
    """Returns the kernels of the CRF for an image; waits for the device, which counts the lattice's vertices.

    Args:
      image: uint8 RGB [H, W, 3].
      preset: a key of `ops.CRF_PRESETS`.

    Returns:
      The Gaussian and the bilateral kernel, for `refine`.

    Raises:
      InputError: if the image has another shape or dtype, or is too large for a lattice.
    """
    check_image(image)
    return crf_kernels(image, CRF_PRESETS[preset]["gaussian"], CRF_PRESETS[preset]["bilateral"])


def refine(
    scores: Array, kernels: Kernels, size: tuple[int, int], preset: str, sharpness: float = 1.0
) -> tuple[Array, Array]:
    """Returns the labels and log probabilities of a fully connected CRF; does not wait for the device.

    Args:
      scores: float32 [Hp, Wp, K], padded: the image is in the upper left corner.
      kernels: the kernels of the image (`kernels_of`).
      size: the image's height and width, at most Hp and Wp.
      preset: a key of `ops.CRF_PRESETS`, the same as for `kernels`.
      sharpness: a factor on the scores; the unaries are -log softmax(sharpness * scores).

    Returns:
      The most probable class of every pixel, uint8 or uint16 [P], and the logarithms of the CRF's probabilities,
      float32 [P, K]. Pixels are in row-major order. P is at least H * W; the entries after H * W are padding.
    """
    settings = CRF_PRESETS[preset]
    weights = settings["gaussian"][-1], settings["bilateral"][-1]
    unary = _unary_rows(scores, np.float32(sharpness), np.array(size, np.int32), padded_pixels(*size))
    q = mean_field_rows(unary, kernels, weights, normalization=settings["normalization"])
    return _labels_and_logarithms(q)


@partial(jax.jit, static_argnames="rows")
def _unary_rows(scores: Array, sharpness: Array, size: Array, rows: int) -> Array:
    """Returns -log p of the image's pixels in row-major order, [rows, K]; the rows after H * W repeat the last one."""
    index = jnp.minimum(jnp.arange(rows), size[0] * size[1] - 1)
    return -jax.nn.log_softmax(sharpness * scores[index // size[1], index % size[1]])


@jax.jit
def _labels_and_logarithms(q: Array) -> tuple[Array, Array]:
    return most_likely(q), jnp.log(jnp.maximum(q, jnp.finfo(jnp.float32).tiny))
