"""Weak scaling on paper: how much of the gradients' all-reduce hides behind the backward pass, and what a step loses.

    python -m experiments.benchmark scaling [--step_ms=MS --batch_per_device=N] [--json=FILE]

Nothing is measured here. The time of a step on one accelerator is its arithmetic at 40 % of the peak, or `--step_ms`,
the reader's own measurement (`benchmark train`) with `--batch_per_device` images. Gradients become ready layer by
layer, from the output to the input; they are sent in groups, one after the other, as XLA combines them. 82 % of them
are those of fc6-deconv and fc6, ready in the middle of the backward pass: they can hide behind what comes after fc6,
half of the backward pass. Rates of links are the vendors', of which 80 % is assumed to be reached.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from deconvnet_jax.errors import InputError
from experiments.benchmarks.train import LayerCost, layer_costs, make_net

UTILISATION = 0.4  # assumed share of the peak arithmetic that a step reaches
LINK_SHARE = 0.8  # assumed share of a link's rate; all-reduces of gigabytes over NVLink 4 reach 370 of 450 GB/s
GROUP_BYTES = 30 * 2**20  # XLA combines all-reduces up to this size (xla_gpu_all_reduce_combine_threshold_bytes)
BATCHES = (8, 64)  # images on each accelerator
GRADIENTS = {"float32": 4, "bfloat16": 2}  # bytes
SHOWN = (8, 64, 512)  # accelerators
SIZES = tuple(2**i for i in range(2, 13))  # among which to look for those at which the all-reduce hides
MOST_IMAGES = 4096  # on an accelerator, where the search for the least batch ends
FORWARD = 1 / 3  # of a step's arithmetic; the backward pass is the rest


class Level(NamedTuple):
    """A network through which `devices` accelerators, or groups of them, sum up what they have.

    `bandwidth`: bytes a second that one accelerator sends; `latency`: seconds from one to the next, `hops` of which
    follow each other on the way to all.
    """

    devices: int
    bandwidth: float
    latency: float
    hops: int


class Group(NamedTuple):
    """Gradients that are sent together: when they are ready, as a share of the step on one accelerator, and bytes."""

    ready: float
    num_bytes: float


@dataclass(frozen=True)
class Scaling:
    """A step on many accelerators, each with as many images as the one.

    Attributes:
      all_reduce: seconds of all groups together.
      hidden: share of that which runs beside the backward pass.
      step: seconds.
      efficiency: the step on one accelerator, divided by this one.
      keeps_up: True if no group still waits or runs when the last one becomes ready. Only that one's time is added
        then, which nothing can hide.
    """

    all_reduce: float
    hidden: float
    step: float
    efficiency: float
    keeps_up: bool


@dataclass(frozen=True)
class Accelerator:
    """Peak bfloat16 operations a second without sparsity, and the networks between a number of accelerators."""

    peak: float
    levels: Callable[[int], list[Level]]


def all_reduce_seconds(num_bytes: float, levels: Sequence[Level]) -> float:
    """Time of one all-reduce over all levels, inner ones first.

    On every level a ring (or what sends as little): reduce-scatter and all-gather, each of which sends (n-1)/n of the
    bytes from every accelerator. The next level sums up only the part that an accelerator is left with. Pieces of the
    array pass through the levels one behind the other, so the slowest level sets the time.
    """
    sending = latency = 0.0
    for level in levels:
        sending = max(sending, 2 * (level.devices - 1) / level.devices * num_bytes / level.bandwidth)
        latency += 2 * level.hops * level.latency
        num_bytes /= level.devices
    return sending + latency


def weak_scaling(compute: float, groups: Sequence[Group], levels: Sequence[Level]) -> Scaling:
    """A step of `compute` seconds on one accelerator, on as many as the levels have together.

    Args:
      compute: seconds.
      groups: what is to be sent, in the order in which it becomes ready; at most one is on its way at a time.
      levels: the networks; none, or of one device: a single accelerator.
    """
    end, durations, waits = 0.0, [], 0.0
    for group in groups:
        begin = max(end, group.ready * compute)
        waits = begin - group.ready * compute
        durations.append(all_reduce_seconds(group.num_bytes, levels))
        end = begin + durations[-1]
    total, step = sum(durations), max(compute, end)
    hidden = 1 - (step - compute) / total if total else 1.0
    return Scaling(total, hidden, step, compute / step, waits == 0)


def gradient_groups(layers: Sequence[LayerCost], bytes_each: int, group_bytes: float = GROUP_BYTES) -> list[Group]:
    """The gradients of a network in the order of the backward pass, neighbours together up to `group_bytes`.

    The time of a layer is taken to be proportional to its multiply-adds.

    Args:
      layers: in the order of the forward pass.
      bytes_each: of a parameter's gradient.
      group_bytes: a layer with more than this is a group by itself.
    """
    total, done, groups = sum(layer.macs for layer in layers), 0, []
    for layer in reversed(layers):
        done += layer.macs
        ready, num_bytes = FORWARD + (1 - FORWARD) * done / total, layer.parameters * bytes_each
        if groups and groups[-1].num_bytes + num_bytes <= group_bytes:
            num_bytes += groups.pop().num_bytes
        groups.append(Group(ready, num_bytes))
    return groups


def gpu_hosts(nvlink: float, network: float) -> Callable[[int], list[Level]]:
    """Hosts of 8 GPUs on one switch, and a network card for every GPU; bytes a second in one direction.

    Between hosts NCCL builds trees, so the number of hops grows as the logarithm.
    """

    def levels(devices: int) -> list[Level]:
        inside = min(devices, 8)
        hosts = devices // inside
        within = Level(inside, LINK_SHARE * nvlink, 2e-6, inside - 1)
        return [within, Level(hosts, LINK_SHARE * network, 5e-6, math.ceil(math.log2(hosts)))]

    return levels


def torus(
    link: float, most: int, axes: int, wrapped: Callable[[list[int]], list[int]], between: float
) -> Callable[[int], list[Level]]:
    """Chips in a grid, each side as long as the others or twice that; bytes a second in one direction.

    The sides work on parts of the data at the same time. On a side that wraps around, a chip has two links and the way
    is half as long; on one that does not, the chip at the end, for which all wait, has one.

    Args:
      link: of one link.
      most: chips that are connected in this way; beyond, so many each with the others.
      axes: 2 or 3.
      wrapped: those of a grid's sides that wrap around.
      between: a chip's share of the network between such grids.
    """

    def levels(devices: int) -> list[Level]:
        inside = min(devices, most)
        grids, doublings = devices // inside, int(math.log2(inside))
        sides = [2 ** ((doublings + axis) // axes) for axis in range(axes)]
        links = sum(side > 1 for side in sides) + len(wrapped(sides))
        hops = sum(side - 1 for side in sides) - sum(side // 2 - 1 for side in wrapped(sides))
        within = Level(inside, LINK_SHARE * link * links, 1e-6, hops)
        return [within, Level(grids, LINK_SHARE * between, 5e-6, math.ceil(math.log2(grids)))]

    return levels


# Sources, in one direction and without sparsity. "Scaling" is How to Scale Your Model, jax-ml.github.io/scaling-book.
# H100: data sheet of the SXM module (1,979 TFLOP/s with sparsity, NVLink 900 GB/s both ways), DGX SuperPOD reference
#   architecture RA-11333 (a card of 400 Gb/s for every GPU). A100: data sheet (312 TFLOP/s, 600 GB/s both ways), DGX
#   A100 user guide (200 Gb/s).
# TPU v4: Google Cloud's page (275 TFLOP/s; pods of 4,096 with an all-reduce bandwidth of 1.1 PB/s: 45 GB/s for each of
#   a chip's 6 links; grids of which all sides are multiples of 4 wrap around). Its data-centre network: Scaling, part 2
#   (25 GB/s a host of 4 chips).
# TPU v5e: Google Cloud's page (197 TFLOP/s; pods of 256; 4 links of together 400 GB/s both ways; 6.4 Tb/s of
#   data-centre network a pod). Sides of 16 wrap around: Scaling, part 2.
# Latencies are round numbers of the usual size, no vendor's (1 us for a TPU's link: Scaling, part 3).
ACCELERATORS = {
    "H100": Accelerator(989e12, gpu_hosts(450e9, 50e9)),
    "A100": Accelerator(312e12, gpu_hosts(300e9, 25e9)),
    "TPU v4": Accelerator(
        275e12, torus(45e9, 4096, 3, lambda sides: sides if all(n % 4 == 0 for n in sides) else [], 25e9 / 4)
    ),
    "TPU v5e": Accelerator(197e12, torus(50e9, 256, 2, lambda sides: [n for n in sides if n == 16], 6.4e12 / 8 / 256)),
}


def run(step_ms: float | None, batch_per_device: int | None) -> dict[str, Any]:
    """Computes and prints the tables; returns their numbers.

    Args:
      step_ms: milliseconds of a step on one accelerator, for all of them; None: estimated from its arithmetic.
      batch_per_device: images of that step; None: 8 and 64.

    Raises:
      InputError: for a time that is none, or without its number of images.
    """
    if step_ms is not None and step_ms <= 0:
        raise InputError(f"--step_ms={step_ms:g}: expected the milliseconds of a step, more than 0")
    if step_ms is not None and batch_per_device is None:
        raise InputError(f"--step_ms={step_ms:g}: expected --batch_per_device too, the images of that step")
    layers = layer_costs(make_net("float32", 1.0))
    batches = (batch_per_device,) if batch_per_device else BATCHES
    image_seconds = {
        name: step_ms / 1000 / batch_per_device if step_ms else estimated_seconds(layers, accelerator)
        for name, accelerator in ACCELERATORS.items()
    }
    numbers = {
        "step": "given" if step_ms else f"estimated at {UTILISATION:.0%} of the peak",
        "gradient_bytes": {name: each * sum(layer.parameters for layer in layers) for name, each in GRADIENTS.items()},
        "share_ready_before_the_encoder": share_before_encoder(layers),
        "cases": [
            case(name, batch, gradients, batch * image_seconds[name], gradient_groups(layers, each))
            for name in ACCELERATORS
            for batch in batches
            for gradients, each in GRADIENTS.items()
        ],
        "least_images": {
            name: {
                gradients: least_images(name, image_seconds[name], gradient_groups(layers, each))
                for gradients, each in GRADIENTS.items()
            }
            for name in ACCELERATORS
        },
    }
    print_tables(numbers)
    return numbers


def estimated_seconds(layers: Sequence[LayerCost], accelerator: Accelerator) -> float:
    """A training step's time for an image: three times the forward pass, two operations a multiply-add."""
    return 3 * 2 * sum(layer.macs for layer in layers) / (UTILISATION * accelerator.peak)


