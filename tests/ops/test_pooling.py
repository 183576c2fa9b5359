"""Tests pooling and unpooling against PyTorch and hand-computed cases, and their two forms against each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops import max_pool_with_indices, max_unpool, pool_windows, unpool_windows, window_positions
from deconvnet_jax.ops.pooling import window_values

# Each case is (window, stride, padding, dilation, ceil_mode).
POOLINGS = [
    pytest.param((2, None, 0, 1, False), marks=pytest.mark.accelerator),
    (2, None, 0, 1, True),
    ((3, 2), None, 0, 1, False),
    (3, 2, 1, 1, False),
    pytest.param((3, 2, 1, 1, True), marks=pytest.mark.accelerator),
    ((3, 2), (1, 3), (1, 0), (2, 1), False),
    (3, 1, 1, 1, False),
    ((14, 12), 4, 0, 1, True),  # The window is larger than the input.
    ((13, 2), (2, 3), (1, 0), (1, 1), True),
    (8, 7, 2, 2, True),
]
SIZES = [(12, 10), (11, 13)]


def relu_noise(rng, *shape):
    """Returns noise in which half the values are zero, as after ReLU, so that ties are common."""
    return np.maximum(rng.standard_normal(shape), 0).astype(np.float32)


def to_torch(torch, x):
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))


def from_torch(t):
    return from_torch_layout(t.detach().numpy())


def from_torch_layout(x):
    return x.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pool_equals_pytorch_with_gradients(rng, size, pooling):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    x = relu_noise(rng, 2, *size, 5)
    t = to_torch(torch, x).requires_grad_()
    expected, where = torch.nn.functional.max_pool2d(t, *pooling, return_indices=True)
    pooled, indices = max_pool_with_indices(x, *pooling)
    assert indices.dtype == jnp.int32
    np.testing.assert_array_equal(pooled, from_torch(expected))
    np.testing.assert_array_equal(indices, from_torch(where))

    upstream = rng.standard_normal(pooled.shape).astype(np.float32)
    expected.backward(to_torch(torch, upstream))
    gradient = jax.grad(lambda x: jnp.vdot(max_pool_with_indices(x, *pooling)[0], upstream))(x)
    np.testing.assert_allclose(gradient, from_torch(t.grad), rtol=1e-5, atol=1e-5)


@pytest.mark.accelerator
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [2, 3, (2, 3)])
def test_unpool_equals_pytorch_with_gradients(rng, size, window):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    x = relu_noise(rng, 2, *size, 5)
    _, where = torch.nn.functional.max_pool2d(to_torch(torch, x), window, return_indices=True)
    values = to_torch(torch, rng.standard_normal(from_torch(where).shape).astype(np.float32)).requires_grad_()
    expected = torch.nn.functional.max_unpool2d(values, where, window, output_size=size)
    upstream = rng.standard_normal((2, *size, 5)).astype(np.float32)
    expected.backward(to_torch(torch, upstream))
    indices = jnp.asarray(from_torch(where).astype(np.int32))
    for promise in (None, window):
        y, vjp = jax.vjp(lambda v, promise=promise: max_unpool(v, indices, size, window=promise), from_torch(values))
        np.testing.assert_array_equal(y, from_torch(expected))
        np.testing.assert_array_equal(vjp(upstream)[0], from_torch(values.grad))


@pytest.mark.parametrize(
    "pooling", [(3, 3, 0, 1), (4, 4, 1, 1), (4, 5, 2, 2), (5, 9, 2, 2), ((2, 5), (1, 8), (1, 2), 1)]
)
def test_infinities_and_nan_in_windows_beyond_the_edge(rng, pooling):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    for height, width in ((1, 1), (2, 5), (3, 4), (4, 2)):
        x = rng.choice(np.float32([np.nan, -np.inf, np.inf, 0, 1]), (2, height, width, 3), p=(0.1, 0.6, 0.1, 0.1, 0.1))
        try:
            expected, where = torch.nn.functional.max_pool2d(
                to_torch(torch, x), *pooling, ceil_mode=True, return_indices=True
            )
        except RuntimeError:  # PyTorch refuses an empty output.
            with pytest.raises(InputError, match="does not fit"):
                max_pool_with_indices(x, *pooling, ceil_mode=True)
            continue
        pooled, indices = max_pool_with_indices(x, *pooling, ceil_mode=True)
        np.testing.assert_array_equal(pooled, from_torch(expected))
        np.testing.assert_array_equal(indices, from_torch(where))


def test_a_window_that_sees_padding_alone():
    """A window dilated by 3 covers the rows -1 and 2 of an input that has the rows 0 and 1."""
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    (pooled, indices), vjp = jax.vjp(lambda x: max_pool_with_indices(x, 2, 1, 1, 3, ceil_mode=True), x)
    assert pooled.ravel() == -jnp.inf
    assert indices.ravel() == -1
    gradient = vjp((jnp.ones_like(pooled), np.zeros(indices.shape, jax.dtypes.float0)))[0]
    assert not gradient.any()
    assert not max_unpool(jnp.ones_like(pooled), indices, (2, 2)).any()


def test_ties_go_to_the_first_element_and_odd_rests_are_left_out():
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 2, 3] = x[0, 3, 2] = 7  # In the window of rows 2-3 and columns 2-3, row-major order meets (2, 3) first.
    pooled, indices = max_pool_with_indices(x)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[0, 0], [0, 7]])
    np.testing.assert_array_equal(indices[0, :, :, 0], [[0, 2], [10, 13]])
    y = max_unpool(pooled + 1, indices, (5, 5), window=2)
    expected = np.zeros((5, 5))
    expected[0, 0] = expected[0, 2] = expected[2, 0] = 1
    expected[2, 3] = 8
    np.testing.assert_array_equal(y[0, :, :, 0], expected)


@pytest.mark.accelerator
def test_infinities_and_nan_as_pytorch():
    x = np.full((1, 4, 4, 1), -np.inf, np.float32)
    x[0, 2, 2], x[0, 3, 3] = np.nan, 5
    pooled, indices = max_pool_with_indices(x)
    np.testing.assert_array_equal(pooled[0, :, :, 0], [[-np.inf, -np.inf], [-np.inf, np.nan]])
    np.testing.assert_array_equal(indices[0, :, :, 0], [[0, 2], [8, 10]])
    _, padded = max_pool_with_indices(x, 3, 2, 1)  # The first window begins in the padding, whose -inf must not win.
    assert padded[0, 0, 0, 0] == 0


@pytest.mark.accelerator
@pytest.mark.parametrize("size", [(8, 6), (9, 7)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_fast_and_general_unpooling_are_equal_bit_for_bit(rng, size, dtype):
    pooled, indices = max_pool_with_indices(jnp.asarray(relu_noise(rng, 2, *size, 3), dtype))
    values = jnp.asarray(rng.standard_normal(pooled.shape), dtype)
    fast, fast_vjp = jax.vjp(lambda v: max_unpool(v, indices, size, window=2), values)
    general, general_vjp = jax.vjp(lambda v: max_unpool(v, indices, size), values)
    upstream = jnp.asarray(rng.standard_normal(fast.shape), dtype)
    np.testing.assert_array_equal(fast, general)
    np.testing.assert_array_equal(fast_vjp(upstream)[0], general_vjp(upstream)[0])
    assert fast.dtype == general.dtype == dtype


@pytest.mark.parametrize("window", [2, (2, 3)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_numbers_within_windows_equal_positions_bit_for_bit(rng, window, dtype):
    """Compares values, places and gradients of pooling and unpooling; odd last rows and columns are left out."""
    size = (9, 7)
    x = jnp.asarray(relu_noise(rng, 2, *size, 3), dtype)
    expected, expected_vjp, indices = jax.vjp(lambda x: max_pool_with_indices(x, window), x, has_aux=True)
    pooled, vjp, numbers = jax.vjp(lambda x: pool_windows(x, window), x, has_aux=True)
    np.testing.assert_array_equal(pooled, expected)
    assert numbers.dtype == jnp.int8
    assert set(np.unique(numbers)) == set(range(int(np.prod(window)) if np.ndim(window) else window**2))
    positions = window_positions(numbers, size[1], window)
    assert positions.dtype == indices.dtype == jnp.int32
    np.testing.assert_array_equal(positions, indices)
    np.testing.assert_array_equal(window_values(x, numbers, window), pooled)
    upstream = jnp.asarray(rng.standard_normal(pooled.shape), dtype)
    np.testing.assert_array_equal(vjp(upstream)[0], expected_vjp(upstream)[0])
    y, vjp = jax.vjp(lambda values: unpool_windows(values, numbers, size, window), upstream)
    expected, expected_vjp = jax.vjp(lambda values: max_unpool(values, indices, size, window=window), upstream)
    np.testing.assert_array_equal(y, expected)
    upstream = jnp.asarray(rng.standard_normal(y.shape), dtype)
    np.testing.assert_array_equal(vjp(upstream)[0], expected_vjp(upstream)[0])


@pytest.mark.accelerator
def test_fast_and_general_pooling_gradients_are_equal(rng):
    """Padding selects the general form; here it does not change the pooling."""
    x = relu_noise(rng, 2, 8, 8, 3)
    around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
    general = jax.grad(lambda x: (max_pool_with_indices(x, 2, 2, 1)[0] ** 3).sum())(around[:, 1:-1, 1:-1])
    shifted = jax.grad(lambda x: (max_pool_with_indices(x, 2)[0] ** 3).sum())(around)
    np.testing.assert_array_equal(general, shifted[:, 1:-1, 1:-1])


def test_duplicates_and_positions_outside():
    """Follows Caffe: the last value wins, and each source receives the gradient at its position."""
    values = jnp.asarray([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    indices = jnp.asarray([2, 2, 99]).reshape(1, 1, 3, 1)
    y, vjp = jax.vjp(lambda v: max_unpool(v, indices, (2, 2)), values)
    np.testing.assert_array_equal(y.ravel(), [0, 0, 2, 0])
    np.testing.assert_array_equal(vjp(jnp.arange(4.0).reshape(y.shape))[0].ravel(), [2, 2, 0])


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.int8, jnp.uint8, jnp.uint32])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("mapped", [False, True])
def test_no_position_is_counted_from_the_end(dtype, window, mapped):
    """-1 marks a window without a maximum in other frameworks, but NumPy and JAX read it as the last element."""
    info = jnp.iinfo(dtype)
    outside = {-1, -16, -17, 16, int(info.min), int(info.max)} - {0}
    outside = [number for number in outside if info.min <= number <= info.max]
    indices = np.array([[5, 2, 8, number] for number in outside], dtype).reshape(-1, 2, 2, 1)
    values = jnp.tile(jnp.arange(1.0, 5), len(outside)).reshape(indices.shape)

    def unpool(values):
        one = partial(max_unpool, output_size=(4, 4), window=window)
        return one(values, indices) if not mapped else jax.vmap(lambda v, i: one(v[None], i[None])[0])(values, indices)

    y, vjp = jax.vjp(jax.jit(unpool), values)
    upstream = jnp.broadcast_to(jnp.arange(16.0).reshape(4, 4, 1), y.shape)
    for row, gradient in zip(y.reshape(-1, 16), vjp(upstream)[0].reshape(-1, 4), strict=True):
        assert {i: value for i, value in enumerate(row.tolist()) if value} == {5: 1, 2: 2, 8: 3}
        np.testing.assert_array_equal(gradient, [5, 2, 8, 0])


def test_second_derivatives(rng):
    x = jnp.asarray(rng.standard_normal((1, 6, 6, 2)), jnp.float32)

    def f(x):
        pooled, indices = max_pool_with_indices(x)
        return (max_unpool(pooled**2, indices, (6, 6), window=2) ** 2).sum()

    curvature = jax.jvp(jax.grad(f), (x,), (jnp.ones_like(x),))[1]  # The second derivative of x**4 at the maxima.
    is_max = jax.grad(lambda x: max_pool_with_indices(x)[0].sum())(x)
    np.testing.assert_allclose(curvature, 12 * x**2 * is_max, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def caffe(real_data):
    """Returns a function from (name, array name) to the output of the original's own layers, channels last."""
    with np.load(real_data / "caffe_reference/unit_layers.npz") as file:
        arrays = dict(file)
    return lambda case, name: from_torch_layout(arrays[f"{case}/{name}"]).astype(np.float32)


