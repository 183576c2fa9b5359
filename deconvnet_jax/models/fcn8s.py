"""FCN-8s: a fully convolutional VGG-16 with skips from pool4 and pool3; the other half of the paper's ensemble.

Paper: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015. Original:
fcn-8s-pascal-deploy.prototxt, as released with fcn-8s-pascal.caffemodel. Layers carry the original's names.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS, HALFWAY
from deconvnet_jax.models.layers import Conv3x3, FullConv, ScoreConv

he_init = nn.initializers.he_normal()

# Offset of the upper left corner of each crop. All follow from the padding of 100, the strides and the kernels, as
# Caffe's Crop layer derives them: pool4 is cropped to score2, pool3 to score4, upsample to the image.
CROP_POOL4, CROP_POOL3, CROP_IMAGE = 5, 9, 31


def bilinear_init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Returns a transposed-convolution kernel that interpolates each channel bilinearly (paper, section 3.3).

    Args:
      key: not used; initialisers receive one.
      shape: (k, k, input channels, output channels).
      dtype: dtype of the kernel.

    Returns:
      The kernel, in this shape and dtype.
    """
    del key
    k = shape[0]
    factor = (k + 1) // 2
    centre = factor - 1 if k % 2 else factor - 0.5
    profile = 1 - np.abs(np.arange(k) - centre) / factor
    return jnp.asarray(np.outer(profile, profile)[:, :, None, None] * np.eye(shape[2], shape[3]), dtype)


class FCN8s(nn.Module):
    """The FCN-8s network, which maps images of any size to one score map per class.

    Attributes:
      num_classes: number of classes including background; 21 for VOC.
      width: factor on the channels of every encoder convolution.
      fc_features: channels of fc6 and fc7.
      dtype: float32 or bfloat16, for all computation except logits. Parameters are float32.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from deconvnet_jax import FCN8s, normalize_images
      >>> net = FCN8s(num_classes=21)
      >>> images = normalize_images(jnp.zeros((1, 375, 500, 3), jnp.uint8))
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), images)  # only shapes; call net.init for values
      >>> jax.eval_shape(net.apply, variables, images).shape
      (1, 375, 500, 21)
    """

    num_classes: int = 21
    width: float = 1.0
    fc_features: int = 4096
    dtype: DTypeLike = jnp.float32

    @property
    def min_input_size(self) -> int:
        """The smallest height and width of images, in pixels: 1, because the first convolution pads by 100."""
        return 1

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Returns the logits of every class at every pixel.

        Args:
          images: float32 [N, H, W, 3], BGR, 0..255 minus the mean (`ops.normalize_images`), any H and W.
          train: True applies dropout with rate 0.5 to fc6 and fc7 (apply with `rngs={"dropout": key}`).

        Returns:
          logits float32 [N, H, W, num_classes].

        Raises:
          InputError: if the images have another shape or dtype.
        """
        check_arrays("FCN8s", images=(images, "N H W 3", "normalised"))
        # The padding is 100; conv1_1 adds the last pixel itself.
        x, pooled = jnp.pad(images.astype(self.dtype), ((0, 0), (99, 99), (99, 99), (0, 0))), {}
        for block, widths in ENCODER_WIDTHS.items():
            x = self.halfway(x) if block == HALFWAY else x
            for i, width in enumerate(widths, 1):
                features = max(1, round(width * self.width))
                x = nn.relu(Conv3x3(features, he_init, self.dtype, name=f"conv{block}_{i}")(x, train))
            x = pooled[block] = _pool(x)
        for name, window in (("fc6", 7), ("fc7", 1)):
            x = nn.relu(FullConv(self.fc_features, window, he_init, self.dtype, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        x = self._deconv("score2", 4, 2, use_bias=True)(self._score("score-fr", x))
        x += _crop(self._score("score-pool4", pooled[4]), CROP_POOL4, x.shape)
        x = self._deconv("score4", 4, 2)(x)
        x += _crop(self._score("score-pool3", pooled[3]), CROP_POOL3, x.shape)
        x = self._deconv("upsample", 16, 8)(x)
        return _crop(x, CROP_IMAGE, images.shape).astype(jnp.float32)

    def halfway(self, x: Array) -> Array:
        """Returns x unchanged; a training step may intercept this method (`early_sums`).

        Args:
          x: input of encoder block 3, [N, h, w, C].
        """
        return x

    def _score(self, name: str, x: Array) -> Array:
        zeros = nn.initializers.zeros  # As in the original: skips start by adding nothing.
        return ScoreConv(self.num_classes, zeros, self.dtype, name=name)(x)

    def _deconv(self, name: str, window: int, stride: int, use_bias: bool = False) -> nn.ConvTranspose:
        return nn.ConvTranspose(
            self.num_classes,
            (window, window),
            (stride, stride),
            padding="VALID",
            use_bias=use_bias,
            kernel_init=bilinear_init,
            dtype=self.dtype,
            name=name,
        )


def _pool(x: Array) -> Array:
    """Returns 2x2 maxima; as in Caffe, an odd last row or column is pooled alone."""
    padding = ((0, x.shape[1] % 2), (0, x.shape[2] % 2))
    return nn.max_pool(x, (2, 2), (2, 2), padding=padding)  # pyright: ignore[reportArgumentType]  flax takes pairs, too


def _crop(x: Array, offset: int, shape: tuple[int, ...]) -> Array:
    return x[:, offset : offset + shape[1], offset : offset + shape[2]]
