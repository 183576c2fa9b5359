"""DeconvNet: a VGG-16 encoder, and a mirrored decoder of unpooling and deconvolution driven by the pooling indices.

Paper: Noh, Hong, Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015, section 3, and the
table of the configuration. Original: model/DeconvNet/DeconvNet_inference_deploy.prototxt. Layers carry the original's
names. As there, the numbers in a decoder block grow towards the output: deconv4_1, deconv4_2, deconv4_3 (which reduces
channels).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.errors import InputError
from deconvnet_jax.models.layers import (
    BatchNormRelu,
    Conv3x3,
    FullConv,
    FullDeconv,
    ScoreConv,
    Variables,
    gaussian_init,
)
from deconvnet_jax.ops import pool_windows, unpool_windows, window_positions

# Output channels of every layer of a block. Block b of the decoder ends with the channels that unpool(b-1) needs.
ENCODER_WIDTHS = {1: (64, 64), 2: (128, 128), 3: (256, 256, 256), 4: (512, 512, 512), 5: (512, 512, 512)}
DECODER_WIDTHS = {5: (512, 512, 512), 4: (512, 512, 256), 3: (256, 256, 128), 2: (128, 64), 1: (64, 64)}

HALFWAY = 3  # The networks call `halfway` before this encoder block.

STRIDE = 32  # Five poolings by 2.
FC_WINDOW = 7  # fc6 covers 7x7 of pool5, which is a whole input of 224 pixels.

BN_SHIFT = 0.001  # Initial shift of batch normalisation in the original.

DECODER_INITS = ("gaussian", "smooth")
UNPOOLINGS = ("indices", "corner", "nearest")


def smooth_init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Returns a 3x3 kernel that interpolates in space and mixes the channels by an orthogonal matrix.

    Unpooling fills one value in four, at places that say little about the class. On such a sparse map a random kernel
    passes on less signal than noise, and the decoder unpools five times. A kernel that sums a neighbourhood passes on
    more signal than noise. The kernel is binomial weights times an orthogonal matrix; its filters have the norm 1 on
    average.

    Args:
      key: JAX random key.
      shape: (3, 3, input channels, output channels).
      dtype: dtype of the kernel.

    Returns:
      The kernel, in this shape and dtype.
    """
    binomial = jnp.asarray([1, 2, 1], dtype)
    profile = jnp.outer(binomial, binomial) / jnp.sum(binomial**2)
    channels = nn.initializers.orthogonal()(key, shape[2:], dtype)
    channels *= jnp.sqrt(max(1, shape[3] / shape[2]))
    return profile[:, :, None, None] * channels


