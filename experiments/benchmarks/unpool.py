"""Milliseconds of pooling with indices and unpooling, forward and backward, beside PyTorch and the general form.

    python -m experiments.benchmark unpool [--batch_size=N] [--json=FILE]

At the five sizes where the network pools and unpools, 8 images or N, float32, channels last everywhere: maximum of 2x2
windows with its position, unpooling to that position, and the gradient of both. Three ways: `ops.max_unpool` with the
promise window=2, which is what the network does; without it, scatters and gathers on the indices; PyTorch's MaxPool2d
and MaxUnpool2d. All must give the same values and gradients. Rounds alternate; ratios are those of each round.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from deconvnet_jax.models import compiler_options
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS
from deconvnet_jax.ops import max_pool_with_indices, max_unpool
from experiments.benchmarks import machine
from experiments.benchmarks.train import OURS, SIZE, THEIRS, find_torch, middle, spread

ROUNDS = 9
BATCH_SIZE = 8
GENERAL = "deconvnet_jax, any window"

Program = Callable[[], tuple[Any, Any]]  # starts one round; returns the unpooled map and the gradient of its input


def run(batch_size: int | None) -> dict[str, Any]:
    """Measures and prints a table; returns its numbers.

    Raises:
      RuntimeError: if the ways do not agree.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory of the same GPU
    device = jax.devices()[0]
    torch, reason = find_torch(device.platform)
    sizes = [(SIZE >> (block - 1), widths[-1]) for block, widths in ENCODER_WIDTHS.items()]
    numbers = {
        "device": device.device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "batch_size": batch_size or BATCH_SIZE,
        "rates": machine.measure_rates("float32")._asdict(),
        "alternative": f"PyTorch {torch.__version__}" if torch else None,
        "no_alternative": reason,
        "results": {f"{side}x{side}x{c}": measure(torch, batch_size or BATCH_SIZE, side, c) for side, c in sizes},
    }
    print_table(numbers)
    return numbers


def measure(torch: Any, batch_size: int, side: int, channels: int) -> dict[str, Any]:
    """Seconds of every way, and how many times as fast ours is as each of the others."""
    rng = np.random.default_rng(0)
    x, upstream = (rng.standard_normal((batch_size, side, side, channels), np.float32) for _ in range(2))
    programs = {OURS: ours(x, upstream, 2), GENERAL: ours(x, upstream, None)}
    if torch:
        programs[THEIRS] = theirs(torch, x, upstream)
    check(programs)
    durations: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            begin = time.perf_counter()
            wait(*program())
            durations[name].append(time.perf_counter() - begin)
    others = [name for name in programs if name != OURS]
    return {
        "seconds": {name: middle(of_name) for name, of_name in durations.items()},
        "ratio": {
            name: middle([b / a for a, b in zip(durations[OURS], durations[name], strict=True)]) for name in others
        },
    }


def ours(x: np.ndarray, upstream: np.ndarray, window: int | None) -> Program:
    """This project's, with or without the promise."""

    def forward_and_backward(x: jax.Array, upstream: jax.Array) -> tuple[jax.Array, jax.Array]:
        def unpooled(x: jax.Array) -> jax.Array:
            return max_unpool(*max_pool_with_indices(x, 2), x.shape[1:3], window=window)

        y, vjp = jax.vjp(unpooled, x)
        return y, vjp(upstream)[0]

    program = jax.jit(forward_and_backward, compiler_options=compiler_options(jax.default_backend()))
    return partial(program, jnp.asarray(x), jnp.asarray(upstream))


def theirs(torch: Any, x: np.ndarray, upstream: np.ndarray) -> Program:
    """PyTorch's, on arrays that are channels_last."""
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    tx, gradient = (torch.from_numpy(array).to(device).permute(0, 3, 1, 2) for array in (x, upstream))
    tx.requires_grad_()

    def program() -> tuple[Any, Any]:
        tx.grad = None
        pooled, indices = torch.nn.functional.max_pool2d(tx, 2, return_indices=True)
        y = torch.nn.functional.max_unpool2d(pooled, indices, 2)
        y.backward(gradient)
        return y.detach(), tx.grad

    return program


def wait(y: Any, gradient: Any) -> None:
    """Until a round is computed."""
    if isinstance(y, jax.Array):
        jax.block_until_ready((y, gradient))
    elif y.is_cuda:
        float(gradient[0, 0, 0, 0])


def check(programs: dict[str, Program]) -> None:
    """Raises RuntimeError unless all ways give the same; compiles, too."""
    expected = [np.asarray(array) for array in programs[OURS]()]
    for name, program in programs.items():
        found = program()
        if name == THEIRS:
            found = [array.cpu().permute(0, 2, 3, 1).numpy() for array in found]
        if not all(np.array_equal(mine, other) for mine, other in zip(expected, found, strict=True)):
            raise RuntimeError(f"{name} does not compute the same as {OURS}")


def print_table(numbers: dict[str, Any]) -> None:
    """On stderr: stdout is for the JSON."""
    console = Console(stderr=True, width=130)
    machine.print_heading(console, f"Pooling and unpooling of {numbers['batch_size']} images", numbers)
    table = Table("milliseconds", OURS, GENERAL, "times as fast", THEIRS, "times as fast")
    for size, result in numbers["results"].items():
        row = [spread({key: 1000 * value for key, value in result["seconds"][OURS].items()})]
        for name in (GENERAL, THEIRS):
            if name not in result["seconds"]:
                row += ["-", "-"]
                continue
            row.append(spread({key: 1000 * value for key, value in result["seconds"][name].items()}))
            row.append(spread(result["ratio"][name]))
        table.add_row(size, *row)
    console.print(table)
