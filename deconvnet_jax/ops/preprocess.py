"""From pictures as people have them to what the network was trained on."""

import chex
import jax.numpy as jnp
from jax import Array

# ImageNet mean of the original's inference code, blue, green, red (preprocess_image_bb.m).
MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)


def normalize_images(images: Array) -> Array:
    """uint8 RGB [..., 3], 0..255 -> float32 BGR [..., 3] minus the ImageNet mean."""
    chex.assert_axis_dimension(images, -1, 3)
    chex.assert_type(images, jnp.uint8)
    return images[..., ::-1].astype(jnp.float32) - jnp.asarray(MEAN_BGR, jnp.float32)