def check_input_size(height: int, width: int, fc_window: int = FC_WINDOW) -> None:
    """Raises InputError unless a network accepts images of this size.

    Args:
      height: height of the images in pixels: a multiple of 32, at least 32 * fc_window.
      width: width of the images in pixels, with the same limits.
      fc_window: side of fc6's window, as in `DeconvNet.fc_window`.
    """
    least = STRIDE * fc_window
    if height % STRIDE or width % STRIDE or height < least or width < least:
        fitting = "x".join(str(max(least, -(-size // STRIDE) * STRIDE)) for size in (height, width))
        raise InputError(
            f"DeconvNet takes inputs whose height and width are multiples of {STRIDE} and at least {least}, got "
            f"{height}x{width}; resize or pad the images, for example to {fitting}"
        )


def batch_norm_name(layer: str) -> str:
    """Returns the name of the batch normalisation after a layer.

    For example conv1_1 -> bn1_1, fc6-deconv -> fc6-deconv-bn, deconv5_1 -> debn5_1. Every layer has one except the
    last, seg-score-voc.
    """
    special = {"fc6": "bnfc6", "fc7": "bnfc7", "fc6-deconv": "fc6-deconv-bn"}
    return special.get(layer) or layer.replace("conv", "bn")


class DeconvNet(nn.Module):
    """The DeconvNet network, which maps images to one score map per class. Differentiable in reverse mode.

    Attributes:
      num_classes: number of classes including background; 21 for VOC.
      width: factor on the channels of every convolution and deconvolution except fc6 and fc7 (see fc_features).
      decoder_width: further factor on the channels of deconvolutions, except the last one of blocks 5 to 2, whose
        channels the next unpooling fixes. Below 1 it gives a cheaper decoder for a full-width encoder.
      fc_features: channels of fc6 and fc7.
      fc_window: side of fc6's window on pool5. 7 covers an input of 224 pixels, 4 one of 128 pixels. Inputs may be
        larger.
      decoder_init: "gaussian", as in the original; or "smooth", with which class signals reach the output from the
        first step. "smooth" uses `smooth_init` and shifts normalised values by 1, so that ReLUs cut little. It trains
        at lower learning rates.
      unpooling: where the decoder puts values: "indices", where pooling found each maximum. For comparison: "corner",
        the upper left pixel of each window, and "nearest", all four pixels.
      batch_norm: False leaves batch normalisation out, for comparison or because it was folded into the convolutions
        (`fold_batch_norm`).
      bn_epsilon: added to variances. The original uses 1e-9, which is too small for float32.
      bn_momentum: weight of the old value when batch statistics update the running statistics.
      bn_axis_name: name of the mapped axis over which batch statistics are averaged; None averages over one
        device only.
      bn_axis_groups: groups of positions on that axis that share batch statistics; None makes one group of all.
      remat: True recomputes the inside of blocks in the backward pass instead of keeping it. Kept per 224x224 image: 46
        MB instead of 209 MB in float32, 24 MB instead of 105 MB in bfloat16. The cost is one more forward pass per
        step. The results are equal. These numbers hold on accelerators; a CPU keeps slightly more, and XLA may undo
        remat there.
      dtype: float32 or bfloat16, for all computation except statistics and logits. Parameters are float32.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from deconvnet_jax import DeconvNet, normalize_images
      >>> net = DeconvNet(num_classes=21)
      >>> images = normalize_images(jnp.zeros((1, 224, 224, 3), jnp.uint8))
      >>> variables = jax.eval_shape(net.init, jax.random.key(0), images)  # only shapes; call net.init for values
      >>> jax.eval_shape(net.apply, variables, images).shape
      (1, 224, 224, 21)
    """

    num_classes: int
    width: float = 1.0
    decoder_width: float = 1.0
    fc_features: int = 4096
    fc_window: int = FC_WINDOW
    decoder_init: str = "gaussian"
    unpooling: str = "indices"
    batch_norm: bool = True
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9
    bn_axis_name: str | None = None
    bn_axis_groups: tuple[tuple[int, ...], ...] | None = None
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @property
    def min_input_size(self) -> int:
        """The smallest height and width of images, in pixels."""
        return STRIDE * self.fc_window

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        """Returns the logits of every class at every pixel.

        Args:
          images: float32 [N, H, W, 3], BGR, 0..255 minus the mean (`ops.normalize_images`). H and W are multiples of 32
            and at least `min_input_size`, which is 224 for the original.
          train: True normalises with batch statistics and updates the running statistics (apply with
            `mutable=["batch_stats"]`). False normalises with the running statistics.

        Returns:
          logits float32 [N, H, W, num_classes]. With `mutable=["intermediates"]` also the pooling indices under the
          original's names `pool1_mask` to `pool5_mask`: int32 [N, H/2, W/2, C] and so on (`ops.max_pool_with_indices`).

        Raises:
          InputError: if the images have another shape or dtype, H or W is not allowed, or decoder_init or unpooling is
            unknown.
        """
        check_arrays("DeconvNet", images=(images, "N H W 3", "normalised"))
        check_input_size(images.shape[1], images.shape[2], self.fc_window)
        for name, choices in (("decoder_init", DECODER_INITS), ("unpooling", UNPOOLINGS)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name}='{getattr(self, name)}': expected {' or '.join(choices)}")
        encode, bottleneck, decode = DeconvNet._encode, DeconvNet._bottleneck, DeconvNet._decode
        if self.remat:
            encode, bottleneck = nn.remat(encode, static_argnums=(2, 3)), nn.remat(bottleneck, static_argnums=(2,))
            decode = nn.remat(decode, static_argnums=(2, 3))
        x, switches = images.astype(self.dtype), {}
        for block in ENCODER_WIDTHS:
            x = self.halfway(x) if block == HALFWAY else x
            size = x.shape[1:3]
            x, numbers = encode(self, x, block, train)
            switches[block] = numbers, size
            if self.is_mutable_collection("intermediates"):
                self.sow("intermediates", f"pool{block}_mask", window_positions(numbers, size[1]))
        x = bottleneck(self, x, train)
        for block in DECODER_WIDTHS:
            x = decode(self, self._unpool(x, *switches[block]), block, train)
        x = ScoreConv(self.num_classes, dtype=self.dtype, name="seg-score-voc")(x)
        return x.astype(jnp.float32)

    def halfway(self, x: Array) -> Array:
        """Returns x unchanged; a training step may intercept this method (`early_sums`).

        Args:
          x: input of encoder block 3, [N, H/4, W/4, C].
        """
        return x

    def _encode(self, x: Array, block: int, train: bool) -> tuple[Array, Array]:
        widths = ENCODER_WIDTHS[block]
        for i, width in enumerate(widths, 1):
            x = self._conv3x3(f"conv{block}_{i}", width, nn.initializers.he_normal())(x, train)
            if i < len(widths):
                x = self._bn_relu(f"bn{block}_{i}", x, train)
        if not self.batch_norm:
            return pool_windows(nn.relu(x))
        return self._normalisation(f"bn{block}_{len(widths)}")(x, train, pool=True)

    def _unpool(self, x: Array, numbers: Array, size: tuple[int, int]) -> Array:
        if self.unpooling == "nearest":
            return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        if self.unpooling == "corner":
            numbers = jnp.zeros(x.shape, jnp.int8)
        return unpool_windows(x, numbers, size)

    def _bottleneck(self, x: Array, train: bool) -> Array:
        shift = self._decoder_shift
        x = FullConv(self.fc_features, self.fc_window, dtype=self.dtype, name="fc6")(x)
        x = self._bn_relu("bnfc6", _separate(x), train, shift)
        x = FullConv(self.fc_features, 1, dtype=self.dtype, name="fc7")(x)
        x = self._bn_relu("bnfc7", _separate(x), train, shift)
        x = FullDeconv(self._scaled(512), self.fc_window, dtype=self.dtype, name="fc6-deconv")(x)
        return self._bn_relu("fc6-deconv-bn", _separate(x), train, shift)

    def _decode(self, x: Array, block: int, train: bool) -> Array:
        kernel_init = smooth_init if self.decoder_init == "smooth" else gaussian_init
        widths = DECODER_WIDTHS[block]
        for i, width in enumerate(widths, 1):
            unpooled_next = i == len(widths) and block > 1
            scaled = width if unpooled_next else width * self.decoder_width
            x = self._conv3x3(f"deconv{block}_{i}", scaled, kernel_init)(x, train)
            x = self._bn_relu(f"debn{block}_{i}", x, train, self._decoder_shift)
        return x

    @property
    def _decoder_shift(self) -> float:
        return 1.0 if self.decoder_init == "smooth" else BN_SHIFT

    def _scaled(self, width: float) -> int:
        return max(1, round(width * self.width))

    def _conv3x3(self, name: str, width: float, init: nn.initializers.Initializer) -> Conv3x3:
        """Returns a 3x3 layer: with stride 1 and padding 1 a deconvolution is a convolution, its kernel transposed."""
        return Conv3x3(self._scaled(width), init, self.dtype, name=name)

    def _bn_relu(self, name: str, x: Array, train: bool, shift: float = BN_SHIFT) -> Array:
        return self._normalisation(name, shift)(x, train) if self.batch_norm else nn.relu(x)

    def _normalisation(self, name: str, shift: float = BN_SHIFT) -> BatchNormRelu:
        return BatchNormRelu(
            momentum=self.bn_momentum,
            epsilon=self.bn_epsilon,
            bias_init=nn.initializers.constant(shift),
            axis_name=self.bn_axis_name,
            axis_groups=self.bn_axis_groups,
            dtype=self.dtype,
            name=name,
        )


def _separate(x: Array) -> Array:
    """Returns x unchanged, but stops XLA on CPUs from fusing fc6, fc7 and fc6-deconv, which takes 20 times longer."""
    return lax.reduce_precision(x, 8, 23) if x.dtype == jnp.float32 else x


def count_parameters(variables: Variables) -> int:
    """Returns the number of trained parameters, which is everything under "params"."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def compiler_options(platform: str) -> dict[str, str]:
    """Returns options for `jax.jit(..., compiler_options=...)` with which XLA compiles this network well.

    On CPU, XLA's YNNPACK fusions of reductions and chains of products slow a training step down by 30 to 50 % (JAX 0.10
    to 0.12). The options leave only single products to that library. Other platforms need no options.

    Args:
      platform: platform of the devices to compile for, as in `jax.Device.platform`: "cpu", "gpu" or "tpu".
    """
    if platform != "cpu":
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
