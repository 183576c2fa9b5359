"""The layers of the networks, equal to Flax's layers but with faster forms of gradients and sums."""

from functools import partial, reduce
from typing import Literal, cast, overload

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from deconvnet_jax.ops.convolution import convolve, materialised, widened
from deconvnet_jax.ops.pooling import pool_windows, unpool_windows, window_values
from deconvnet_jax.ops.sums import at_least_float32, channel_sums

# The original's Gaussian filler, for all layers that do not start from VGG-16.
gaussian_init = nn.initializers.normal(0.01)

_GPU_SCORES = 32  # `ScoreConv` pads the number of classes to a multiple of this on GPUs.

AxisGroups = tuple[tuple[int, ...], ...]
Layers = dict[str, dict[str, Array]]  # {layer: {"kernel", ...}}
Variables = dict[str, Layers]  # "params" and "batch_stats"


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """Returns x plus a bias per channel; the gradient of the bias is computed by `channel_sums`.

    Args:
      x: [..., C], floating point.
      bias: [C], floating point.

    Returns:
      [..., C], in the dtype of x.
    """
    return x + bias


def _add_bias_fwd(x: Array, bias: Array) -> tuple[Array, Array]:
    return x + bias, jnp.zeros((), bias.dtype)


def _add_bias_bwd(like_bias: Array, gradient: Array) -> tuple[Array, Array]:
    gradient = materialised(gradient)
    return gradient, channel_sums(gradient).astype(like_bias.dtype)


add_bias.defvjp(_add_bias_fwd, _add_bias_bwd)


def _parameters(
    layer: nn.Module, init: nn.initializers.Initializer, shape: tuple[int, ...], dtype: DTypeLike
) -> tuple[Array, Array]:
    """Returns the kernel and bias of a layer, converted to `dtype`; the stored parameters are float32."""
    kernel = layer.param("kernel", init, shape, jnp.float32)
    bias = layer.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
    return kernel.astype(dtype), bias.astype(dtype)


class Conv3x3(nn.Module):
    """3x3 convolution with stride 1 and padding 1; parameters and results equal those of `flax.linen.Conv`.

    Maps [N, H, W, in] to [N, H, W, features]. Parameters: kernel [3, 3, in, features], bias [features].

    Attributes:
      features: output channels.
      kernel_init: initialiser of the kernel; the bias starts at 0.
      dtype: dtype of the computation.
    """

    features: int
    kernel_init: nn.initializers.Initializer
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Returns the convolution of x.

        Args:
          x: [N, H, W, in].
          train: True if the gradient will be taken.

        Returns:
          [N, H, W, features].
        """
        kernel, bias = _parameters(self, self.kernel_init, (3, 3, x.shape[-1], self.features), self.dtype)
        return add_bias(convolve(x.astype(self.dtype), kernel, train), bias)


@jax.custom_vjp
def _separate_gradient(x: Array) -> Array:
    """Returns x unchanged; its gradient is computed once, separately from what reads it."""
    return x


_separate_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (lax.optimization_barrier(gradient),))


class ScoreConv(nn.Module):
    """1x1 convolution to class scores; parameters and results equal those of `flax.linen.Conv`.

    Maps [N, H, W, in] to [N, H, W, features]. Parameters: kernel [1, 1, in, features], bias [features].

    On a GPU it computes scores for 32 classes (or 64, and so on) and drops the spare ones. Rows of 21 numbers would
    take twice the time, and summing their gradients ten times (in the gradient of softmax).

    Attributes:
      features: output channels, one per class.
      kernel_init: initialiser of the kernel; the bias starts at 0.
      dtype: dtype of the computation.
    """

    features: int
    kernel_init: nn.initializers.Initializer = gaussian_init
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the scores of x.

        Args:
          x: [N, H, W, in].

        Returns:
          [N, H, W, features].
        """
        kernel, bias = _parameters(self, self.kernel_init, (1, 1, x.shape[-1], self.features), self.dtype)
        on_gpu = _scores_on_gpu if self.features % _GPU_SCORES else _scores
        return lax.platform_dependent(x.astype(self.dtype), kernel, bias, cuda=on_gpu, rocm=on_gpu, default=_scores)


