"""3x3 convolutions by oneDNN, which XLA for CPUs contains but does not use by default.

JAX 0.12 has a compiler option that enables oneDNN, but it also routes the gradients of kernels there, which oneDNN
computes slowly. JAX 0.10 has no such option. Both versions can run the custom call that XLA inserts for oneDNN (XLA,
xla/service/cpu/onednn_config.proto). That call is private to XLA, and a version that does not know one of its fields
ends the process. So it is used only with the jaxlib versions in `TESTED`; with other versions XLA computes the
convolutions.
"""

import json
import logging
import platform
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxlib.mlir import ir
from jaxlib.version import __version__ as VERSION  # noqa: N812

# The jaxlib versions whose custom call is known to work. Add a version only if, with it listed here,
# `pytest tests/ops/test_convolution.py` passes.
TESTED = frozenset({"0.10.0", "0.10.1", "0.10.2", "0.11.0", "0.11.1", "0.11.2", "0.12.0", "0.12.0.1"})

_TARGET = "__onednn$convolution"
_UNKNOWN_CALL = "UNIMPLEMENTED: Custom call target"
_NOT_KEPT = "Error writing persistent compilation cache entry for .*bad_alloc"
_MAPS = {"data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}
_WINDOW = {"pad_left": [1, 1], "pad_right": [1, 1], "strides": [1, 1], "window_dilations": [1, 1]}
_FOR_BFLOAT16 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
_LOG = logging.getLogger(__name__)
_SETTINGS: Any = jax.config

Lowered = Sequence[ir.Value | Sequence[ir.Value]]


def convolution(x: Array, kernel: Array) -> Array:
    """Returns a 3x3 convolution with stride 1 and padding 1; it has no derivatives.

    Programs for CPUs use oneDNN if `has_onednn` returns True. XLA computes it on other devices, for float16 and
    float64, and in exported programs. XLA cannot serialise programs that contain oneDNN's call, so JAX's persistent
    compilation cache (JAX_COMPILATION_CACHE_DIR) leaves them out.

    Args:
      x: feature map [N, H, W, C], floating point.
      kernel: [3, 3, C, O], in the dtype of x.

    Returns:
      [N, H, W, O], in the dtype of x.
    """
    chex.assert_shape([x, kernel], [(None, None, None, kernel.shape[2]), (3, 3, None, None)])
    chex.assert_type([x, kernel], [x.dtype, x.dtype])
    return _convolution.bind(x, kernel)


def by_xla(x: Array, kernel: Array) -> Array:
    """Returns the convolution with stride 1 and padding 1 as XLA computes it, with derivatives.

    Args:
      x: feature map [N, H, W, C], floating point.
      kernel: [k, k, C, O] for any k, in the dtype of x. Padding stays 1, so only k = 3 keeps the size.

    Returns:
      [N, H + 3 - k, W + 3 - k, O], in the dtype of x.
    """
    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=axes)


@cache
def has_onednn() -> bool:
    """Returns whether this build of XLA contains oneDNN's convolution and jaxlib's version is in `TESTED`.

    It runs one small convolution and compares the result. The answer must not depend on where the function is first
    called: a train step may forbid transfers between host and device, as ours does.
    """
    if VERSION not in TESTED:
        _LOG.debug("jaxlib %s is not tested with oneDNN's call; XLA computes the convolutions", VERSION)
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    x, kernel = np.ones((1, 3, 4, 2), np.float32), np.ones((3, 3, 2, 1), np.float32)
    expected = 2 * np.outer([2, 3, 2], [2, 3, 3, 2])
    config = _config(kernel.shape)
    result = jax.ShapeDtypeStruct((1, 3, 4, 1), np.float32)
    _expect_not_kept()
    call = jax.ffi.ffi_call(_TARGET, result, custom_call_api_version=2, legacy_backend_config=config)
    here = jax.default_device(jax.local_devices(backend="cpu")[0])
    try:
        with jax.ensure_compile_time_eval(), here, jax.transfer_guard("allow"), jax.disable_jit(False):
            y = np.asarray(jax.jit(call)(x, kernel))
    except jax.errors.JaxRuntimeError as error:
        if _UNKNOWN_CALL not in str(error):
            raise
        return False
    return np.array_equal(y[0, :, :, 0], expected)


@cache
def has_bfloat16() -> bool:
    """Returns whether oneDNN can compute bfloat16 on this CPU; on other CPUs the attempt would end the process."""
    try:
        return _FOR_BFLOAT16.issubset(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False


def _expect_not_kept() -> None:
    """Hides the warning that JAX gives when it leaves a program out of its persistent compilation cache."""
    if _SETTINGS.jax_compilation_cache_dir:
        warnings.filterwarnings("ignore", _NOT_KEPT, UserWarning)


def _config(kernel_shape: tuple[int, ...]) -> str:
    axes = {"input_feature_dim": 2, "output_feature_dim": 3, "spatial_dims": [0, 1], "shape": kernel_shape}
    maps = {"dims": 4, "feature_groups": 1, "input": _MAPS, "output": _MAPS}
    return json.dumps({"onednn_conv_config": {**maps, "kernel": {"filter": axes}, "window": _WINDOW}})


def _lower_by_onednn(context: mlir.LoweringRuleContext, x: ir.Value, kernel: ir.Value) -> Lowered:
    _expect_not_kept()
    config = _config(cast(ShapedArray, context.avals_in[1]).shape)
    return jax.ffi.ffi_lowering(_TARGET, backend_config=config, api_version=2)(context, x, kernel)


_lower_by_xla = mlir.lower_fun(by_xla, multiple_results=False)


def _lower_on_cpu(context: mlir.LoweringRuleContext, x: ir.Value, kernel: ir.Value) -> Lowered:
    of_map, of_kernel = cast(Sequence[ShapedArray], context.avals_in)
    must_be_kept = _SETTINGS.jax_compilation_cache_dir and _SETTINGS.jax_raise_persistent_cache_errors
    exported = context.module_context.lowering_parameters.for_export
    fits = of_map.size and of_kernel.size and (of_map.dtype == jnp.float32 or of_map.dtype == jnp.bfloat16)
    if must_be_kept or exported or not fits or not has_onednn():
        return _lower_by_xla(context, x, kernel)
    if of_map.dtype == jnp.bfloat16 and not has_bfloat16():
        return _lower_by_xla(context, x, kernel)
    return _lower_by_onednn(context, x, kernel)


def _batched(arguments: tuple[Array, Array], axes: tuple[int | None, int | None]) -> tuple[Array, int]:
    (x, kernel), (x_axis, kernel_axis) = arguments, axes
    if kernel_axis is None:  # One kernel: merge the two batch axes into one.
        assert x_axis is not None
        x = jnp.moveaxis(x, x_axis, 0)
        y = convolution(x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), kernel)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    kernels = jnp.moveaxis(kernel, kernel_axis, 0)
    maps = [x] * len(kernels) if x_axis is None else jnp.moveaxis(x, x_axis, 0)
    return jnp.stack([convolution(*each) for each in zip(maps, kernels, strict=True)]), 0


_convolution = Primitive("convolution_3x3")
_convolution.def_impl(by_xla)  # Used outside of jit.
_convolution.def_abstract_eval(lambda x, kernel: x.update(shape=(*x.shape[:3], kernel.shape[3])))
batching.primitive_batchers[_convolution] = _batched
mlir.register_lowering(_convolution, _lower_by_xla)
mlir.register_lowering(_convolution, _lower_on_cpu, platform="cpu")