@pytest.mark.parametrize(("case", "pooling"), [("pool_k2s2_odd_ties", (2, 2)), ("pool_k3s2_overlap", (3, 2))])
def test_pooling_equals_caffe(caffe, case, pooling):
    pooled, vjp, indices = jax.vjp(
        lambda x: max_pool_with_indices(x, *pooling, ceil_mode=True), caffe(case, "in0"), has_aux=True
    )
    np.testing.assert_array_equal(pooled, caffe(case, "out.pool:0"))
    np.testing.assert_array_equal(indices, caffe(case, "out.pool:1"))
    np.testing.assert_allclose(vjp(caffe(case, "topdiff"))[0], caffe(case, "din.0"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", ["unpool_mask", "unpool_mask_duplicates"])
def test_unpooling_equals_caffe(caffe, case):
    expected, indices = caffe(case, "out.unpool:0"), caffe(case, "in1").astype(np.int32)
    y, vjp = jax.vjp(lambda v: max_unpool(v, indices, expected.shape[1:3]), caffe(case, "in0"))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(vjp(caffe(case, "topdiff"))[0], caffe(case, "din.0"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: max_pool_with_indices(x, 9), "window of 9"),
        (lambda x: max_pool_with_indices(x, 2, padding=2), "at most half"),
        (lambda x: max_pool_with_indices(x, 9, 1, ceil_mode=True), "does not fit an input of 8"),
        (lambda x: max_pool_with_indices(x[:, :0], 2, padding=1), "expected at least one pixel"),
        (lambda x: max_pool_with_indices(x, (2, 2, 2)), "height, width"),
        (lambda x: max_pool_with_indices(x, 2.0), "height, width"),
        (lambda x: max_unpool(x, jnp.zeros(x.shape, int), (8, 8, 1)), "height, width"),
        (lambda x: max_unpool(x, jnp.zeros(x.shape, int), (16, 0)), "must be positive"),
        (lambda x: max_unpool(x, jnp.zeros(x.shape, int), (8, 8), window=0), "must be positive"),
        (lambda x: max_unpool(x, jnp.zeros(x.shape, int), (9, 16), window=2), "Leave out window"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(InputError, match=message):
        call(jnp.zeros((1, 8, 8, 1)))


def test_integers_are_refused():
    with pytest.raises(InputError, match=r"^max_pool_with_indices: x has dtype int\d+; expected floating"):
        max_pool_with_indices(jnp.zeros((1, 4, 4, 1), int))
