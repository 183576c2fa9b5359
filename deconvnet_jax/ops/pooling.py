"""Max pooling that records where each maximum came from, and unpooling that puts values back there.

Paper: DeconvNet, section 3.2.1 ("switches"). Original: PoolingLayer with a second top, and UnpoolingLayer, in the
authors' Caffe.

Each operation has two forms with bit-identical results. Windows that do not overlap (2x2 with stride 2 in the network)
use a fast form of slices and selects. All other windows use a general form of gathers and scatters. The static
arguments alone decide which form runs.

The network itself uses `pool_windows` and `unpool_windows`. They store the place of a maximum as its number within the
window (int8), a quarter of the bytes of a position within the plane. `window_positions` converts numbers to positions.
"""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.errors import InputError

Size = int | tuple[int, int]


class _Geometry(NamedTuple):
    """Static description of a pooling; all pairs are (height, width)."""

    input: tuple[int, int]
    output: tuple[int, int]
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def tiles(self) -> bool:
        """True if the windows do not overlap and lie wholly inside the plane."""
        whole = all(o * k <= size for o, k, size in zip(self.output, self.window, self.input, strict=True))
        return whole and self.window == self.stride and self.padding == (0, 0) and self.dilation == (1, 1)

    def taps(self) -> list[tuple[int, int]]:
        """Returns the offsets of the window's elements from its first one, in row-major order."""
        (kh, kw), (dh, dw) = self.window, self.dilation
        return [(i * dh, j * dw) for i in range(kh) for j in range(kw)]


