"""Measures contenders in turns and shows what was found: ratios with their spread, tables, the machine's own rates.

Every benchmark returns its numbers, one JSON object, and makes tables of them. `show` prints the tables;
`experiments.gpu_report` writes them as Markdown.
"""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from rich import table as rich_table
from rich.console import Console

OURS, THEIRS = "deconvnet_jax", "PyTorch"
ROUNDS = 5
SECONDS, QUICK_SECONDS = 4.0, 0.5  # least duration of every measurement, which is at least one step
WARM = 2  # steps before it: compilation, the choice of algorithms
RATE_ROUNDS = 7
COPY_BYTES = 2**28

T = TypeVar("T")
Numbers = dict[str, Any]  # a JSON object


class Table(NamedTuple):
    """Text in columns; the title says what was measured, where and against what."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Contender(Generic[T]):
    """One side of a comparison of networks."""

    step: Callable[[], T]  # starts one training step or forward pass; what it returns may still be computed
    wait: Callable[[T], float]  # waits for that; returns the loss or a score as a number
    parameters: int  # of the network
    mode: str = "jit"  # how it is run
    peak_bytes: Callable[[], int | None] = lambda: None  # the most device memory so far; None: nobody tells


def in_turns(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Calls every contender once per round, because a machine's speed drifts; returns the results of all rounds."""
    results = [{name: measure() for name, measure in contenders.items()} for _ in range(rounds)]
    return {name: [result[name] for result in results] for name in contenders}


def timed(contender: Contender[T], steps: int) -> tuple[float, float]:
    """Returns the seconds per step, and the last loss or score."""
    begin = time.perf_counter()
    last = contender.step()
    for _ in range(steps - 1):
        last = contender.step()
    value = contender.wait(last)
    return (time.perf_counter() - begin) / steps, value


