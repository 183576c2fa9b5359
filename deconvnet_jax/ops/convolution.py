"""The 3x3 convolution, with forms for CPUs and GPUs.

On CPUs, oneDNN computes the result and the gradient of the map. The gradient of the kernel, a convolution with a window
as large as the image, is XLA's, which is several times faster at those. GPUs get whole rows of channels.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from deconvnet_jax.ops import onednn
from deconvnet_jax.ops.sums import at_least_float32

_GPU_CHANNELS = 8  # the matrix units of a GPU read rows of 16 bytes


def convolve(x: Array, kernel: Array, train: bool = False) -> Array:
    """A 3x3 convolution with stride 1 and padding 1.

    Args:
      x: [N, H, W, C], floating point.
      kernel: [3, 3, C, O], of the same dtype.
      train: the gradient will be taken; on a CPU, x is then computed once and kept.

    Returns:
      [N, H, W, O], of the same dtype.
    """
    x = materialised(x) if train else x
    on_gpu = _convolve_widened if x.shape[3] % _GPU_CHANNELS else onednn.by_xla
    return lax.platform_dependent(x, kernel, cpu=_convolve_on_cpu, cuda=on_gpu, rocm=on_gpu, default=onednn.by_xla)


def widened(x: Array, axis: int, multiple: int) -> Array:
    """Returns x with zeros at the end of an axis, whose length becomes a multiple of `multiple`."""
    return jnp.pad(x, [(0, -x.shape[axis] % multiple if i == axis else 0) for i in range(x.ndim)])


def _convolve_widened(x: Array, kernel: Array) -> Array:
    """Adds channels of zeros to both: the image has three."""
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
    """The gradient of a kernel, [3, 3, C, O], float32 or wider, from x [N, H, W, C] and that of the result.

    Transposed is the narrower of the two, because the transposed map is the slower to read.
    """
    dtype = at_least_float32(x.dtype)
    x, gradient = x.astype(dtype), gradient.astype(dtype)
    if x.shape[-1] <= gradient.shape[-1]:
        return _correlation(x, gradient).transpose(1, 2, 0, 3)
    return lax.rev(_correlation(gradient, x), (1, 2)).transpose(1, 2, 3, 0)


@_kernel_gradient.def_vmap
def _kernel_gradients(axis_size: int, batched: list[bool], x: Array, gradient: Array) -> tuple[Array, bool]:
    # A batch of convolutions with a kernel each would be one with as many groups, for which XLA has nothing fast.
    x, gradient = (
        value if of_batch else jnp.broadcast_to(value, (axis_size, *value.shape))
        for value, of_batch in zip((x, gradient), batched, strict=True)
    )
    return jnp.stack([_kernel_gradient(x[i], gradient[i]) for i in range(axis_size)]), True


def _correlation(a: Array, b: Array) -> Array:
    """sum over n, h, w of a[n, h + i - 1, w + j - 1, p] b[n, h, w, q]: [N, H, W, P], [N, H, W, Q] -> [P, 3, 3, Q]."""
    return onednn.by_xla(a.transpose(3, 1, 2, 0), b.transpose(1, 2, 0, 3))


@custom_vmap
def _kept(x: Array) -> Array:
    changes = x[(0,) * x.ndim] > jnp.inf  # never, but of that XLA knows nothing
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
    """Returns x unchanged; a program for CPUs computes it once and keeps it.

    XLA would compute what leads to a convolution's input again for the gradient of its kernel, pooling and unpooling
    included, in the order of a transposed loop. JAX 0.10 drops `lax.optimization_barrier` before that decision, so
    this is a loop that never runs and that XLA cannot see through.
    """
    return _kept_on_cpu(x)


materialised.defvjp(lambda x: (_kept_on_cpu(x), None), lambda _, gradient: (gradient,))
