"""A small network that finds object boundaries; Edge Boxes computes its proposals from this edge map."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.errors import InputError
from deconvnet_jax.models.layers import Conv3x3

STRIDE = 16  # Stride of the coarsest level; sides of images must be multiples of it.
_MEAN = (124.0, 117.0, 104.0)  # Mean colour of photographs, RGB.
_DEVIATION = 58.0


class EdgeNetwork(nn.Module):
    """The edge network: maps photographs to the logit of the share of people who would draw a boundary at each pixel.

    The way down has five levels, each at half the size of the previous one, with two 3x3 convolutions per level. The
    way up adds the features of each level to those from below. The full size has few channels, because they cost most
    there. There is no normalisation: it would make the output depend on the padding.

    Attributes:
      widths: channels of the levels, from full size down.
      decoder_width: channels on the way up.
    """

    widths: tuple[int, ...] = (8, 24, 40, 56, 64)
    decoder_width: int = 24

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns the boundary logit of every pixel.

        Args:
          images: float32 or uint8 [N, H, W, 3], RGB, 0..255, H and W multiples of 16.

        Returns:
          logits float32 [N, H, W].

        Raises:
          InputError: if the images have another shape or dtype, or H or W is not a multiple of 16.
        """
        check_arrays("EdgeNetwork", images=(images, "N H W 3", "number"))
        if images.shape[1] % STRIDE or images.shape[2] % STRIDE:
            height, width = (-(-side // STRIDE) * STRIDE for side in images.shape[1:3])
            raise InputError(
                f"EdgeNetwork: images are {images.shape[1]}x{images.shape[2]}; expected multiples of {STRIDE}. Pad "
                f"them to {height}x{width}, or use proposals.edge_map, which does it"
            )
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
    """Returns x at twice the height and width, interpolated bilinearly."""
    count, height, width, channels = x.shape
    return jax.image.resize(x, (count, 2 * height, 2 * width, channels), "bilinear")