def share_before_encoder(layers: Sequence[LayerCost]) -> dict[str, float]:
    """Shares of the gradients and of the backward pass's arithmetic up to fc6's gradient; the rest is the encoder's."""
    first = next(i for i, layer in enumerate(layers) if layer.name == "fc6")
    return {
        "gradients": sum(layer.parameters for layer in layers[first:]) / sum(layer.parameters for layer in layers),
        "backward_pass": sum(layer.macs for layer in layers[first:]) / sum(layer.macs for layer in layers),
    }


def case(name: str, batch: int, gradients: str, compute: float, groups: Sequence[Group]) -> dict[str, Any]:
    """The numbers of an accelerator with a batch and a type of gradients."""
    levels = ACCELERATORS[name].levels
    return {
        "accelerator": name,
        "batch_per_device": batch,
        "gradients": gradients,
        "compute_seconds": compute,
        "scaling": {str(size): asdict(weak_scaling(compute, groups, levels(size))) for size in SHOWN},
        "hides_at": [size for size in SIZES if weak_scaling(compute, groups, levels(size)).keeps_up],
    }


def least_images(name: str, image_seconds: float, groups: Sequence[Group]) -> dict[str, int | None]:
    """By the number of accelerators: the fewest images on each with which the all-reduce hides."""

    def least(size: int) -> int | None:
        levels = ACCELERATORS[name].levels(size)
        images = range(1, MOST_IMAGES + 1)
        return next((n for n in images if weak_scaling(n * image_seconds, groups, levels).keeps_up), None)

    return {str(size): least(size) for size in SHOWN}


