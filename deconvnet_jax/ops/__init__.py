"""Pure functions on arrays: pooling with indices, unpooling, image normalisation."""

from deconvnet_jax.ops.pooling import max_pool_with_indices, max_unpool
from deconvnet_jax.ops.preprocess import MEAN_BGR, normalize_images

__all__ = ["MEAN_BGR", "max_pool_with_indices", "max_unpool", "normalize_images"]
