"""Tests the 3x3 convolution of XLA and oneDNN against PyTorch in float64, and what CPUs keep for its gradients."""

import logging
import platform
import subprocess
import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from deconvnet_jax.ops import onednn
from deconvnet_jax.ops.convolution import convolve, materialised

CALL = "__onednn$convolution"

on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="only CPUs have their own gradients")
on_x86 = pytest.mark.skipif(
    jax.default_backend() != "cpu" or not sys.platform.startswith("linux") or platform.machine() != "x86_64",
    reason="oneDNN is in XLA for x86 alone",
)


def case(rng, shape, features, dtype=jnp.float32):
    """Returns x, the kernel and the gradient of the result."""
    shapes = shape, (3, 3, shape[-1], features), (*shape[:-1], features)
    return [jnp.asarray(rng.standard_normal(each), dtype) for each in shapes]


def with_gradients(x, kernel, upstream):
    y, vjp = jax.vjp(lambda x, kernel: convolve(x, kernel, train=True), x, kernel)
    return y, *vjp(upstream)


def of_pytorch(x, kernel, upstream):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    x, kernel, upstream = (torch.tensor(np.asarray(each, np.float64)) for each in (x, kernel, upstream))
    x.requires_grad_(), kernel.requires_grad_()
    y = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), padding=1).permute(0, 2, 3, 1)
    y.backward(upstream)
    return y.detach().numpy(), x.grad.numpy(), kernel.grad.numpy()


SHAPES = [
    ((2, 9, 6, 4), 7), ((3, 5, 8, 7), 4), ((1, 4, 4, 3), 3), ((2, 1, 1, 5), 6), ((1, 7, 2, 1), 1), ((8, 6, 6, 16), 9)
]  # fmt: skip


