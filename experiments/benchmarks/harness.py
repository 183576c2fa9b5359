"""Tools that all benchmarks share: alternating rounds, ratios and their spread, tables, rates of the machine, memory.

Every benchmark has a function `run`, which returns its numbers as one JSON object, and a function `tables`, which turns
these numbers into tables. `show` prints the tables; `experiments.gpu_report` writes them as Markdown.
"""

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

from deconvnet_jax.terminal import console

OURS, THEIRS = "deconvnet_jax", "PyTorch"
ROUNDS = 5
SECONDS, QUICK_SECONDS = 4.0, 0.5  # shortest duration of a measurement; a measurement has at least one step
WARM = 2  # steps before the first measurement, in which programs are compiled and algorithms chosen
RATE_ROUNDS = 7
COPY_BYTES = 2**28  # size of the array whose copying is timed

T = TypeVar("T")
Numbers = dict[str, Any]  # a JSON object


class Table(NamedTuple):
    """Table of texts. The title says what was measured, on which machine, and what it is compared with."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Contender(Generic[T]):
    """One side of a comparison of networks.

    Attributes:
      step: starts one training step or forward pass; the device may still be computing the result that it returns.
      wait: takes the result of `step`, waits until it is computed, and returns the loss or a score.
      parameters: number of the network's parameters.
      mode: how the network runs, such as "jit" or "torch.compile".
      peak_bytes: returns the peak device memory so far in bytes, or None if the backend does not report it.
    """

    step: Callable[[], T]
    wait: Callable[[T], float]
    parameters: int
    mode: str = "jit"
    peak_bytes: Callable[[], int | None] = lambda: None


def in_turns(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Calls every contender once per round and returns the results of all rounds.

    Contenders take turns because the speed of a machine drifts.

    Args:
      contenders: by name, a function that makes one measurement.
      rounds: number of rounds.

    Returns:
      By name, the results of all rounds in their order.
    """
    results = [{name: measure() for name, measure in contenders.items()} for _ in range(rounds)]
    return {name: [result[name] for result in results] for name in contenders}


def timed(contender: Contender[T], steps: int) -> tuple[float, float]:
    """Runs steps back to back and measures their duration.

    Args:
      contender: the side that is measured.
      steps: number of steps, at least 1.

    Returns:
      Seconds per step, and the loss or score of the last step.
    """
    begin = time.perf_counter()
    last = contender.step()
    for _ in range(steps - 1):
        last = contender.step()
    value = contender.wait(last)
    return (time.perf_counter() - begin) / steps, value


def compare(contenders: Mapping[str, Contender[Any]], batch_size: int, quick: bool = False) -> Numbers:
    """Measures the throughput of networks in alternating rounds.

    Args:
      contenders: by name: OURS, and THEIRS if there is a network to compare with.
      batch_size: images per step.
      quick: True makes shorter rounds, whose numbers are less exact.

    Returns:
      "ratio": how many times as fast OURS is as THEIRS, as `spread` of the rounds, or None without THEIRS. By name:
      "images_per_second" (`spread` of the rounds), "peak_bytes", "parameters", "mode" and the last "loss".
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
    """Returns "median", "min" and "max" of at least one value."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def times_as_fast(seconds: Mapping[str, Sequence[float]], other: str, ours: str = OURS) -> dict[str, float] | None:
    """Compares the seconds of two contenders round by round.

    Args:
      seconds: by name, the seconds of every round.
      other: name of the contender to compare with.
      ours: name of the contender in question.

    Returns:
      `spread` of (seconds of `other` / seconds of `ours`) over the rounds: above 1, `ours` is faster. None if `other`
      was not measured.
    """
    if other not in seconds:
        return None
    return spread([theirs / mine for mine, theirs in zip(seconds[ours], seconds[other], strict=True)])


def number(value: float) -> str:
    """Returns a number as text with three significant digits; from 1,000 on, rounded to a whole number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def text(values: Mapping[str, float] | None, unit: float = 1.0) -> str:
    """Returns median and range as text, such as "500 (250 to 1,000)".

    Args:
      values: the result of `spread`; None or empty gives "-".
      unit: divides all values, so 1e-3 shows seconds as milliseconds.
    """
    if not values:
        return "-"
    median, low, high = (number(values[key] / unit) for key in ("median", "min", "max"))
    return f"{median} ({low} to {high})"


def gigabytes(num_bytes: float | None) -> str:
    """Returns a number of bytes as text in gigabytes; "unknown" for None."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes else "unknown"


def setting() -> Numbers:
    """Returns where a benchmark runs and whether PyTorch can be compared.

    Returns:
      "device" and "cores"; "alternative", PyTorch's name and version, or None; "no_alternative", the reason why PyTorch
      cannot be compared, or None.
    """
    device = shared_device()
    alternative, reason = find_torch(device.platform)
    return {"device": device.device_kind, "cores": cores(), "alternative": alternative, "no_alternative": reason}


