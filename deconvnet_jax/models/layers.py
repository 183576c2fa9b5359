"""The layers that the networks are made of: as flax's, with the gradients and sums in forms that compute fast."""

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

# The original's Gaussian filler for all it does not take from VGG-16.
gaussian_init = nn.initializers.normal(0.01)

_GPU_SCORES = 32  # classes: see `ScoreConv`

AxisGroups = tuple[tuple[int, ...], ...]
Layers = dict[str, dict[str, Array]]  # {layer: {"kernel", ...}}
Variables = dict[str, Layers]  # "params" and "batch_stats"


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """x [..., C] + bias [C]; its gradient is `channel_sums`."""
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
    """Returns a layer's kernel of a shape and its bias, float32 parameters, in the type to compute in."""
    kernel = layer.param("kernel", init, shape, jnp.float32)
    bias = layer.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
    return kernel.astype(dtype), bias.astype(dtype)


class Conv3x3(nn.Module):
    """A 3x3 convolution with stride 1 and padding 1; parameters and results are those of `flax.linen.Conv`.

    kernel [3, 3, in, features], bias [features]. [N, H, W, in] -> [N, H, W, features].
    """

    features: int
    kernel_init: nn.initializers.Initializer
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Applies the layer; `train`: its gradient will be taken."""
        kernel, bias = _parameters(self, self.kernel_init, (3, 3, x.shape[-1], self.features), self.dtype)
        return add_bias(convolve(x.astype(self.dtype), kernel, train), bias)


@jax.custom_vjp
def _separate_gradient(x: Array) -> Array:
    """x unchanged; its gradient is computed once, apart from what reads it."""
    return x


_separate_gradient.defvjp(lambda x: (x, None), lambda _, gradient: (lax.optimization_barrier(gradient),))


class ScoreConv(nn.Module):
    """A 1x1 convolution to the scores of few classes; parameters and results are those of `flax.linen.Conv`.

    kernel [1, 1, in, features], bias [features]. [N, H, W, in] -> [N, H, W, features]. On a GPU it computes scores of
    32 classes, or 64, ... and drops the spare ones: rows of 21 numbers take twice the time, and the sums of their
    gradients within the gradient of softmax ten times.
    """

    features: int
    kernel_init: nn.initializers.Initializer = gaussian_init
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the layer."""
        kernel, bias = _parameters(self, self.kernel_init, (1, 1, x.shape[-1], self.features), self.dtype)
        on_gpu = _scores_on_gpu if self.features % _GPU_SCORES else _scores
        return lax.platform_dependent(x.astype(self.dtype), kernel, bias, cuda=on_gpu, rocm=on_gpu, default=_scores)


def _scores(x: Array, kernel: Array, bias: Array) -> Array:
    """A product: as a convolution, the gradient of the kernel takes five times as long on a CPU."""
    scores = x.reshape(-1, x.shape[-1]) @ kernel[0, 0] + bias
    return scores.reshape(*x.shape[:-1], len(bias))


