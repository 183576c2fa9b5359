"""Measures how a training step's throughput and peak memory change with batch, image size and number of devices.

    python -m experiments.benchmark growth [--width=W] [--picture=growth.png] [--json=FILE]

The steps are those of `benchmark train`, in float32 on a CPU and in bfloat16 on accelerators; each point is measured in
a separate process. There are three series: images per step (at 224x224), the side of the images, and the number of
devices that share a batch. The devices of a CPU are virtual and share its cores, so the third series shows what it
costs to divide a batch, not what more cores would gain. A point that does not fit into memory is reported and left out.
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
    """A setting that is measured.

    Attributes:
      batch_size: images per step, over all devices.
      size: side of the images in pixels.
      devices: number of devices that share the batch.
    """

    batch_size: int
    size: int
    devices: int


# By platform, the points of each series.
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
# The key that changes in each series, and its name in tables and in the picture.
GROWS = {
    "batch": ("batch_size", "images per step"),
    "size": ("size", "side of the images, pixels"),
    "devices": ("devices", "devices that share a batch"),
}


def run(width: float, picture: Path | None) -> Numbers:
    """Measures all series.

    Args:
      width: factor on the channels of all layers, above 0 and at most 1.
      picture: file that gets a picture of the numbers; None draws none.

    Returns:
      The numbers for `tables`, one JSON object.

    Raises:
      InputError: for a width out of range, or if no point could be measured.
    """
    check_width(width)
    platform, kind, count = harness.result_of(harness.start_process(devices))  # This process would keep the device.
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
        "no_alternative": "only this project is measured",
        "series": {name: [found[point] for point in points if found[point]] for name, points in series.items()},
    }
    if not any(numbers["series"].values()):
        raise InputError("no step could be measured, for the reasons above; give a smaller --width")
    if picture:
        with whole_file(picture) as path:
            draw(numbers).savefig(path)
    return numbers


def measure(point: Point, width: float) -> Numbers | None:
    """Measures a point in a new process, which has as many virtual devices as the point needs.

    Args:
      point: the setting.
      width: factor on the channels of all layers.

    Returns:
      The fields of the point and the result of `measure_here`; None if the process failed. The reason is printed.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={point.devices}".strip()
    environment = {"XLA_FLAGS": flags, "JAX_TRACEBACK_FILTERING": "off"}  # so that the error is on the last line
    try:
        found = harness.result_of(harness.start_process(measure_here, *point, width, **environment))
    except RuntimeError as error:
        print(f"{point} was not measured: {error}", file=sys.stderr)
        return None
    print(f"{point}: {harness.text(found['images_per_second'])} images per second", file=sys.stderr)
    return {**point._asdict(), **found}


def devices() -> tuple[str, str, int]:
    """Returns platform, kind and number of the devices that JAX finds on this host."""
    return jax.default_backend(), jax.devices()[0].device_kind, jax.local_device_count()


def measure_here(batch_size: int, size: int, count: int, width: float) -> Numbers:
    """Measures a point in this process.

    Args:
      batch_size: images per step, over all devices.
      size: side of the images in pixels.
      count: number of devices.
      width: factor on the channels of all layers.

    Returns:
      "images_per_second" (`spread` of the rounds) and "peak_bytes": peak memory of this process on a CPU, otherwise of
      the first device; None if unknown.
    """
    on_cpu = jax.default_backend() == "cpu"
    net = make_net("float32" if on_cpu else "bfloat16", width)
    contender = train.ours(net, make_variables(net), make_batch(batch_size, size), jax.devices()[:count])
    harness.timed(contender, 1)  # The first step compiles.
    steps = 1 if on_cpu else 10
    seconds, process_peak = harness.peak_during(lambda: [harness.timed(contender, steps)[0] for _ in range(1 + ROUNDS)])
    rates = [batch_size / each for each in seconds[1:]]
    peak = process_peak if on_cpu else contender.peak_bytes()
    return {"images_per_second": harness.spread(rates), "peak_bytes": peak}


def tables(numbers: Numbers) -> list[Table]:
    """Returns one table with a row for each point of each series, from the numbers of `run`."""
    rows = []
    for name, points in numbers["series"].items():
        for found in points:
            place = (str(found[key]) for key in Point._fields)
            memory = harness.gigabytes(found["peak_bytes"])
            rows.append([GROWS[name][1], *place, harness.text(found["images_per_second"]), memory])
    columns = ("series", "images per step", "side", "devices", "images/s", "peak memory")
    return [Table(harness.title(f"Training steps, {numbers['dtype']}", numbers), columns, rows)]


def draw(numbers: Numbers) -> Figure:
    """Returns a picture with a column for each series: images per second above, peak memory below."""
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
