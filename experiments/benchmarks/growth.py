"""How the cost of a training step grows: with the batch, the size of images, and the number of devices.

    python -m experiments.benchmark growth [--width=W] [--picture=growth.png] [--json=FILE]

Steps of the full network, as `benchmark train` takes them, each point in a separate process: images per second and
peak memory, against images per step (at 224x224), against the side of the images, and against devices that share a
batch. On a CPU, whose devices are virtual and share its cores, the last says what dividing a batch costs, not what more
cores would bring. CPU: float32. Otherwise bfloat16. A point that does not fit into the memory is left out, and said.
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import jax
from matplotlib.figure import Figure

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import whole_file

from . import harness, train
from .harness import Numbers, Table
from .network import check_width, make_batch, make_net, make_variables

ROUNDS = 3


class Point(NamedTuple):
    """What is measured: images per step, their side in pixels, devices that share them."""

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
# The key that grows in each series, and what to call it.
GROWS = {
    "batch": ("batch_size", "images per step"),
    "size": ("size", "side of the images, pixels"),
    "devices": ("devices", "devices that share a batch"),
}


def run(width: float, picture: Path | None) -> Numbers:
    """Measures, and draws a picture if a file is named; the arguments are the flags of the command.

    Raises:
      InputError: for a width out of range, or if nothing could be measured.
    """
    check_width(width)
    platform, kind, count = harness.result_of(harness.start_process(devices))  # here it would keep the device
    on_cpu = platform == "cpu"
    series = SERIES["cpu" if on_cpu else "accelerator"]
    if not on_cpu:
        series = {**series, "devices": [point for point in series["devices"] if point.devices <= count]}
    distinct = dict.fromkeys(point for points in series.values() for point in points)
    found = {point: measure(point, width) for point in distinct}
    numbers = {
        "device": kind,
        "cores": harness.cores(),
        "width": width,
        "dtype": "float32" if on_cpu else "bfloat16",
        "alternative": None,
        "no_alternative": "itself at other sizes",
        "series": {name: [found[point] for point in points if found[point]] for name, points in series.items()},
    }
    if not any(numbers["series"].values()):
        raise InputError("no step could be measured: the reasons are above")
    if picture:
        with whole_file(picture) as path:
            draw(numbers).savefig(path)
    return numbers


def measure(point: Point, width: float) -> Numbers | None:
    """Returns the numbers of a point, from a process with as many virtual devices; None if that one fails."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={point.devices}".strip()
    environment = {"XLA_FLAGS": flags, "JAX_TRACEBACK_FILTERING": "off"}  # the error comes last
    try:
        found = harness.result_of(harness.start_process(measure_here, *point, width, **environment))
    except RuntimeError as error:
        print(f"{point} was not measured: {error}", file=sys.stderr)
        return None
    print(f"{point}: {harness.text(found['images_per_second'])} images per second", file=sys.stderr)
    return {**point._asdict(), **found}


def devices() -> tuple[str, str, int]:
    """Returns platform, kind and number of the devices that JAX finds."""
    return jax.default_backend(), jax.devices()[0].device_kind, jax.local_device_count()


def measure_here(batch_size: int, size: int, count: int, width: float) -> Numbers:
    """Returns images per second, median and range, and the most memory of this process, or of its first device."""
    on_cpu = jax.default_backend() == "cpu"
    net = make_net("float32" if on_cpu else "bfloat16", width)
    contender = train.ours(net, make_variables(net), make_batch(batch_size, size), jax.devices()[:count])
    harness.timed(contender, 1)  # compiles
    harness.forget_peak()
    steps = 1 if on_cpu else 10
    rates = [batch_size / harness.timed(contender, steps)[0] for _ in range(1 + ROUNDS)][1:]
    peak = harness.process_peak() if on_cpu else contender.peak_bytes()
    return {"images_per_second": harness.spread(rates), "peak_bytes": peak}


def tables(numbers: Numbers) -> list[Table]:
    """Returns a row for each point of each series."""
    rows = []
    for name, points in numbers["series"].items():
        for found in points:
            place = (str(found[key]) for key in Point._fields)
            memory = harness.gigabytes(found["peak_bytes"])
            rows.append([GROWS[name][1], *place, harness.text(found["images_per_second"]), memory])
    columns = ("grows", "images per step", "side", "devices", "images/s", "peak memory")
    return [Table(harness.title(f"Training steps, {numbers['dtype']}", numbers), columns, rows)]


def draw(numbers: Numbers) -> Figure:
    """Draws a panel for each series: images per second above, memory below."""
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    panels = figure.subplots(2, len(numbers["series"]), sharex="col")
    for column, (name, points) in enumerate(numbers["series"].items()):
        key, label = GROWS[name]
        places = [found[key] for found in points]
        rates = [found["images_per_second"] for found in points]
        spreads = [[r["median"] - r["min"] for r in rates], [r["max"] - r["median"] for r in rates]]
        medians = [r["median"] for r in rates]
        panels[0, column].errorbar(places, medians, spreads, marker="o", color="#0072B2", capsize=3)
        panels[1, column].plot(places, [(f["peak_bytes"] or 0) / 1e9 for f in points], marker="o", color="#D55E00")
        panels[1, column].set_xlabel(label)
        panels[1, column].set_xticks(places, [str(place) for place in places])
    for row, label in zip(panels, ("images per second", "peak memory, GB"), strict=True):
        row[0].set_ylabel(label)
        for axes in row:
            axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"A training step, {numbers['dtype']}; {numbers['device']}, {numbers['cores']} cores", fontsize=12)
    return figure