def _scores_on_gpu(x: Array, kernel: Array, bias: Array) -> Array:
    wide_kernel, wide_bias = widened(kernel, 3, _GPU_SCORES), widened(bias, 0, _GPU_SCORES)
    y = lax.conv_general_dilated(x, wide_kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return _separate_gradient(add_bias(y, wide_bias))[..., : len(bias)]


class FullConv(nn.Module):
    """A `window` x `window` convolution without padding, made for maps of about that size (fc6, fc7).

    kernel [window, window, in, features], bias [features]. [N, h, w, in] -> [N, h-window+1, w-window+1, features]. It
    is a matrix product with all that each place sees: as a convolution, XLA on CPUs runs its gradient 49 times over.
    """

    features: int
    window: int
    kernel_init: nn.initializers.Initializer = gaussian_init
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the layer."""
        n, k = x.shape[0], self.window
        kernel, bias = _parameters(self, self.kernel_init, (k, k, x.shape[-1], self.features), self.dtype)
        h, w = (side - k + 1 for side in x.shape[1:3])
        seen = x.astype(self.dtype)[:, None, None]
        if (h, w) != (1, 1):
            shifted = [x[:, i : i + h, j : j + w] for i in range(k) for j in range(k)]
            seen = jnp.stack(shifted, axis=3).astype(self.dtype)
        return (seen.reshape(n * h * w, -1) @ kernel.reshape(-1, self.features) + bias).reshape(n, h, w, -1)


class FullDeconv(nn.Module):
    """A `window` x `window` transposed convolution without padding, made for maps much smaller than that (fc6-deconv).

    Equals `flax.linen.ConvTranspose(features, (window, window), padding="VALID")` and its parameters: kernel [window,
    window, in, features], bias [features]. [N, h, w, in] -> [N, h+window-1, w+window-1, features]. It is a matrix
    product for each place of the window (as one large product, kernel and gradient, 0.4 GB each, would be transposed),
    and of more places than one an overlap-add. As a convolution of the padded map it would be 49 times the work.
    """

    features: int
    window: int
    kernel_init: nn.initializers.Initializer = gaussian_init
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the layer."""
        n, h, w, channels = x.shape
        k = self.window
        kernel, bias = _parameters(self, self.kernel_init, (k, k, channels, self.features), self.dtype)
        wide = _wide(x.reshape(n * h * w, channels))  # gradients of 49 places are added up so
        everywhere = jnp.broadcast_to(wide, (k * k, *wide.shape)).astype(self.dtype)
        products = jnp.matmul(everywhere, kernel.reshape(k * k, channels, self.features))
        patches = products.reshape(k, k, n, h, w, self.features)[::-1, ::-1]  # flax's kernels are the flipped impulse
        if (h, w) == (1, 1):
            return patches[:, :, :, 0, 0].transpose(2, 0, 1, 3) + bias
        rows = reduce(jnp.add, [_shifted(patches[i], 2, i, k) for i in range(k)])  # [k, n, h + k - 1, w, features]
        return reduce(jnp.add, [_shifted(rows[j], 2, j, k) for j in range(k)]) + bias


def _shifted(x: Array, axis: int, by: int, window: int) -> Array:
    """x with zeros around it along an axis: `by` before, window - 1 in all."""
    return jnp.pad(x, [(by, window - 1 - by) if i == axis else (0, 0) for i in range(x.ndim)])


class BatchNormRelu(nn.Module):
    """Batch normalisation and ReLU; parameters and statistics are those of `flax.linen.BatchNorm`.

    Attributes:
      momentum: share of the old value in the running averages.
      epsilon: added to variances.
      bias_init: of the shift.
      axis_name: of the mapped axis over which a batch's statistics are averaged; None for each device its own.
      axis_groups: positions on that axis that share statistics; None: all of them.
      dtype: of the result; statistics are float32 or wider.
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
        """[..., C] -> [..., C], or the results of `pool_windows` if `pool`.

        `train`: with the batch's statistics, which move the running ones.
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
        y, numbers, of_batch = cast(tuple[Array, Array, tuple[Array, Array]], result)  # custom_vjp hides the types
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
    """max(0, (x - mean) / sqrt(variance + epsilon) * scale + bias) with mean and variance of x itself, pooled or not.

    Its gradient is written out: the sums that it needs are taken at once, and nothing is kept but x and the numbers of
    the maxima. Where the ReLU cuts is computed again, which takes less time than reading the result. Pooling is part of
    it because then the sums are over maxima alone, and the gradient of the map before pooling is never written.

    Args:
      x: [..., C], floating point; [N, H, W, C] if `pool`.
      scale, bias: float32 [C].
      epsilon: added to the variance.
      axis_name, axis_groups: mapped axis, and positions on it, over which mean and variance are taken; or None.
      pool: take the maxima of 2x2 windows.

    Returns:
      The result in the dtype of x; the numbers of the maxima (`pool_windows`), or None; and mean and biased variance,
      both [C], float32 or wider. Numbers and statistics have no gradient.
    """
    return _batch_norm_relu_fwd(x, scale, bias, epsilon, axis_name, axis_groups, pool)[0]


def _normalised(x: Array, mean: Array, inverse: Array, scale: Array, bias: Array) -> tuple[Array, Array]:
    """x with mean 0 and variance 1, and what the ReLU is given."""
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
    of_channels = lax.optimization_barrier(of_channels)  # or XLA keeps what the forward pass computed

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
        means, of_channels = lax.optimization_barrier((means, of_channels))  # or XLA keeps the gradient of the first
        return *masked(x, spread(upstream), of_channels), sums, means

    # On CPUs the second pass takes a sixth more memory and saves nothing.
    passes = partial(lax.platform_dependent, cpu=in_one_pass, default=in_two_passes)
    normal, gradient, (of_bias, of_scale), means = passes(x, gradients[0], of_channels)
    _, inverse, scale, _ = of_channels
    of_x = (gradient - means[0] - normal * means[1]) * (scale * inverse)
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(scale.dtype)


batch_norm_relu.defvjp(_batch_norm_relu_fwd, _batch_norm_relu_bwd)
