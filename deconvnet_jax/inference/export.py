"""Exports a network as a StableHLO artefact, which JAX runs without this package."""

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
    """Returns the weights in the form that the artefact takes: {"params/conv1_1/kernel": array, ...}."""
    return {name: cast(Array, leaf) for name, leaf in flatten_dict(variables, sep="/").items()}


def export_network(
    net: nn.Module, variables: Variables, input_size: int, platforms: Sequence[str] = PLATFORMS
) -> bytes:
    """Returns the function (weights, images) -> scores as bytes, serialised by `jax.export`.

    The weights are arguments. As constants, those of the full network take minutes to compile and 10 GB of memory.

    Args:
      net: a module with `apply(variables, images, train=False) -> logits`.
      variables: the variables of `net`, or their shapes; only names, shapes and dtypes are used.
      input_size: the side S of the images, in pixels.
      platforms: the platforms that the artefact can run on, of `PLATFORMS`.

    Returns:
      The artefact. `jax.export.deserialize(bytearray(artefact)).call(weights, images)` takes weights from
      `flat_weights` and images uint8 RGB [N, S, S, 3] for any N, and returns logits float32 [N, S, S, K].

    Example:
      >>> from deconvnet_jax.weights import load_checkpoint
      >>> net, variables, _ = load_checkpoint("runs/demo")
      >>> artefact = export_network(net, variables, input_size=32, platforms=["cpu"])
      >>> network = export.deserialize(bytearray(artefact))  # needs only JAX; then network.call(weights, images)
      >>> print(network.out_avals[0])
      float32[batch,32,32,3]
    """

    def scores(weights: dict[str, Array], images: Array) -> Array:
        return logits_of(net, unflatten_dict(weights, sep="/"), normalize_images(images))

    (batch,) = export.symbolic_shape("batch")
    weights = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat_weights(variables).items()}
    images = jax.ShapeDtypeStruct((batch, input_size, input_size, 3), jnp.uint8)
    return bytes(export.export(jax.jit(scores), platforms=platforms)(weights, images).serialize())
