"""Measures pooling with indices and unpooling in milliseconds, and compares them with PyTorch and the general form.

    python -m experiments.benchmark unpool [--batch_size=N] [--json=FILE]

Measured are the maximum of 2x2 windows with its position, unpooling to that position, and the gradient of both, for 8
images or N in float32 with channels last. The five sizes are those of the network's poolings. Three ways are compared:

- `ops.max_unpool` with window=2, as the network uses it;
- `ops.max_unpool` without `window`, which scatters and gathers by the indices;
- PyTorch's MaxPool2d and MaxUnpool2d.

All must give the same values and gradients. Rounds alternate between them, because the speed of a machine drifts;
ratios are those of each round.
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

Program = Callable[[], tuple[Any, Any]]  # runs one round; returns the unpooled map and the gradient of its input


def run(batch_size: int | None) -> Numbers:
    """Measures all sizes.

    Args:
      batch_size: number of images; None: 8.

    Returns:
      The numbers for `tables`, one JSON object.

    Raises:
      RuntimeError: if two ways give different values or gradients.
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
    """Measures all ways at one size.

    Args:
      compare: True measures PyTorch too.
      batch_size: number of images.
      side: height and width of the map before pooling.
      channels: of the map.

    Returns:
      By name of the way, "seconds" (`harness.spread` of the rounds) and "ratio" (`harness.times_as_fast`).

    Raises:
      RuntimeError: if two ways give different values or gradients.
    """
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
    """Returns this project's program.

    Args:
      x: float32 [N, H, W, C], the map before pooling.
      upstream: float32 [N, H, W, C], the gradient of the unpooled map.
      window: 2, or None for the general form.
    """

    def forward_and_backward(x: jax.Array, upstream: jax.Array) -> tuple[jax.Array, jax.Array]:
        def unpooled(x: jax.Array) -> jax.Array:
            return max_unpool(*max_pool_with_indices(x, 2), (x.shape[1], x.shape[2]), window=window)

        y, vjp = jax.vjp(unpooled, x)
        return y, vjp(upstream)[0]

    program = jax.jit(forward_and_backward, compiler_options=compiler_options(jax.default_backend()))
    return partial(program, jnp.asarray(x), jnp.asarray(upstream))


def theirs(x: np.ndarray, upstream: np.ndarray) -> Program:
    """Returns PyTorch's program, with channels_last arrays.

    Args:
      x: float32 [N, H, W, C], the map before pooling.
      upstream: float32 [N, H, W, C], the gradient of the unpooled map.
    """
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
    """Runs one round, waits for the device, and returns the seconds."""
    begin = time.perf_counter()
    y, gradient = program()
    if isinstance(y, jax.Array):
        jax.block_until_ready((y, gradient))
    elif y.is_cuda:
        float(gradient[0, 0, 0, 0])
    return time.perf_counter() - begin


def check(programs: dict[str, Program]) -> None:
    """Raises RuntimeError unless all ways give the same values and gradients. The call also compiles the programs."""
    expected = [np.asarray(array) for array in programs[OURS]()]
    for name, program in programs.items():
        found = program()
        if name == THEIRS:
            found = [array.cpu().permute(0, 2, 3, 1).numpy() for array in found]
        if not all(np.array_equal(mine, other) for mine, other in zip(expected, found, strict=True)):
            raise RuntimeError(f"{name} does not compute the same as {OURS}")


def tables(numbers: Numbers) -> list[Table]:
    """Returns one table of milliseconds with a row for each size, from the numbers of `run`."""
    rows = []
    for size, result in numbers["results"].items():
        row = [size, harness.text(result["seconds"][OURS], 1e-3)]
        for name in (GENERAL, THEIRS):
            row += [harness.text(result["seconds"].get(name), 1e-3), harness.text(result["ratio"].get(name))]
        rows.append(row)
    columns = ("milliseconds", OURS, GENERAL, "times as fast", THEIRS, "times as fast")
    return [Table(harness.title(f"Pooling and unpooling of {numbers['batch_size']} images", numbers), columns, rows)]
