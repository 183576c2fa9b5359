"""Networks with known results, which replace trained ones in tests."""

from dataclasses import dataclass

import jax.numpy as jnp

from deconvnet_jax.ops import MEAN_BGR


@dataclass(frozen=True)
class ColorNet:
    """Network whose scores are the colours of the input (blue, green, red) times a matrix."""

    name: str = "net"

    def apply(self, variables, images, train):
        assert not train
        assert images.dtype == jnp.float32
        return (images + jnp.asarray(MEAN_BGR)) @ variables["params"]["kernel"]


@dataclass(frozen=True)
class SmoothNet:
    """Network whose scores are continuous in the input and in the position, and not symmetric.

    The scores of a DeconvNet are not continuous: if two values of a pooling window are equal up to rounding, as outside
    an image, the last bit decides the switch.
    """

    name: str = "net"

    def apply(self, variables, images, train):
        assert not train
        colours = jnp.tanh((images / 64) @ variables["params"]["kernel"])
        colours = colours + jnp.roll(colours, 1, axis=2) / 2
        rows, columns = jnp.arange(images.shape[1])[:, None], jnp.arange(images.shape[2])
        return colours * (1 + 0.02 * rows + 0.01 * columns)[..., None]