@pytest.mark.accelerator
@pytest.mark.parametrize(("shape", "features"), SHAPES)
def test_equals_pytorch_with_gradients(rng, shape, features):
    arguments = case(rng, shape, features)
    found = with_gradients(*arguments)
    for ours, theirs in zip(found, of_pytorch(*arguments), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(convolve(*arguments[:2]), found[0], rtol=1e-4, atol=1e-4)


def by_onednn(function, *arguments):
    """Compiles the function again, because JAX caches how it was compiled for other tests."""
    lowered = jax.jit(lambda *arguments: function(*arguments)).lower(*arguments)
    assert CALL in lowered.as_text()
    return lowered.compile()(*arguments)


@on_x86
@pytest.mark.parametrize(("shape", "features"), SHAPES)
def test_by_onednn_with_gradients(rng, shape, features):
    arguments = case(rng, shape, features)
    found = by_onednn(with_gradients, *arguments)
    for ours, theirs in zip(found, of_pytorch(*arguments), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.accelerator
def test_gradient_of_the_kernel_in_bfloat16_is_added_up_in_float32(rng):
    x, kernel, upstream = case(rng, (4, 32, 32, 6), 5, jnp.bfloat16)
    expected = of_pytorch(x, kernel, upstream)[2]
    found = with_gradients(x, kernel, upstream)[2]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2**-8, atol=0.05)


@on_x86
def test_bfloat16_by_onednn(rng):
    if not onednn.has_bfloat16():
        pytest.skip("this CPU has no AVX-512, and oneDNN then no bfloat16")
    x, kernel, upstream = case(rng, (4, 12, 10, 32), 24, jnp.bfloat16)
    found = by_onednn(with_gradients, x, kernel, upstream)
    for ours, theirs in zip(found, of_pytorch(x, kernel, upstream), strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(ours, np.float64), theirs, rtol=2**-7, atol=0.05)


def text_of(function, *arguments):
    return jax.jit(lambda *arguments: function(*arguments)).lower(*arguments).as_text()


@on_x86
def test_what_onednn_is_not_asked_for(rng, monkeypatch, kept_in):
    """oneDNN ends the process for dtypes that it does not know, and its programs can be neither exported nor cached."""
    x, kernel, _ = case(rng, (2, 5, 4, 3), 2)
    assert CALL in text_of(convolve, x, kernel)
    exported = jax.export.export(jax.jit(convolve), platforms=["cpu", "cuda"])(x, kernel)
    assert CALL not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(x, kernel), convolve(x, kernel), rtol=1e-4, atol=1e-5)
    assert CALL not in text_of(convolve, x.astype(jnp.float16), kernel.astype(jnp.float16))
    assert CALL not in text_of(convolve, x[:0], kernel)
    monkeypatch.setattr(onednn, "has_bfloat16", lambda: False)
    assert CALL not in text_of(convolve, x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    monkeypatch.setattr(onednn, "has_onednn", lambda: False)
    assert CALL not in text_of(convolve, x, kernel)
    monkeypatch.undo()
    assert CALL in text_of(convolve, x, kernel)
    jax.config.update("jax_raise_persistent_cache_errors", True)
    assert CALL not in text_of(convolve, x, kernel)


@pytest.fixture
def kept_in(tmp_path):
    """Returns the folder in which JAX caches every compiled program, however small or quickly compiled."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    names += ("jax_persistent_cache_min_entry_size_bytes", "jax_raise_persistent_cache_errors")
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in zip(names, (str(tmp_path), 0, -1, False), strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@on_x86
def test_the_cache_leaves_out_programs_with_onednn(rng, kept_in):
    """No warning is given: it would fail the test."""
    x, kernel, _ = case(rng, (2, 5, 4, 3), 2)
    by_onednn(lambda x, kernel: 2 * convolve(x, kernel), x, kernel)
    assert not list(kept_in.iterdir())
    jax.jit(lambda x: 2 * x)(x)
    assert list(kept_in.iterdir())


@on_x86
def test_a_build_of_xla_without_onednn(monkeypatch):
    assert onednn.has_onednn()
    monkeypatch.setattr(onednn, "_TARGET", "__onednn$unknown")
    assert not onednn.has_onednn.__wrapped__()


@on_x86
@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.transfer_guard("disallow"),
        lambda: jax.transfer_guard("disallow_explicit"),
        jax.disable_jit,
        lambda: jax.enable_x64(True),
        lambda: jax.debug_nans(True),
        lambda: jax.default_matmul_precision("bfloat16"),
        lambda: jax.numpy_dtype_promotion("strict"),
        lambda: jax.default_device(jax.devices()[-1]),
        jax.checking_leaks,
    ],
)
def test_whatever_is_set_where_it_is_first_asked_for(monkeypatch, setting):
    """Otherwise a process that trains first and one that evaluates first would compile different steps."""
    monkeypatch.setattr(onednn, "has_onednn", cache(onednn.has_onednn.__wrapped__))
    arguments = jax.device_put((np.ones((1, 5, 4, 3), np.float32), np.ones((3, 3, 3, 2), np.float32)))
    with setting():
        assert jax.jit(lambda *each: onednn.has_onednn() and convolve(*each))(*arguments) is not False
        assert onednn.has_onednn()


@on_x86
def test_a_trial_that_fails_for_another_reason_is_told(monkeypatch):
    def out_of_memory(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(jax.ffi, "ffi_call", out_of_memory)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Out of memory"):
        onednn.has_onednn.__wrapped__()


def test_a_version_of_xla_that_is_not_tested(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "deconvnet_jax")
    monkeypatch.setattr(onednn, "VERSION", "99.0")
    assert not onednn.has_onednn.__wrapped__()
    assert [record.getMessage() for record in caplog.records] == [
        "jaxlib 99.0 is not tested with oneDNN's call; XLA computes the convolutions"
    ]


UNKNOWN_FIELD = """
import json, sys
import jax, numpy as np
from deconvnet_jax.ops import onednn
from deconvnet_jax.ops.convolution import convolve
onednn.VERSION = sys.argv[1]
known = onednn._config
def config(shape):
    call = json.loads(known(shape))
    call["onednn_conv_config"]["field_of_tomorrow"] = 1
    return json.dumps(call)
onednn._config = config
print(jax.jit(convolve)(np.ones((1, 1, 1, 3), np.float32), np.ones((3, 3, 3, 1), np.float32)).item())
"""


@on_x86
@pytest.mark.parametrize(("version", "survives"), [("99.0", True), (onednn.VERSION, False)])
def test_an_unknown_field_ends_no_process_of_an_untested_version(version, survives):
    """An unknown field ends the process of a tested version; this is why versions have to be tested."""
    found = subprocess.run([sys.executable, "-c", UNKNOWN_FIELD, version], capture_output=True, text=True)
    assert (found.returncode == 0) == survives, found.stderr
    assert found.stdout == ("3.0\n" if survives else "")


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("by_onednn", [True, False])
def test_groups_share_a_kernel(rng, monkeypatch, groups, by_onednn):
    """Like a train step, which maps over the groups that share batch statistics and sums the kernel gradients."""
    if not by_onednn:
        monkeypatch.setattr(onednn, "has_onednn", lambda: False)
    x, kernel, upstream = case(rng, (2 * groups, 6, 5, 4), 3)

    def grouped(x, kernel, upstream):
        of_group = jax.vmap(lambda x, kernel: convolve(x, kernel, train=True), (0, None))
        y, vjp = jax.vjp(of_group, x.reshape(groups, 2, 6, 5, 4), kernel)
        return y, *vjp(upstream.reshape(y.shape))

    expected = with_gradients(x, kernel, upstream)
    for found, at_once in zip(jax.jit(grouped)(x, kernel, upstream), expected, strict=True):
        np.testing.assert_allclose(found.reshape(at_once.shape), at_once, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(0, None), (1, None), (None, 0), (0, 2), (2, 4)])
def test_mapped(rng, axes):
    """Covers vmap over feature maps, kernels or both, along any axis."""
    x, kernel, _ = case(rng, (2, 5, 4, 3), 6)
    many = [
        value if axis is None else jnp.stack([value, 2 * value + 1, -value], axis)
        for value, axis in zip((x, kernel), axes, strict=True)
    ]
    found = jax.jit(jax.vmap(onednn.convolution, axes))(*many)
    expected = jax.vmap(onednn.by_xla, axes)(*many)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_without_jit(rng):
    x, kernel, _ = case(rng, (2, 5, 4, 3), 6)
    with jax.disable_jit():
        np.testing.assert_allclose(onednn.convolution(x, kernel), onednn.by_xla(x, kernel), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [1.5, np.inf, -np.inf, np.nan])
def test_materialised_changes_no_value(rng, first):
    x = jnp.asarray(rng.standard_normal((2, 3, 4)), jnp.float32).at[0, 0, 0].set(first)
    for function in (materialised, jax.jit(materialised), jax.vmap(materialised), jax.vmap(jax.vmap(materialised))):
        np.testing.assert_array_equal(function(x), x)
    np.testing.assert_array_equal(jax.grad(lambda x: (materialised(x) * 3).sum())(x), jnp.full(x.shape, 3.0))


@on_cpu
def test_materialised_is_computed_once(rng):
    """The computation is not fused with its reader, even if the reader uses another memory order."""
    x = jnp.asarray(rng.standard_normal((4, 5, 6)), jnp.float32)

    def fusions(keep):
        program = jax.jit(lambda x: keep(jnp.sin(x) + 1).T * 2).lower(x).compile().as_text()
        return [text for text in program.split("\n\n") if "transpose(" in text and "sine(" in text]

    assert len(fusions(lambda x: x)) == 1
    assert not fusions(materialised)
    assert not fusions(jax.vmap(materialised))  # As in a train step, over the groups that share batch statistics.
