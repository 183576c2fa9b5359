"""Converts 8-bit RGB images to the input that the network was trained on."""

import jax.numpy as jnp
from jax import Array

from deconvnet_jax.array_checks import check_arrays

# ImageNet mean in the order blue, green, red, from the original's inference code (preprocess_image_bb.m).
MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)


def normalize_images(images: Array) -> Array:
    """Returns images as the network expects them: BGR, float32, minus the ImageNet mean (`MEAN_BGR`).

    Args:
      images: uint8 RGB [..., 3], 0..255.

    Returns:
      float32 BGR [..., 3], about -123 to 151.

    Raises:
      InputError: if the last axis is not 3, or the dtype is not uint8.

    Example:
      >>> import jax.numpy as jnp
      >>> from deconvnet_jax.ops import normalize_images
      >>> red = jnp.array([[[255, 0, 0]]], jnp.uint8)
      >>> normalize_images(red)[0, 0].round()  # blue, green, red
      Array([-104., -117.,  132.], dtype=float32)
    """
    check_arrays("normalize_images", images=(images, "... 3", "uint8"))
    return images[..., ::-1].astype(jnp.float32) - jnp.asarray(MEAN_BGR, jnp.float32)
