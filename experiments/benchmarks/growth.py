"""How the cost of a training step grows: with the batch, the size of images, and the number of devices.

    python -m experiments.benchmark growth [--width=W] [--picture=growth.png] [--json=FILE]

Steps of the full network, as `benchmark train` takes them, each point in a process of its own: images a second and the
most memory in use, against images a step (at 224x224), against the side of the images, and against devices that share a
batch. On a CPU, whose devices are virtual and share its cores, the last says what dividing a batch costs, not what more
cores would bring. CPU: float32. Otherwise bfloat16. A point that does not fit into the memory is left out, and said.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import whole_file
from experiments.benchmarks import machine, train

ROUNDS = 3


class Point(NamedTuple):
    """What is measured: images a step, their side in pixels, devices that share them."""

    batch_size: int
    size: int
    devices: int


# By platform, what grows in each series: batch, size, devices.
SERIES = {
    "cpu": {
        "batch": [Point(n, 224, 1) for n in (1, 2, 4, 8)],
        "size": [Point(2, size, 1) for size in (224, 288, 352, 416)],
        "devices": [Point(4, 224, n) for n in (1, 2, 4)],
    },
    "accelerator": {
        "batch": [Point(n, 224, 1) for n in (8, 16, 32, 64, 128, 256)],
        "size": [Point(16, size, 1) for size in (224, 352, 480, 640)],
        "devices": [Point(64 * n, 224, n) for n in (1, 2, 4, 8)],
    },
}
GROWS = {"batch": "batch_size", "size": "size", "devices": "devices"}
TITLES = {"batch": "images a step", "size": "side of the images, pixels", "devices": "devices that share a batch"}


def run(width: float, picture: Path | None) -> dict[str, Any]:
    """Measures and prints a table, and draws it if a file is named; returns its numbers.

    Args:
      width: multiplies the width of all layers; 1 is the original.
      picture: file of the picture, a PNG; or None.

    Raises:
      InputError: for a width out of range, or if nothing could be measured.
    """
    train.check_width(width)
    platform, kind, count = _of_process(Point(1, 1, 1), "print(growth.devices())")  # here it would keep the device
    on_cpu = platform == "cpu"
    series = SERIES["cpu" if on_cpu else "accelerator"]
    if not on_cpu:
        series = {**series, "devices": [point for point in series["devices"] if point.devices <= count]}
    distinct = dict.fromkeys(point for points in series.values() for point in points)
    found = {point: measure(point, width) for point in distinct}
    numbers = {
        "device": kind,
        "cores": len(os.sched_getaffinity(0)),
        "width": width,
        "dtype": "float32" if on_cpu else "bfloat16",
        "alternative": None,
        "no_alternative": "itself at other sizes",
        "series": {name: [found[point] for point in points if found[point]] for name, points in series.items()},
    }
    if not any(numbers["series"].values()):
        raise InputError("no step could be measured: the reasons are above")
    print_table(numbers)
    if picture:
        with whole_file(picture) as path:
            draw(numbers).savefig(path)
    return numbers


def measure(point: Point, width: float) -> dict[str, Any] | None:
    """The numbers of a point, from a process of its own; None if that one fails."""
    found = _of_process(point, f"print(growth.measure_here({tuple(point)!r}, {width!r}))")
    if found is None:
        return None
    print(f"{point}: {train.spread(found['images_per_second'])} images a second", file=sys.stderr)
    return {**point._asdict(), **found}


def devices() -> tuple[str, str, int]:
    """Platform, kind and number of the devices that JAX finds."""
    return jax.default_backend(), jax.devices()[0].device_kind, jax.local_device_count()


def _of_process(point: Point, code: str) -> Any:
    """What a line of code prints in a process with as many virtual devices as the point has; None if it fails."""
    code = f"from experiments.benchmarks import growth; {code}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={point.devices}"
    environment = {**os.environ, "XLA_FLAGS": flags.strip(), "JAX_TRACEBACK_FILTERING": "off"}  # the error is last
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{point} was not measured: {(done.stderr.splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return None
    return ast.literal_eval(done.stdout.splitlines()[-1])


def measure_here(point: tuple[int, int, int], width: float) -> dict[str, Any]:
    """Images a second, median and range, and the most memory of this process, or of its first device."""
    batch_size, size, count = point
    on_cpu = jax.default_backend() == "cpu"
    net = train.make_net("float32" if on_cpu else "bfloat16", width)
    variables = train.make_variables(net)
    contender = train.ours(net, variables, train.make_batch(batch_size, size), jax.devices()[:count])
    del variables
    train.timed(contender, 1)  # compiles
    machine.forget_peak()
    steps = 1 if on_cpu else 10
    rates = [batch_size / train.timed(contender, steps)[0] for _ in range(1 + ROUNDS)][1:]
    peak = machine.process_peak() if on_cpu else contender.peak_bytes()
    return {"images_per_second": train.middle(rates), "peak_bytes": peak}


def print_table(numbers: dict[str, Any]) -> None:
    """On stderr: stdout is for the JSON."""
    console = Console(stderr=True, width=110)
    machine.print_heading(console, f"Training steps, {numbers['dtype']}", numbers)
    table = Table("images a step", "side", "devices", "images/s", "peak memory")
    for points in numbers["series"].values():
        for found in points:
            memory = f"{found['peak_bytes'] / 1e9:.1f} GB" if found["peak_bytes"] else "not told"
            place = (str(found[key]) for key in ("batch_size", "size", "devices"))
            table.add_row(*place, train.spread(found["images_per_second"]), memory)
        table.add_section()
    console.print(table)


def draw(numbers: dict[str, Any]) -> Figure:
    """A panel for each series: images a second above, memory below."""
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    panels = figure.subplots(2, len(numbers["series"]), sharex="col")
    for column, (name, points) in enumerate(numbers["series"].items()):
        places = [found[GROWS[name]] for found in points]
        rates = [found["images_per_second"] for found in points]
        spreads = [[r["median"] - r["min"] for r in rates], [r["max"] - r["median"] for r in rates]]
        medians = [r["median"] for r in rates]
        panels[0, column].errorbar(places, medians, spreads, marker="o", color="#0072B2", capsize=3)
        panels[1, column].plot(places, [(f["peak_bytes"] or 0) / 1e9 for f in points], marker="o", color="#D55E00")
        panels[1, column].set_xlabel(TITLES[name])
        panels[1, column].set_xticks(places, [str(place) for place in places])
    _finish(panels[0], "images a second")
    _finish(panels[1], "peak memory, GB")
    figure.suptitle(f"A training step, {numbers['dtype']}; {numbers['device']}, {numbers['cores']} cores", fontsize=12)
    return figure


def _finish(row: list[Axes], label: str) -> None:
    row[0].set_ylabel(label)
    for axes in row:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
