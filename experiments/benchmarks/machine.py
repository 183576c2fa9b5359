"""What the machine itself can do, measured beside every benchmark of arithmetic: matrix products and copies.

A share of these rates says more than a number of images a second, on whatever machine it was.
"""

import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.console import Console

ROUNDS = 7
PRODUCT_SIZES = {"cpu": 2048}
PRODUCT_SIZE = 8192  # on accelerators
COPY_BYTES = 2**28
CALLS = {"cpu": 1}
CALLS_AT_ONCE = 20  # on accelerators, where the way to the device takes as long as such a copy


class Rates(NamedTuple):
    """Of one device.

    Attributes:
      flops: a second, in a product of two large square matrices.
      copy_bytes: a second, read and written, in copying a large array.
    """

    flops: float
    copy_bytes: float


def measure_rates(dtype: str) -> Rates:
    """The rates of the device that JAX uses; float32 products as it does them by default (TF32 on GPUs)."""
    size = PRODUCT_SIZES.get(jax.default_backend(), PRODUCT_SIZE)
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)  # constant data lets a GPU clock higher
    values = jax.random.normal(jax.random.key(1), (COPY_BYTES // 4,))
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: -x)
    return Rates(2 * size**3 / seconds(product, matrix, matrix), 2 * values.nbytes / seconds(copy, values))


def seconds(program: Callable[..., Any], *arguments: Any) -> float:
    """The median of several rounds, after one that compiles; on accelerators of many calls that follow each other."""
    calls = CALLS.get(jax.default_backend(), CALLS_AT_ONCE)
    durations = []
    for _ in range(1 + ROUNDS):
        begin = time.perf_counter()
        for _ in range(calls):
            result = program(*arguments)
        jax.block_until_ready(result)
        durations.append((time.perf_counter() - begin) / calls)
    return statistics.median(durations[1:])


def print_heading(console: Console, text: str, numbers: dict[str, Any]) -> None:
    """One line above a table: what was measured, where, and against what."""
    against = numbers["alternative"] or f"nothing: {numbers['no_alternative']}"
    console.print(f"{text}; {numbers['device']}, {numbers['cores']} cores; against {against}", soft_wrap=True)


def forget_peak() -> None:
    """Has Linux count the process's most memory from now on, if it lets a process do so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def process_peak() -> int | None:
    """The most memory of this process since `forget_peak`, in bytes; None on a system that cannot be asked."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