def print_tables(numbers: dict[str, Any]) -> None:
    """On stderr: stdout is for the JSON."""
    console, sizes = Console(stderr=True, width=110), [f"{size}" for size in SHOWN]
    text = f"Step on one accelerator: {numbers['step']}. All-reduce and efficiency: on {', '.join(sizes)} accelerators."
    console.print(text, soft_wrap=True)
    table = Table("", "images each", "gradients", "step, ms", "all-reduce, ms", "efficiency, %", "hides on")
    for row in numbers["cases"]:
        of_size = [row["scaling"][size] for size in sizes]
        table.add_row(
            row["accelerator"],
            str(row["batch_per_device"]),
            row["gradients"],
            f"{1000 * row['compute_seconds']:.1f}",
            " / ".join(f"{1000 * scaling['all_reduce']:.1f}" for scaling in of_size),
            " / ".join(f"{100 * scaling['efficiency']:.0f}" for scaling in of_size),
            ranges(row["hides_at"]),
        )
    console.print(table)
    console.print(f"Fewest images each with which it hides, on {', '.join(sizes)} accelerators:", soft_wrap=True)
    least = Table("", *GRADIENTS)
    for name, by_type in numbers["least_images"].items():
        least.add_row(name, *(" / ".join(str(n or "-") for n in of_size.values()) for of_size in by_type.values()))
    console.print(least)


def ranges(sizes: Sequence[int]) -> str:
    """Which of SIZES, neighbours as "first-last"."""
    runs: list[list[int]] = []
    for size in sizes:
        if runs and size == 2 * runs[-1][-1]:
            runs[-1].append(size)
        else:
            runs.append([size])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs) or "none"
