"""Accelerators that programs are compiled for: peaks, memory, and the networks between them."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

GIB = 2**30
LINK_SHARE = 0.8  # assumed share of a link's rate; all-reduces of gigabytes over NVLink 4 reach 370 of 450 GB/s
GPUS_PER_HOST = 8


class Level(NamedTuple):
    """A network through which accelerators, or groups of them, sum up what they have."""

    devices: int  # accelerators or groups
    bandwidth: float  # bytes per second that one accelerator sends
    latency: float  # seconds from one to the next
    hops: int  # that follow each other on the way to all


class Accelerator(NamedTuple):
    """One kind of accelerator."""

    platform: str  # "gpu" or "tpu"
    peak: dict[str, float]  # operations per second by the dtype of the computation, without sparsity
    bandwidth: float  # bytes per second of its memory
    memory: float  # bytes that a program can use
    levels: Callable[[int], list[Level]]  # the networks between a number of them


def all_reduce_seconds(num_bytes: float, levels: Sequence[Level]) -> float:
    """Returns the time of one all-reduce over all levels, inner ones first.

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


def _gpu(bfloat16: float, tf32: float, bandwidth: float, memory: float, nvlink: float, network: float) -> Accelerator:
    """GPUs in hosts of 8 on one switch, with a network card for every GPU.

    `nvlink` and `network` are bytes per second in one direction, of each GPU, inside a host and between hosts, where
    NCCL builds trees: the number of hops grows as the logarithm. JAX takes 75 % of a GPU's memory unless
    XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
    """

    def levels(devices: int) -> list[Level]:
        inside = min(devices, GPUS_PER_HOST)
        hosts = devices // inside
        within = Level(inside, LINK_SHARE * nvlink, 2e-6, inside - 1)
        return [within, Level(hosts, LINK_SHARE * network, 5e-6, math.ceil(math.log2(hosts)))]

    return Accelerator("gpu", {"bfloat16": bfloat16, "float32": tf32}, bandwidth, 0.75 * memory, levels)


def _tpu(
    peak: float, bandwidth: float, memory: float, link: float, axes: int, wrapped: Callable[[list[int]], list[int]]
) -> Accelerator:
    """TPU chips in a grid of 2 or 3 axes, each side as long as the others or twice that.

    The sides work on parts of the data at the same time. On a side that wraps around (`wrapped` returns those), a chip
    has two links and the way is half as long; on one that does not, the chip at the end, for which all wait, has one.
    `link` is bytes per second in one direction. A TPU multiplies float32 as bfloat16 unless a higher precision is asked
    for, which this project does not.
    """

    def levels(devices: int) -> list[Level]:
        doublings = int(math.log2(devices))
        sides = [2 ** ((doublings + axis) // axes) for axis in range(axes)]
        links = sum(side > 1 for side in sides) + len(wrapped(sides))
        hops = sum(side - 1 for side in sides) - sum(side // 2 - 1 for side in wrapped(sides))
        return [Level(devices, LINK_SHARE * link * links, 1e-6, hops)]

    return Accelerator("tpu", dict.fromkeys(("bfloat16", "float32"), peak), bandwidth, memory, levels)


def _sides_of_16(sides: list[int]) -> list[int]:
    return [side for side in sides if side == 16]


def _multiples_of_4(sides: list[int]) -> list[int]:
    return sides if all(side % 4 == 0 for side in sides) else []


# Sources, in one direction and without sparsity. "Scaling" is How to Scale Your Model, jax-ml.github.io/scaling-book.
# H100, H200: data sheets of the SXM modules (1,979 TFLOP/s bfloat16 and 989 TF32, both with sparsity; NVLink 900 GB/s
#   both ways), DGX SuperPOD reference architecture RA-11333 (a card of 400 Gb/s for every GPU). A100: data sheet (312
#   and 156 TFLOP/s, 600 GB/s both ways), DGX A100 user guide (200 Gb/s). B200: DGX B200 data sheet for 8 of them (36
#   PFLOP/s bfloat16 with sparsity, NVLink 14.4 TB/s both ways, 400 Gb/s a card). Bandwidth and memory: targets/.
# TPU v5e, v5p, v6e: Google Cloud's pages (197, 459, 918 TFLOP/s; 819, 2,765, 1,640 GB/s; links both ways 400, 1,200,
#   800 GB/s a chip, of 4, 6, 4 links). Which sides wrap around: Scaling, part 2. Memory: what libtpu 0.0.50 leaves to a
#   program.
# Latencies are round numbers of the usual size, no vendor's (1 us for a TPU's link: Scaling, part 3).
ACCELERATORS = {
    "h100": _gpu(989e12, 494e12, 3352.32e9, 84_942_979_072, 450e9, 50e9),
    "h200": _gpu(989e12, 494e12, 4800e9, 151_397_597_184, 450e9, 50e9),
    "a100": _gpu(312e12, 156e12, 2039.04e9, 85_100_068_864, 300e9, 25e9),
    "b200": _gpu(2250e12, 1125e12, 7672.32e9, 191_514_411_008, 900e9, 50e9),
    "v5e": _tpu(197e12, 819e9, 15.75 * GIB, 50e9, 2, _sides_of_16),
    "v5p": _tpu(459e12, 2765e9, 95.73 * GIB, 100e9, 3, _multiples_of_4),
    "v6e": _tpu(918e12, 1640e9, 31.24 * GIB, 100e9, 2, _sides_of_16),
}
