"""The network as a StableHLO artefact, which JAX runs without this package."""

from collections.abc import Sequence
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, export

from deconvnet_jax.inference.proposal_batch import logits_of
from deconvnet_jax.models import Variables
from deconvnet_jax.ops import normalize_images

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def flat_weights(variables: Variables) -> dict[str, Array]:
    """Returns the weights as the artefact takes them: {"params/conv1_1/kernel": array, ...}."""
    return {name: cast(Array, leaf) for name, leaf in flatten_dict(variables, sep="/").items()}


def export_network(
    net: nn.Module, variables: Variables, input_size: int, platforms: Sequence[str] = PLATFORMS
) -> bytes:
    """Returns the function (weights, images) -> scores, for any number of images, serialized by `jax.export`.

    The weights stay outside: as constants inside, those of the full network take minutes to compile and 10 GB.

    Args:
      net: a module with `apply(variables, images, train=False) -> logits`.
      variables: of the network; only their names and shapes matter.
      input_size: side of the images, S.
      platforms: that the artefact can run on.

    Returns:
      What `jax.export.deserialize(bytearray(...)).call(weights, images)` runs: weights from `flat_weights`, images
      uint8 RGB [N, S, S, 3], scores (logits) float32 [N, S, S, K].
    """

    def scores(weights: dict[str, Array], images: Array) -> Array:
        return logits_of(net, unflatten_dict(weights, sep="/"), normalize_images(images))

    (batch,) = export.symbolic_shape("batch")
    weights = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat_weights(variables).items()}
    images = jax.ShapeDtypeStruct((batch, input_size, input_size, 3), jnp.uint8)
    return bytes(export.export(jax.jit(scores), platforms=platforms)(weights, images).serialize())