def _scores(x: Array, kernel: Array, bias: Array) -> Array:
    """Returns scores by a matrix product: on CPUs a convolution takes five times as long for the kernel's gradient."""
    scores = x.reshape(-1, x.shape[-1]) @ kernel[0, 0] + bias
    return scores.reshape(*x.shape[:-1], len(bias))


def _scores_on_gpu(x: Array, kernel: Array, bias: Array) -> Array:
    wide_kernel, wide_bias = widened(kernel, 3, _GPU_SCORES), widened(bias, 0, _GPU_SCORES)
    y = lax.conv_general_dilated(x, wide_kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return _separate_gradient(add_bias(y, wide_bias))[..., : len(bias)]


class FullConv(nn.Module):
    """`window` x `window` convolution without padding, made for feature maps of about that size (fc6, fc7).

    Maps [N, h, w, in] to [N, h-window+1, w-window+1, features]. Parameters: kernel [window, window, in, features], bias
    [features]. It multiplies matrices of everything that each place sees. As a convolution, XLA on CPUs would take 49
    times the work for its gradient.

    Attributes:
      features: output channels.
      window: side of the window.
      kernel_init: initialiser of the kernel; the bias starts at 0.
      dtype: dtype of the computation.
    """

    features: int
    window: int
    kernel_init: nn.initializers.Initializer = gaussian_init
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the convolution of x.

        Args:
          x: [N, h, w, in].

        Returns:
          [N, h-window+1, w-window+1, features].
        """
        n, k = x.shape[0], self.window
        kernel, bias = _parameters(self, self.kernel_init, (k, k, x.shape[-1], self.features), self.dtype)
        h, w = (side - k + 1 for side in x.shape[1:3])
        seen = x.astype(self.dtype)[:, None, None]
        if (h, w) != (1, 1):
            shifted = [x[:, i : i + h, j : j + w] for i in range(k) for j in range(k)]
            seen = jnp.stack(shifted, axis=3).astype(self.dtype)
        return (seen.reshape(n * h * w, -1) @ kernel.reshape(-1, self.features) + bias).reshape(n, h, w, -1)


class FullDeconv(nn.Module):
    """`window` x `window` transposed convolution without padding, made for much smaller feature maps (fc6-deconv).

    Parameters and results equal those of `flax.linen.ConvTranspose(features, (window, window), padding="VALID")`. Maps
    [N, h, w, in] to [N, h+window-1, w+window-1, features]. Parameters: kernel [window, window, in, features], bias
    [features].

    It computes one matrix product per place of the window and, for feature maps of several places, an overlap-add. One
    large product would transpose the kernel and its gradient, 0.4 GB each. A convolution of the padded map would take
    49 times the work.

    Attributes:
      features: output channels.
      window: side of the window.
      kernel_init: initialiser of the kernel; the bias starts at 0.
      dtype: dtype of the computation.
    """

    features: int
    window: int
    kernel_init: nn.initializers.Initializer = gaussian_init
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the transposed convolution of x.

        Args:
          x: [N, h, w, in].

        Returns:
          [N, h+window-1, w+window-1, features].
        """
        n, h, w, channels = x.shape
        k = self.window
        kernel, bias = _parameters(self, self.kernel_init, (k, k, channels, self.features), self.dtype)
        wide = _wide(x.reshape(n * h * w, channels))  # So the gradients of 49 places are summed in float32.
        everywhere = jnp.broadcast_to(wide, (k * k, *wide.shape)).astype(self.dtype)
        products = jnp.matmul(everywhere, kernel.reshape(k * k, channels, self.features))
        # Flax stores the impulse response flipped.
        patches = products.reshape(k, k, n, h, w, self.features)[::-1, ::-1]
        if (h, w) == (1, 1):
            return patches[:, :, :, 0, 0].transpose(2, 0, 1, 3) + bias
        rows = reduce(jnp.add, [_shifted(patches[i], 2, i, k) for i in range(k)])  # [k, n, h + k - 1, w, features]
        return reduce(jnp.add, [_shifted(rows[j], 2, j, k) for j in range(k)]) + bias


def _shifted(x: Array, axis: int, by: int, window: int) -> Array:
    """Returns x with window - 1 zeros added along an axis, `by` of them before."""
    return jnp.pad(x, [(by, window - 1 - by) if i == axis else (0, 0) for i in range(x.ndim)])


class BatchNormRelu(nn.Module):
    """Batch normalisation followed by ReLU; parameters and statistics equal those of `flax.linen.BatchNorm`.

    Attributes:
      momentum: weight of the old value when batch statistics update the running statistics.
      epsilon: added to variances.
      bias_init: initialiser of the shift.
      axis_name: name of the mapped axis over which batch statistics are averaged; None averages over one
        device only.
      axis_groups: groups of positions on that axis that share batch statistics; None makes one group of all.
      dtype: dtype of the result; statistics are float32 or wider.
    """

    momentum: float
    epsilon: float
    bias_init: nn.initializers.Initializer
    axis_name: str | None = None
    axis_groups: AxisGroups | None = None
    dtype: DTypeLike = jnp.float32

    @overload
    def __call__(self, x: Array, train: bool, pool: Literal[False] = False) -> Array: ...
    @overload
    def __call__(self, x: Array, train: bool, pool: Literal[True]) -> tuple[Array, Array]: ...
    @nn.compact
    def __call__(self, x: Array, train: bool, pool: bool = False) -> Array | tuple[Array, Array]:
        """Returns the normalised and rectified x, pooled or not.

        Args:
          x: [..., C], floating point; [N, H, W, C] if `pool`.
          train: True normalises with batch statistics, which also update the running statistics. False normalises with
            the running statistics.
          pool: True takes the maxima of 2x2 windows.

        Returns:
          [..., C] in `dtype`; with `pool` both results of `pool_windows`.
        """
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, shape, jnp.float32)
        if not train:
            factor = scale * lax.rsqrt(var.value + self.epsilon)
            y = nn.relu((_wide(x) - mean.value) * factor + bias).astype(self.dtype)
            return pool_windows(y) if pool else y
        axis_name = None if self.is_initializing() else self.axis_name
        result = batch_norm_relu(x, scale, bias, self.epsilon, axis_name, self.axis_groups, pool)
        y, numbers, of_batch = cast(tuple[Array, Array, tuple[Array, Array]], result)  # custom_vjp hides the types.
        if not self.is_initializing():
            for running, value in zip((mean, var), of_batch, strict=True):
                running.value = self.momentum * running.value + (1 - self.momentum) * lax.stop_gradient(value)
        y = y.astype(self.dtype)
        return (y, numbers) if pool else y


