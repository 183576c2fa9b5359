"""A small network that finds the boundaries of objects: the edge map that Edge Boxes draws its proposals from."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from deconvnet_jax.models.layers import Conv3x3

STRIDE = 16  # of the coarsest level: images are padded to multiples of it
_MEAN = (124.0, 117.0, 104.0)  # of photographs, RGB
_DEVIATION = 58.0


class EdgeNetwork(nn.Module):
    """From photographs to the logit, at every pixel, of the share of people who would draw a boundary there.

    Five levels of half the size each, two 3x3 convolutions a level; then upwards again, adding what the level below
    knows; at the full size a few channels only, because there they cost most. No normalisation: it would make the
    answer depend on the padding.

    Attributes:
      widths: channels of the levels, from the full size down.
      decoder_width: channels on the way up.
    """

    widths: tuple[int, ...] = (8, 24, 40, 56, 64)
    decoder_width: int = 24

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """From images float32 or uint8 [N, H, W, 3], RGB 0..255, H and W multiples of 16, to logits [N, H, W]."""
        chex.assert_rank(images, 4)
        x = (images.astype(jnp.float32) - jnp.array(_MEAN)) / _DEVIATION
        levels = []
        for level, width in enumerate(self.widths):
            x = nn.relu(self._conv(width, f"down{level}", strides=2 if level else 1)(x))
            if level:
                x = nn.relu(x + self._conv(width, f"same{level}")(x))
            levels.append(x)
        x = self._conv(self.decoder_width, "top", size=1)(levels[-1])
        for level in range(len(levels) - 2, 0, -1):
            x = _doubled(x) + self._conv(self.decoder_width, f"lateral{level}", size=1)(levels[level])
            x = x + self._conv(self.decoder_width, f"up{level}")(nn.relu(x))
        x = _doubled(self._conv(self.widths[0], "narrow", size=1)(nn.relu(x)))
        x = nn.relu(x + self._conv(self.widths[0], "lateral0", size=1)(levels[0]))
        x = nn.relu(self._conv(self.widths[0], "up0")(x))
        return self._conv(1, "logit")(x)[..., 0]

    def _conv(self, width: int, name: str, size: int = 3, strides: int = 1) -> nn.Module:
        if (size, strides) == (3, 1):
            return Conv3x3(width, nn.initializers.he_normal(), name=name)
        return nn.Conv(width, (size, size), strides, padding="SAME", name=name, kernel_init=nn.initializers.he_normal())


def _doubled(x: jax.Array) -> jax.Array:
    """Twice the size, bilinear."""
    count, height, width, channels = x.shape
    return jax.image.resize(x, (count, 2 * height, 2 * width, channels), "bilinear")
