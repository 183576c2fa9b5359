"""FCN-8s: VGG-16 made fully convolutional, with skips from pool4 and pool3; the other half of the paper's ensemble.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015; original:
fcn-8s-pascal-deploy.prototxt, as released with fcn-8s-pascal.caffemodel. Layers carry its names.
"""

import chex
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS, HALFWAY
from deconvnet_jax.models.layers import Conv3x3, FullConv, ScoreConv

he_init = nn.initializers.he_normal()

# Where a map's upper left corner lies in the larger one that is cropped to it. All follow from the padding of 100, the
# strides and the kernels, as Caffe's Crop layer derives them: pool4 to score2, pool3 to score4, upsample to image.
CROP_POOL4, CROP_POOL3, CROP_IMAGE = 5, 9, 31


def bilinear_init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """A transposed convolution [k, k, in, out] that interpolates every channel by itself (paper, section 3.3)."""
    del key
    k = shape[0]
    factor = (k + 1) // 2
    centre = factor - 1 if k % 2 else factor - 0.5
    profile = 1 - np.abs(np.arange(k) - centre) / factor
    return jnp.asarray(np.outer(profile, profile)[:, :, None, None] * np.eye(shape[2], shape[3]), dtype)


class FCN8s(nn.Module):
    """The network: images of any size in, one score map per class out.

    Attributes:
      num_classes: classes with the background; 21 for VOC.
      width: multiplies the width of every convolution of the encoder.
      fc_features: width of fc6 and fc7.
      dtype: of all computation but logits: float32 or bfloat16. Parameters are float32.
    """

    num_classes: int = 21
    width: float = 1.0
    fc_features: int = 4096
    dtype: DTypeLike = jnp.float32

    @property
    def min_input_size(self) -> int:
        """Least height and width of images in pixels: the first convolution pads by 100."""
        return 1

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Scores of every class at every pixel.

        Args:
          images: [N, H, W, 3] float32, BGR, 0..255 minus mean (`ops.normalize_images`), any H and W.
          train: drop half of the values of fc6 and fc7 (apply with `rngs={"dropout": key}`).

        Returns:
          logits [N, H, W, num_classes], float32.
        """
        chex.assert_shape(images, (None, None, None, 3))
        chex.assert_type(images, float)  # pictures as uint8 still have their mean
        x, pooled = jnp.pad(images.astype(self.dtype), ((0, 0), (99, 99), (99, 99), (0, 0))), {}  # conv1_1 pads by 100
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
        """Returns x, the input of encoder block 3, unchanged. A training step may intercept it (`early_sums`)."""
        return x

    def _score(self, name: str, x: Array) -> Array:
        zeros = nn.initializers.zeros  # the original's: skips begin by adding nothing
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
    """2x2 maxima; as in Caffe, an odd last row or column is pooled alone."""
    padding = ((0, x.shape[1] % 2), (0, x.shape[2] % 2))
    return nn.max_pool(x, (2, 2), (2, 2), padding=padding)  # pyright: ignore[reportArgumentType]  flax takes pairs, too


def _crop(x: Array, offset: int, shape: tuple[int, ...]) -> Array:
    return x[:, offset : offset + shape[1], offset : offset + shape[2]]