def _wide(x: Array) -> Array:
    return x.astype(at_least_float32(x.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def batch_norm_relu(
    x: Array,
    scale: Array,
    bias: Array,
    epsilon: float,
    axis_name: str | None,
    axis_groups: AxisGroups | None,
    pool: bool = False,
) -> tuple[Array, Array | None, tuple[Array, Array]]:
    """Returns max(0, (x - mean) / sqrt(variance + epsilon) * scale + bias) with batch statistics, pooled or not.

    The gradient is written by hand. It takes all its sums at once, and keeps only x and the numbers of the maxima.
    Where the ReLU cuts is recomputed, which takes less time than reading the result. Pooling is included because the
    sums then run over maxima only, and the gradient of the map before pooling is never written.

    Args:
      x: [..., C], floating point; [N, H, W, C] if `pool`.
      scale: float32 [C].
      bias: float32 [C].
      epsilon: added to the variance.
      axis_name: name of the mapped axis over which mean and variance are averaged; None uses x alone.
      axis_groups: groups of positions on that axis that share mean and variance; None makes one group of all.
      pool: True takes the maxima of 2x2 windows.

    Returns:
      The result in the dtype of x; the numbers of the maxima (`pool_windows`), or None without `pool`; and (mean,
      biased variance), both [C], float32 or wider. Numbers and statistics have no gradient.
    """
    return _batch_norm_relu_fwd(x, scale, bias, epsilon, axis_name, axis_groups, pool)[0]


def _normalised(x: Array, mean: Array, inverse: Array, scale: Array, bias: Array) -> tuple[Array, Array]:
    """Returns x with mean 0 and variance 1, and the input of the ReLU."""
    centred = _wide(x) - mean
    return centred * inverse, centred * (inverse * scale) + bias


def _batch_norm_relu_fwd(x, scale, bias, epsilon, axis_name, axis_groups, pool):
    wide = _wide(x)
    count = x.size // x.shape[-1]
    moments = jnp.stack([channel_sums(wide), channel_sums(wide * wide)]) / count
    if axis_name is not None:
        moments = lax.pmean(moments, axis_name, axis_index_groups=axis_groups)
    mean, mean_of_squares = moments
    var = jnp.maximum(0.0, mean_of_squares - mean * mean)
    inverse = lax.rsqrt(var + epsilon)
    y, numbers = nn.relu(_normalised(x, mean, inverse, scale, bias)[1]).astype(x.dtype), None
    if pool:
        y, numbers = pool_windows(y)
    return (y, numbers, (mean, var)), (x, numbers, mean, inverse, scale, bias)


def _batch_norm_relu_bwd(epsilon, axis_name, axis_groups, pool, residuals, gradients):
    x, numbers, *of_channels = residuals
    # Without this barrier, XLA keeps intermediates of the forward pass in memory.
    of_channels = lax.optimization_barrier(of_channels)

    def masked(x: Array, gradient: Array, of_channels: list[Array]) -> tuple[Array, Array]:
        normal, given = _normalised(x, *of_channels)
        return normal, _wide(jnp.where(given > 0, gradient, 0))

    def over_groups(normal: Array, gradient: Array) -> tuple[Array, Array]:
        sums = jnp.stack([channel_sums(gradient), channel_sums(gradient * normal)])
        means = sums / (x.size // x.shape[-1])
        return sums, means if axis_name is None else lax.pmean(means, axis_name, axis_index_groups=axis_groups)

    def spread(gradient: Array) -> Array:
        return unpool_windows(gradient, numbers, x.shape[1:3]) if pool else gradient

    def in_one_pass(x: Array, upstream: Array, of_channels: list[Array]) -> tuple[Array, Array, Array, Array]:
        normal, gradient = masked(x, spread(upstream), of_channels)
        return normal, gradient, *over_groups(normal, gradient)

    def in_two_passes(x: Array, upstream: Array, of_channels: list[Array]) -> tuple[Array, Array, Array, Array]:
        at_maxima = window_values(x, numbers) if pool else x
        sums, means = over_groups(*masked(at_maxima, upstream, of_channels))
        # Without this barrier, XLA keeps the gradient of the first pass in memory.
        means, of_channels = lax.optimization_barrier((means, of_channels))
        return *masked(x, spread(upstream), of_channels), sums, means

    # On CPUs two passes would take a sixth more memory and save nothing.
    passes = partial(lax.platform_dependent, cpu=in_one_pass, default=in_two_passes)
    normal, gradient, (of_bias, of_scale), means = passes(x, gradients[0], of_channels)
    _, inverse, scale, _ = of_channels
    of_x = (gradient - means[0] - normal * means[1]) * (scale * inverse)
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(scale.dtype)


batch_norm_relu.defvjp(_batch_norm_relu_fwd, _batch_norm_relu_bwd)