def shared_device() -> jax.Device:
    """Returns the device that is measured, and keeps JAX from reserving its memory, which PyTorch also needs."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return jax.devices()[0]


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def find_torch(platform: str) -> tuple[str | None, str | None]:
    """Looks for a PyTorch that can use a JAX platform such as "gpu".

    Returns:
      PyTorch's name and version, and None; or None, and the reason why PyTorch cannot be used.
    """
    try:
        import torch
    except ImportError:
        return None, "PyTorch is not installed: pip install -r tests/requirements-reference.txt"
    if platform == "cpu" or (platform == "gpu" and torch.cuda.is_available()):
        return f"{THEIRS} {torch.__version__}", None
    return None, f"this PyTorch cannot use the device that JAX uses ({platform})"


def title(what: str, numbers: Numbers) -> str:
    """Returns the title of a table: what was measured, on which machine, and what it is compared with.

    Args:
      what: what was measured.
      numbers: of a benchmark, with the entries of `setting`.
    """
    alternative = numbers["alternative"]
    compared = f"compared with {alternative}" if alternative else f"no comparison: {numbers['no_alternative']}"
    return f"{what}; {numbers['device']}, {numbers['cores']} cores; {compared}"


def rate_rows(label: str, result: Numbers, gflop: float, peak_flops: float) -> list[list[str]]:
    """Returns a row with the columns RATE_COLUMNS for each side of a comparison of networks.

    Args:
      label: what the rows have in common, such as the dtype; it follows the side's name.
      result: the result of `compare`.
      gflop: floating-point operations per image, in billions.
      peak_flops: "flops" of `measure_rates`.
    """
    rows = []
    for name, rate in result["images_per_second"].items():
        flops = 1e9 * gflop * rate["median"]
        share, ratio = f"{100 * flops / peak_flops:.0f} %", "1" if name == THEIRS else text(result["ratio"])
        memory = gigabytes(result["peak_bytes"][name])
        rows.append([f"{name}, {label}", text(rate), number(flops / 1e12), share, memory, ratio, result["mode"][name]])
    return rows


RATE_COLUMNS = ("", "images/s", "TFLOP/s", "of a matrix product's rate", "peak memory", "times as fast", "mode")


def show(tables: Sequence[Table]) -> None:
    """Prints tables to stderr, because stdout is for the JSON object."""
    shown = console(stderr=True, width=150)
    for title, columns, rows in tables:
        if title:
            shown.print(title, soft_wrap=True)
        table = rich_table.Table(*columns)
        for row in rows:
            table.add_row(*row)
        shown.print(table)


def measure_rates(dtype: str) -> dict[str, float]:
    """Measures what the device can do at best, so that throughput can be shown as a share of it.

    Args:
      dtype: of the matrices, "float32" or "bfloat16". JAX multiplies float32 as TF32 on GPUs.

    Returns:
      "flops": floating-point operations per second in a product of two large square matrices. "copy_bytes": bytes per
      second, read and written, while a large array is copied.
    """
    # 20 calls on a GPU, because the start of a call takes about as long as the call.
    size, calls = (2048, 1) if jax.default_backend() == "cpu" else (8192, 20)
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)  # Constant data would let a GPU clock higher.
    values = jax.random.normal(jax.random.key(1), (COPY_BYTES // 4,))
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: -x)

    def seconds(step: Callable[[], jax.Array]) -> float:
        contender = Contender(step, lambda array: float(array.block_until_ready().size), 0)
        return statistics.median([timed(contender, calls)[0] for _ in range(1 + RATE_ROUNDS)][1:])

    flops = 2 * size**3 / seconds(lambda: product(matrix, matrix))
    return {"flops": flops, "copy_bytes": 2 * values.nbytes / seconds(lambda: copy(values))}


def start_process(function: Callable[..., Any], *arguments: Any, **environment: str) -> subprocess.Popen[str]:
    """Starts a new process that calls a function; `result_of` returns the function's result.

    Args:
      function: of a module; it returns a JSON value.
      *arguments: of the function, all with a `repr` that Python can read.
      **environment: variables that are added to those of this process.
    """
    name = function.__name__
    code = f"import json; from {function.__module__} import {name}; print(json.dumps({name}(*{arguments!r})))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": {**os.environ, **environment}}
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)


def result_of(process: subprocess.Popen[str]) -> Any:
    """Waits for a process of `start_process` and returns its function's result.

    Raises:
      RuntimeError: if the process failed, with the last line of its stderr.
    """
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError((errors.splitlines() or ["killed"])[-1])
    return json.loads(output.splitlines()[-1])


def device_peak(device: jax.Device) -> int | None:
    """Returns a device's peak memory in bytes since this process started; None if the backend does not report it."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


def peak_during(work: Callable[[], T]) -> tuple[T, int | None]:
    """Calls a function and measures this process's peak memory meanwhile.

    Args:
      work: called once.

    Returns:
      What `work` returned, and the peak in bytes; None where the system does not let a process reset its peak (Linux
      does).
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return work(), None
    result = work()
    lines = Path("/proc/self/status").read_text().splitlines()
    return result, next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
