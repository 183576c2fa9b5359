"""The 3x3 convolution, in separate forms for CPUs and GPUs.

On CPUs, oneDNN computes the result and the gradient of the feature map. XLA computes the gradient of the kernel, which
is a convolution with a window as large as the image; XLA is several times faster than oneDNN there. On GPUs, the
channels are padded to whole rows of 16 bytes.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from deconvnet_jax.ops import onednn
from deconvnet_jax.ops.sums import at_least_float32

_GPU_CHANNELS = 8  # Channels are padded to a multiple of this: the matrix units of a GPU read rows of 16 bytes.


def convolve(x: Array, kernel: Array, train: bool = False) -> Array:
    """Returns a 3x3 convolution with stride 1 and padding 1.

    Args:
      x: feature map [N, H, W, C], floating point.
      kernel: [3, 3, C, O], in the dtype of x.
      train: True if the gradient will be taken. On a CPU, x is then computed once and kept for the gradient.

    Returns:
      [N, H, W, O], in the dtype of x.
    """
    x = materialised(x) if train else x
    on_gpu = _convolve_widened if x.shape[3] % _GPU_CHANNELS else onednn.by_xla
    return lax.platform_dependent(x, kernel, cpu=_convolve_on_cpu, cuda=on_gpu, rocm=on_gpu, default=onednn.by_xla)


def widened(x: Array, axis: int, multiple: int) -> Array:
    """Returns x with zeros appended to one axis until its length is a multiple of `multiple`.

    Args:
      x: array of any shape and dtype.
      axis: index of the axis to pad, not negative.
      multiple: the padded length is a multiple of this number. A length that already fits stays as it is.

    Returns:
      The padded array, in the dtype of x.
    """
    return jnp.pad(x, [(0, -x.shape[axis] % multiple if i == axis else 0) for i in range(x.ndim)])


def _convolve_widened(x: Array, kernel: Array) -> Array:
    """Convolves after padding the input channels with zeros; an image, for example, has only three."""
    return onednn.by_xla(widened(x, 3, _GPU_CHANNELS), widened(kernel, 2, _GPU_CHANNELS))


@jax.custom_vjp
def _convolve_on_cpu(x: Array, kernel: Array) -> Array:
    return onednn.convolution(x, kernel)


def _convolve_fwd(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return onednn.convolution(x, kernel), (x, kernel)


def _convolve_bwd(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    mirrored = lax.rev(kernel, (0, 1)).swapaxes(2, 3)
    return onednn.convolution(gradient, mirrored), _kernel_gradient(x, gradient).astype(kernel.dtype)


_convolve_on_cpu.defvjp(_convolve_fwd, _convolve_bwd)


@custom_vmap
def _kernel_gradient(x: Array, gradient: Array) -> Array:
    """Returns the gradient of a kernel, [3, 3, C, O], float32 or wider.

    Args:
      x: input of the convolution, [N, H, W, C].
      gradient: gradient of its result, [N, H, W, O].

    Reading a transposed map is slower, so the map with fewer channels is the one that is transposed.
    """
    dtype = at_least_float32(x.dtype)
    x, gradient = x.astype(dtype), gradient.astype(dtype)
    if x.shape[-1] <= gradient.shape[-1]:
        return _correlation(x, gradient).transpose(1, 2, 0, 3)
    return lax.rev(_correlation(gradient, x), (1, 2)).transpose(1, 2, 3, 0)


@_kernel_gradient.def_vmap
def _kernel_gradients(axis_size: int, batched: list[bool], x: Array, gradient: Array) -> tuple[Array, bool]:
    # JAX would batch these into one grouped convolution, for which XLA has no fast implementation.
    x, gradient = (
        value if of_batch else jnp.broadcast_to(value, (axis_size, *value.shape))
        for value, of_batch in zip((x, gradient), batched, strict=True)
    )
    return jnp.stack([_kernel_gradient(x[i], gradient[i]) for i in range(axis_size)]), True


def _correlation(a: Array, b: Array) -> Array:
    """Returns the correlation of two feature maps at nine offsets: [N, H, W, P], [N, H, W, Q] -> [P, 3, 3, Q].

    Element [p, i, j, q] is the sum over n, h, w of a[n, h + i - 1, w + j - 1, p] * b[n, h, w, q].
    """
    return onednn.by_xla(a.transpose(3, 1, 2, 0), b.transpose(1, 2, 0, 3))


@custom_vmap
def _kept(x: Array) -> Array:
    changes = x[(0,) * x.ndim] > jnp.inf  # Always False at run time, which XLA cannot prove.
    return lax.while_loop(lambda carry: carry[0], lambda carry: (~carry[0], -carry[1]), (changes, x))[1]


@_kept.def_vmap
def _kept_as_one(axis_size: int, batched: list[bool], x: Array) -> tuple[Array, bool]:
    return _kept(x), True


def _kept_on_cpu(x: Array) -> Array:
    return lax.platform_dependent(x, cpu=_kept, default=_unchanged)


def _unchanged(x: Array) -> Array:
    return x


@jax.custom_vjp
def materialised(x: Array) -> Array:
    """Returns x unchanged, and makes a CPU program compute it once and keep it.

    Without this, XLA would compute a convolution's input again for the gradient of its kernel, including pooling and
    unpooling, in the order of a transposed loop. JAX 0.10 drops `lax.optimization_barrier` before XLA decides this. So
    the barrier is a loop that never runs, which XLA cannot prove.

    Args:
      x: array of any shape, floating point.

    Returns:
      x, in the same shape and dtype.
    """
    return _kept_on_cpu(x)


materialised.defvjp(lambda x: (_kept_on_cpu(x), None), lambda _, gradient: (gradient,))