def max_pool_with_indices(
    x: Array,
    window: Size = 2,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """Returns max-pooled values and the position of each maximum. Differentiable in x.

    The result equals `torch.nn.functional.max_pool2d(..., return_indices=True)`. Padding never wins. Of equal values
    the first in row-major order wins, as in Caffe (ReLU makes ties common). NaN wins over numbers.

    The gradient of an output goes to the element that `indices` names, and adds up where windows overlap.

    Args:
      x: feature map [N, H, W, C], floating point.
      window: size of the window, one whole number or (height, width). The next three arguments take the same forms.
      stride: distance between windows; None means the size of the window.
      padding: rows and columns added at each side, at most half the window.
      dilation: distance between the elements of a window.
      ceil_mode: True rounds the output size up, as Caffe does. A window may then reach beyond the far edge, even if it
        is larger than the input. A window that would start in the padding at the far edge is left out.

    Returns:
      pooled values [N, H', W', C] in the dtype of x; and indices int32 [N, H', W', C], h * W + w within a channel plane
      of x. A dilated window that covers only padding gives -inf and the index -1, and passes no gradient (PyTorch gives
      an index outside the window).

    Raises:
      InputError: if x has another shape or dtype, the output has no elements, a size is not a whole number or pair, or
        the padding is more than half the window.

    Example:
      >>> import jax.numpy as jnp
      >>> from deconvnet_jax.ops import max_pool_with_indices
      >>> x = jnp.array([[1.0, 2, 3, 0], [5, 4, 0, 0]]).reshape(1, 2, 4, 1)
      >>> pooled, indices = max_pool_with_indices(x)
      >>> pooled.ravel()
      Array([5., 3.], dtype=float32)
      >>> indices.ravel()  # row 1, column 0; row 0, column 2
      Array([4, 2], dtype=int32)
    """
    check_arrays("max_pool_with_indices", x=(x, "N H W C", "float"))
    window = _pair(window)
    geometry = _pooling_geometry(
        x.shape[1:3],
        window,
        _pair(stride) if stride is not None else window,
        _pair(padding),
        _pair(dilation),
        ceil_mode,
    )
    return _max_pool(x, geometry, False)


def max_unpool(
    pooled: Array, indices: Array, output_size: tuple[int, int], *, window: int | tuple[int, int] | None = None
) -> Array:
    """Returns zeros of `output_size` in which every pooled value stands at its recorded position.

    Equals `torch.nn.functional.max_unpool2d` and the original's Unpooling layer: values are assigned, not added. If
    several values name one position, the last one wins on backends that scatter in order (CPU); elsewhere the winner is
    not defined. Poolings without overlap never cause this.

    Differentiable in `pooled`, in reverse mode: each value receives the gradient at its position.

    Args:
      pooled: values [N, h, w, C], floating point.
      indices: positions [N, h, w, C], integer, h * W + w within a plane of `output_size`, from `max_pool_with_indices`.
        A value with an index outside 0..H*W-1 is dropped and gets no gradient (PyTorch raises an error).
      output_size: (H, W) of the result, usually `x.shape[1:3]` before the pooling. It is required because odd sizes
        cannot be derived from the pooled size.
      window: a promise that `indices` come from a pooling with this window, an equal stride and no padding. The result
        is the same but computed faster (`experiments.benchmark unpool`). None makes no promise.

    Returns:
      [N, H, W, C] in the dtype of `pooled`.

    Raises:
      InputError: if an array has another shape or dtype, `window` does not fit the sizes, or `window` or `output_size`
        is not positive whole numbers.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from deconvnet_jax.ops import max_pool_with_indices, max_unpool
      >>> x = jnp.array([[1.0, 2, 3, 0], [5, 4, 0, 0]]).reshape(1, 2, 4, 1)
      >>> pooled, indices = max_pool_with_indices(x)
      >>> max_unpool(pooled, indices, output_size=(2, 4), window=2)[0, :, :, 0]
      Array([[0., 0., 3., 0.],
             [5., 0., 0., 0.]], dtype=float32)
      >>> frames = jnp.ones((5, 1, 2, 4, 1))  # vmap adds an axis in front
      >>> pooled, indices = jax.vmap(max_pool_with_indices)(frames)
      >>> jax.vmap(lambda p, i: max_unpool(p, i, (2, 4), window=2))(pooled, indices).shape
      (5, 1, 2, 4, 1)
    """
    check_arrays("max_unpool", pooled=(pooled, "N h w C", "float"), indices=(indices, "N h w C", "integer"))
    output_size, window = _pair(output_size), None if window is None else _pair(window)
    if min(*output_size, *(window or ())) < 1:
        raise InputError(f"max_unpool: output_size {output_size} and window {window} must be positive")
    if window is None:
        return _scatter_unpool(pooled, indices, output_size)
    pooled_size = tuple(size // k for size, k in zip(output_size, window, strict=True))
    if pooled_size != pooled.shape[1:3]:
        remedy = "Leave out window if the pooling had another stride, padding or ceil_mode"
        if pooled.shape[2:] == pooled_size:
            remedy = "The maps look like NCHW: give pooled and indices .transpose(0, 2, 3, 1)"
        raise InputError(
            f"max_unpool: a window of {window} pools {output_size} to {pooled_size}, but the values are "
            f"{pooled.shape[1:3]}; expected output_size=x.shape[1:3] of the pooling's input x. {remedy}"
        )
    return _select_unpool(pooled, indices, output_size, window, False)


def pool_windows(x: Array, window: Size = 2) -> tuple[Array, Array]:
    """Returns the maxima of disjoint windows and the number of each maximum within its window.

    Values, ties and the gradient are those of `max_pool_with_indices`. Rows and columns that do not fill a window are
    left out.

    Args:
      x: feature map [N, H, W, C], floating point.
      window: one number, or (height, width), with at most 128 elements. The stride is the same.

    Returns:
      pooled values [N, H', W', C] in the dtype of x; and numbers int8 [N, H', W', C], i * k + j for element (i, j) of a
      window that is k wide.

    Raises:
      InputError: if x has another shape or dtype, or the window is larger than the plane or not positive whole numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> from deconvnet_jax.ops import pool_windows
      >>> x = jnp.array([[1.0, 2, 3, 0], [5, 4, 0, 0]]).reshape(1, 2, 4, 1)
      >>> pooled, numbers = pool_windows(x)
      >>> numbers.ravel()  # lower left element; upper left element
      Array([2, 0], dtype=int8)
    """
    check_arrays("pool_windows", x=(x, "N H W C", "float"))
    window = _pair(window)
    geometry = _pooling_geometry(x.shape[1:3], window, window, (0, 0), (1, 1), False)
    return _max_pool(x, geometry, True)


def unpool_windows(pooled: Array, numbers: Array, output_size: tuple[int, int], window: Size = 2) -> Array:
    """Returns zeros of `output_size` in which every pooled value stands at its place in its window.

    The counterpart of `max_unpool` for `pool_windows`. Differentiable in `pooled`, in reverse mode.

    Args:
      pooled: values [N, h, w, C], floating point.
      numbers: integer [N, h, w, C], elements within windows, from `pool_windows`.
      output_size: (H, W) of the result, at least the pooled size times the window. Further rows and columns are zeros.
      window: the window of the pooling; one number, or (height, width).

    Returns:
      [N, H, W, C] in the dtype of `pooled`.

    Raises:
      InputError: if an array has another shape or dtype, or `output_size` is smaller than the windows.

    Example:
      >>> import jax.numpy as jnp
      >>> from deconvnet_jax.ops import pool_windows, unpool_windows
      >>> x = jnp.array([[1.0, 2, 3, 0], [5, 4, 0, 0]]).reshape(1, 2, 4, 1)
      >>> unpool_windows(*pool_windows(x), output_size=(2, 4))[0, :, :, 0]
      Array([[0., 0., 3., 0.],
             [5., 0., 0., 0.]], dtype=float32)
    """
    check_arrays("unpool_windows", pooled=(pooled, "N h w C", "float"), numbers=(numbers, "N h w C", "integer"))
    output_size, window = _pair(output_size), _pair(window)
    least = tuple(size * k for size, k in zip(pooled.shape[1:3], window, strict=True))
    if output_size[0] < least[0] or output_size[1] < least[1]:
        raise InputError(
            f"unpool_windows: output_size {output_size} is too small for {pooled.shape[1:3]} windows of {window}; "
            f"expected at least {least}, usually x.shape[1:3] of the pooling's input x"
        )
    return _select_unpool(pooled, numbers, output_size, window, True)


def window_values(x: Array, numbers: Array, window: Size = 2) -> Array:
    """Returns the elements of x that `numbers` names within disjoint windows.

    Args:
      x: feature map [N, H, W, C].
      numbers: integer [N, h, w, C], elements within windows, from `pool_windows`.
      window: the window of the pooling; one number, or (height, width).

    Returns:
      [N, h, w, C] in the dtype of x.
    """
    return _take(x, numbers, _pair(window), True)


def window_positions(numbers: Array, width: int, window: Size = 2) -> Array:
    """Returns positions within the plane for numbers within disjoint windows.

    Args:
      numbers: integer [N, h, w, C], elements within windows, from `pool_windows`.
      width: width W of the plane before the pooling.
      window: the window of the pooling; one number, or (height, width).

    Returns:
      int32 [N, h, w, C]: h * W + w, as in the indices of `max_pool_with_indices`.

    Raises:
      InputError: if `numbers` has another shape or dtype.
    """
    check_arrays("window_positions", numbers=(numbers, "N h w C", "integer"))
    _, h, w, _ = numbers.shape
    kh, kw = _pair(window)
    first = np.arange(h, dtype=np.int32)[:, None, None] * (kh * width) + np.arange(w, dtype=np.int32)[:, None] * kw
    numbers = numbers.astype(jnp.int32)
    return jnp.asarray(first) + numbers // kw * width + numbers % kw


def _pair(value: Size) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Iterable) else (value, value)
    if len(pair) != 2 or not all(isinstance(number, int | np.integer) for number in pair):
        raise InputError(f"expected one whole number or (height, width), got {value!r}")
    return int(pair[0]), int(pair[1])


def _pooling_geometry(input_size, window, stride, padding, dilation, ceil_mode: bool) -> _Geometry:
    output = []
    for size, k, s, p, d in zip(input_size, window, stride, padding, dilation, strict=True):
        if min(k, s, d) < 1 or p < 0 or 2 * p > k:
            raise InputError(
                f"max pooling: got window {k}, stride {s}, dilation {d}, padding {p}; expected positive numbers and a "
                "padding of at most half the window"
            )
        room = size + 2 * p - (d * (k - 1) + 1)
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if size < 1 or count < 1:
            raise InputError(
                f"max pooling: a window of {k} (dilation {d}) does not fit an input of {size} with padding {p}; "
                "use a smaller window or a larger input"
            )
        if ceil_mode and (count - 1) * s >= size + p:
            count -= 1
        output.append(count)
    return _Geometry(tuple(input_size), tuple(output), window, stride, padding, dilation)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _max_pool(x: Array, geometry: _Geometry, numbered: bool) -> tuple[Array, Array]:
    """Pools in one pass over the window's elements, each of which is a strided slice.

    An element replaces the best one so far if it is greater. `numbered` makes the second result int8 numbers within
    windows instead of int32 positions within the plane.
    """
    (h_in, w_in), (h_out, w_out) = geometry.input, geometry.output
    (sh, sw), (ph, pw) = geometry.stride, geometry.padding
    last_h, last_w = geometry.taps()[-1]
    after_h = max(0, (h_out - 1) * sh + last_h + 1 - ph - h_in)
    after_w = max(0, (w_out - 1) * sw + last_w + 1 - pw - w_in)
    padded = jnp.pad(x, ((0, 0), (ph, after_h), (pw, after_w), (0, 0)), constant_values=-jnp.inf)
    top = np.arange(h_out, dtype=np.int32)[:, None, None] * sh - ph
    left = np.arange(w_out, dtype=np.int32)[None, :, None] * sw - pw

    def element(number: int, dh: int, dw: int) -> tuple[Array, Array, np.ndarray]:
        """Returns the values of one element of all windows, its place, and whether it lies within the plane."""
        rows, columns = top + dh, left + dw
        inside = (rows >= 0) & (rows < h_in) & (columns >= 0) & (columns < w_in)
        value = padded[:, dh : dh + (h_out - 1) * sh + 1 : sh, dw : dw + (w_out - 1) * sw + 1 : sw, :]
        return value, jnp.int8(number) if numbered else jnp.asarray(rows * w_in + columns), inside

    best, place, seen = element(0, 0, 0)
    where = jnp.broadcast_to(place, best.shape)
    for number, offset in enumerate(geometry.taps()[1:], 1):
        value, place, inside = element(number, *offset)
        wins = (value > best) | jnp.isnan(value)
        if not seen.all():  # A real element replaces padding even if both are -inf.
            wins |= jnp.asarray(~seen)
        if not inside.all():
            wins &= jnp.asarray(inside)
        best, where, seen = jnp.where(wins, value, best), jnp.where(wins, place, where), seen | inside
    return best, where if seen.all() else jnp.where(jnp.asarray(seen), where, -1)


@_max_pool.defjvp
def _max_pool_jvp(geometry: _Geometry, numbered: bool, primals, tangents):
    pooled, indices = _max_pool(*primals, geometry, numbered)
    (dx,) = tangents
    tangent = _select_pool(dx, indices, geometry.window, numbered) if geometry.tiles else _gather(dx, indices)
    return (pooled, indices), (tangent, np.zeros(indices.shape, dtype=jax.dtypes.float0))


def _one_hot_windows(indices: Array, width: int, window: tuple[int, int], numbered: bool) -> Array:
    """Returns which element of its window each position or number names, bool [N, h, kh, w, kw, C]."""
    (_, h, w, _), (kh, kw) = indices.shape, window
    if numbered:
        return indices[:, :, None, :, None, :] == np.arange(kh * kw, dtype=np.int8).reshape(1, 1, kh, 1, kw, 1)
    rows = np.arange(h * kh, dtype=np.int32).reshape(1, h, kh, 1, 1, 1)
    columns = np.arange(w * kw, dtype=np.int32).reshape(1, 1, 1, w, kw, 1)
    return indices[:, :, None, :, None, :] == rows * width + columns


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _select_unpool(
    pooled: Array, indices: Array, output_size: tuple[int, int], window: tuple[int, int], numbered: bool
) -> Array:
    return _spread(pooled, indices, output_size, window, numbered)


def _select_unpool_fwd(pooled, indices, output_size, window, numbered):
    return _spread(pooled, indices, output_size, window, numbered), indices


def _select_unpool_bwd(output_size, window, numbered, indices, gradient):
    # The transpose that JAX would derive is `_select_pool`, which sums and is five times slower on CPU.
    return _take(gradient, indices, window, numbered), np.zeros(indices.shape, dtype=jax.dtypes.float0)


_select_unpool.defvjp(_select_unpool_fwd, _select_unpool_bwd)


def _spread(
    pooled: Array, indices: Array, output_size: tuple[int, int], window: tuple[int, int], numbered: bool = False
) -> Array:
    (n, h, w, c), (kh, kw) = pooled.shape, window
    named = _one_hot_windows(indices, output_size[1], window, numbered)
    y = jnp.where(named, pooled[:, :, None, :, None, :], 0).reshape(n, h * kh, w * kw, c)
    rest = [(0, 0), (0, output_size[0] - h * kh), (0, output_size[1] - w * kw), (0, 0)]
    return jnp.pad(y, rest) if any(after for _, after in rest) else y


def _take(y: Array, indices: Array, window: tuple[int, int], numbered: bool = False) -> Array:
    """Returns the values of y that `indices` names, for windows that tile the plane."""
    (_, h, w, _), (kh, kw), width = indices.shape, window, y.shape[2]
    first = np.arange(h, dtype=np.int32)[:, None, None] * (kh * width) + np.arange(w, dtype=np.int32)[:, None] * kw
    taken = jnp.zeros(indices.shape, y.dtype)
    for i in range(kh):
        for j in range(kw):
            value = y[:, i : i + (h - 1) * kh + 1 : kh, j : j + (w - 1) * kw + 1 : kw, :]
            name = np.int8(i * kw + j) if numbered else first + (i * width + j)
            taken = jnp.where(indices == name, value, taken)
    return taken


def _select_pool(x: Array, indices: Array, window: tuple[int, int], numbered: bool) -> Array:
    """Returns the same as `_take`, in the form whose transpose, as JAX derives it, is `_spread`."""
    (n, h, w, c), (kh, kw) = indices.shape, window
    blocks = x[:, : h * kh, : w * kw, :].reshape(n, h, kh, w, kw, c)
    named = _one_hot_windows(indices, x.shape[2], window, numbered)
    return jnp.where(named, blocks, 0).sum(axis=(2, 4), dtype=x.dtype)


def _planes(x: Array) -> Array:
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _positions(indices: Array, size: int) -> Array:
    """Returns the indices as [N, h * w, C], with `size` in place of those outside 0..size-1.

    Gathers and scatters drop `size`. Negative indices must be replaced because JAX counts them from the end.
    """
    indices = _planes(indices if indices.dtype.itemsize >= 4 else indices.astype(jnp.int32))
    return jnp.where((indices >= 0) & (indices < size), indices, size)


def _gather(x: Array, indices: Array) -> Array:
    planes = _planes(x)
    positions = _positions(indices, planes.shape[1])
    return jnp.take_along_axis(planes, positions, axis=1, mode="fill", fill_value=0).reshape(indices.shape)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _scatter_unpool(pooled: Array, indices: Array, output_size: tuple[int, int]) -> Array:
    (n, _, _, c), size = pooled.shape, output_size[0] * output_size[1]
    batch, channel = jnp.arange(n)[:, None, None], jnp.arange(c)[None, None, :]
    flat = jnp.zeros((n, size, c), pooled.dtype)
    flat = flat.at[batch, _positions(indices, size), channel].set(_planes(pooled), mode="drop")
    return flat.reshape(n, *output_size, c)


def _scatter_unpool_fwd(pooled, indices, output_size):
    return _scatter_unpool(pooled, indices, output_size), indices


def _scatter_unpool_bwd(output_size, indices, gradient):
    # JAX's transpose of a scatter needs unique indices. The original gathers for every source, unique or not.
    return _gather(gradient, indices), np.zeros(indices.shape, dtype=jax.dtypes.float0)


_scatter_unpool.defvjp(_scatter_unpool_fwd, _scatter_unpool_bwd)
