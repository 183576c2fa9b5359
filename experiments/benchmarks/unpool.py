"""Milliseconds of pooling with indices and unpooling, forward and backward, beside PyTorch and the general form.

    python -m experiments.benchmark unpool [--batch_size=N] [--json=FILE]

At the five sizes where the network pools and unpools, 8 images or N, float32, channels last everywhere: maximum of 2x2
windows with its position, unpooling to that position, and the gradient of both. Three ways: `ops.max_unpool` with the
promise window=2, which is what the network does; without it, scatters and gathers on the indices; PyTorch's MaxPool2d
and MaxUnpool2d. All must give the same values and gradients. Rounds alternate; ratios are those of each round.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deconvnet_jax.models import compiler_options
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS
from deconvnet_jax.ops import max_pool_with_indices, max_unpool

from . import harness
from .harness import OURS, THEIRS, Numbers, Table
from .network import SIZE

ROUNDS = 9
BATCH_SIZE = 8
GENERAL = "deconvnet_jax, any window"

Program = Callable[[], tuple[Any, Any]]  # starts one round; returns the unpooled map and the gradient of its input


def run(batch_size: int | None) -> Numbers:
    """Measures pooling and unpooling.

    Raises:
      RuntimeError: if the ways do not agree.
    """
    setting = harness.setting()
    sizes = [(SIZE >> (block - 1), widths[-1]) for block, widths in ENCODER_WIDTHS.items()]
    batch_size, compare = batch_size or BATCH_SIZE, bool(setting["alternative"])
    return {
        **setting,
        "batch_size": batch_size,
        "rates": harness.measure_rates("float32"),
        "results": {f"{side}x{side}x{c}": measure(compare, batch_size, side, c) for side, c in sizes},
    }


def measure(compare: bool, batch_size: int, side: int, channels: int) -> Numbers:
    """Returns seconds of every way, and how many times as fast ours is as each of the others."""
    rng = np.random.default_rng(0)
    x, upstream = (rng.standard_normal((batch_size, side, side, channels), np.float32) for _ in range(2))
    programs = {OURS: ours(x, upstream, 2), GENERAL: ours(x, upstream, None)}
    if compare:
        programs[THEIRS] = theirs(x, upstream)
    check(programs)
    seconds = harness.in_turns({name: partial(timed, program) for name, program in programs.items()}, ROUNDS)
    return {
        "seconds": {name: harness.spread(of_name) for name, of_name in seconds.items()},
        "ratio": {name: harness.times_as_fast(seconds, name) for name in programs if name != OURS},
    }


def ours(x: np.ndarray, upstream: np.ndarray, window: int | None) -> Program:
    """Returns this project's, with or without the promise."""

    def forward_and_backward(x: jax.Array, upstream: jax.Array) -> tuple[jax.Array, jax.Array]:
        def unpooled(x: jax.Array) -> jax.Array:
            return max_unpool(*max_pool_with_indices(x, 2), (x.shape[1], x.shape[2]), window=window)

        y, vjp = jax.vjp(unpooled, x)
        return y, vjp(upstream)[0]

    program = jax.jit(forward_and_backward, compiler_options=compiler_options(jax.default_backend()))
    return partial(program, jnp.asarray(x), jnp.asarray(upstream))


def theirs(x: np.ndarray, upstream: np.ndarray) -> Program:
    """Returns PyTorch's, on arrays that are channels_last."""
    import torch

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    tx, gradient = (torch.from_numpy(array).to(device).permute(0, 3, 1, 2) for array in (x, upstream))
    tx.requires_grad_()

    def program() -> tuple[torch.Tensor, torch.Tensor | None]:
        tx.grad = None
        pooled, indices = torch.nn.functional.max_pool2d(tx, 2, return_indices=True)
        y = torch.nn.functional.max_unpool2d(pooled, indices, [2, 2])
        y.backward(gradient)
        return y.detach(), tx.grad

    return program


def timed(program: Program) -> float:
    """Returns the seconds of a round."""
    begin = time.perf_counter()
    y, gradient = program()
    if isinstance(y, jax.Array):
        jax.block_until_ready((y, gradient))
    elif y.is_cuda:
        float(gradient[0, 0, 0, 0])
    return time.perf_counter() - begin


def check(programs: dict[str, Program]) -> None:
    """Raises RuntimeError unless all ways give the same; compiles, too."""
    expected = [np.asarray(array) for array in programs[OURS]()]
    for name, program in programs.items():
        found = program()
        if name == THEIRS:
            found = [array.cpu().permute(0, 2, 3, 1).numpy() for array in found]
        if not all(np.array_equal(mine, other) for mine, other in zip(expected, found, strict=True)):
            raise RuntimeError(f"{name} does not compute the same as {OURS}")


def tables(numbers: Numbers) -> list[Table]:
    """Returns milliseconds, a row for each size."""
    rows = []
    for size, result in numbers["results"].items():
        row = [size, harness.text(result["seconds"][OURS], 1e-3)]
        for name in (GENERAL, THEIRS):
            row += [harness.text(result["seconds"].get(name), 1e-3), harness.text(result["ratio"].get(name))]
        rows.append(row)
    columns = ("milliseconds", OURS, GENERAL, "times as fast", THEIRS, "times as fast")
    return [Table(harness.title(f"Pooling and unpooling of {numbers['batch_size']} images", numbers), columns, rows)]