def compare(contenders: Mapping[str, Contender[Any]], batch_size: int, quick: bool = False) -> Numbers:
    """Measures networks in turns.

    Args:
      contenders: by name; OURS, and THEIRS if there is an alternative.
      batch_size: images per step.
      quick: shorter rounds.

    Returns:
      "images_per_second" (median and range), "ratio" (ours to theirs in images per second, or None), "peak_bytes",
      "parameters", "mode" and "loss", the last value.
    """
    steps = {}
    for name, contender in contenders.items():
        timed(contender, WARM)
        steps[name] = max(1, math.ceil((QUICK_SECONDS if quick else SECONDS) / timed(contender, 1)[0]))

    def turn(name: str) -> Callable[[], tuple[float, float]]:
        return lambda: timed(contenders[name], steps[name])

    rounds = in_turns({name: turn(name) for name in contenders}, ROUNDS)
    seconds = {name: [duration for duration, _ in of_name] for name, of_name in rounds.items()}
    return {
        "images_per_second": {name: spread([batch_size / s for s in of_name]) for name, of_name in seconds.items()},
        "ratio": times_as_fast(seconds, THEIRS),
        "peak_bytes": {name: contender.peak_bytes() for name, contender in contenders.items()},
        "parameters": {name: contender.parameters for name, contender in contenders.items()},
        "mode": {name: contender.mode for name, contender in contenders.items()},
        "loss": {name: of_name[-1][1] for name, of_name in rounds.items()},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def times_as_fast(seconds: Mapping[str, Sequence[float]], other: str, ours: str = OURS) -> dict[str, float] | None:
    """Returns how many times as fast ours is as another, round by round; None if the other was not measured."""
    if other not in seconds:
        return None
    return spread([theirs / mine for mine, theirs in zip(seconds[ours], seconds[other], strict=True)])


def number(value: float) -> str:
    """Returns three digits of a number, or all of those before its point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def text(values: Mapping[str, float] | None, unit: float = 1.0) -> str:
    """Returns median and range as text, in units of `unit`; "-" for what was not measured."""
    if not values:
        return "-"
    median, low, high = (number(values[key] / unit) for key in ("median", "min", "max"))
    return f"{median} ({low} to {high})"


def gigabytes(num_bytes: float | None) -> str:
    """Returns an amount of memory as text."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes else "not told"


def setting() -> Numbers:
    """Returns "device", "cores", and "alternative" or "no_alternative": PyTorch, or why it cannot be compared with."""
    device = shared_device()
    alternative, reason = find_torch(device.platform)
    return {"device": device.device_kind, "cores": cores(), "alternative": alternative, "no_alternative": reason}


def shared_device() -> jax.Device:
    """Returns the device that is measured; JAX leaves memory of it to PyTorch and other processes."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return jax.devices()[0]


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def find_torch(platform: str) -> tuple[str | None, str | None]:
    """Returns PyTorch's name and version; or None and why it cannot be used on the platform that JAX uses."""
    try:
        import torch
    except ImportError:
        return None, "PyTorch is not installed: pip install -r tests/requirements-reference.txt"
    if platform == "cpu" or (platform == "gpu" and torch.cuda.is_available()):
        return f"{THEIRS} {torch.__version__}", None
    return None, f"this PyTorch cannot use the device that JAX uses ({platform})"


def title(what: str, numbers: Numbers) -> str:
    """Returns what was measured, where, and against what."""
    against = numbers["alternative"] or f"nothing: {numbers['no_alternative']}"
    return f"{what}; {numbers['device']}, {numbers['cores']} cores; against {against}"


def rate_rows(label: str, result: Numbers, gflop: float, peak_flops: float) -> list[list[str]]:
    """Returns a row for each side of a comparison of networks; its columns are RATE_COLUMNS."""
    rows = []
    for name, rate in result["images_per_second"].items():
        flops = 1e9 * gflop * rate["median"]
        share, ratio = f"{100 * flops / peak_flops:.0f} %", "1" if name == THEIRS else text(result["ratio"])
        memory = gigabytes(result["peak_bytes"][name])
        rows.append([f"{name}, {label}", text(rate), number(flops / 1e12), share, memory, ratio, result["mode"][name]])
    return rows


RATE_COLUMNS = ("", "images/s", "TFLOP/s", "of a matrix product's", "peak memory", "times as fast", "run as")


def show(tables: Sequence[Table]) -> None:
    """Prints tables on stderr: stdout is for the JSON."""
    console = Console(stderr=True, width=150)
    for title, columns, rows in tables:
        if title:
            console.print(title, soft_wrap=True)
        shown = rich_table.Table(*columns)
        for row in rows:
            shown.add_row(*row)
        console.print(shown)


def measure_rates(dtype: str) -> dict[str, float]:
    """Returns what the device itself can do: a share of it says more than images per second.

    Returns:
      "flops": per second, in a product of two large square matrices, float32 as JAX multiplies it by default (TF32 on
      GPUs). "copy_bytes": per second, read and written, in copying a large array.
    """
    size, calls = (2048, 1) if jax.default_backend() == "cpu" else (8192, 20)  # starting one call takes as long as it
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)  # constant data lets a GPU clock higher
    values = jax.random.normal(jax.random.key(1), (COPY_BYTES // 4,))
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: -x)

    def seconds(step: Callable[[], jax.Array]) -> float:
        contender = Contender(step, lambda array: float(array.block_until_ready().size), 0)
        return statistics.median([timed(contender, calls)[0] for _ in range(1 + RATE_ROUNDS)][1:])

    flops = 2 * size**3 / seconds(lambda: product(matrix, matrix))
    return {"flops": flops, "copy_bytes": 2 * values.nbytes / seconds(lambda: copy(values))}


def start_process(function: Callable[..., Any], *arguments: Any, **environment: str) -> subprocess.Popen[str]:
    """Starts a new process that calls a function of a module and returns a JSON value for `result_of`."""
    name = function.__name__
    code = f"import json; from {function.__module__} import {name}; print(json.dumps({name}(*{arguments!r})))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, **environment}}
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)


def result_of(process: subprocess.Popen[str]) -> Any:
    """Waits for a process of `start_process`; returns its result.

    Raises:
      RuntimeError: if it failed; with the last line of its error.
    """
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError((errors.splitlines() or ["killed"])[-1])
    return json.loads(output.splitlines()[-1])


def device_peak(device: jax.Device) -> int | None:
    """Returns the most bytes of a device in use since this process began; None where the backend does not tell."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


def forget_peak() -> None:
    """Has Linux count the process's most memory from now on, if it lets a process do so."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def process_peak() -> int | None:
    """Returns the most bytes of this process's memory since `forget_peak`; None on a system that cannot be asked."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
