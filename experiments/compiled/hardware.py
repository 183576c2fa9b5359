"""Accelerators that programs are compiled for: peak rates, memory, and the networks between them."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

GIB = 2**30
LINK_SHARE = 0.8  # assumed share of a link's rate; all-reduces of gigabytes over NVLink 4 reach 370 of 450 GB/s
GPUS_PER_HOST = 8


class Level(NamedTuple):
    """Network over which accelerators, or groups of them, run an all-reduce.

    Attributes:
      devices: number of accelerators or groups.
      bandwidth: bytes per second that one accelerator sends.
      latency: seconds from one accelerator to the next.
      hops: number of such steps, one after the other, until the data of one accelerator has reached all others.
    """

    devices: int
    bandwidth: float
    latency: float
    hops: int


class Accelerator(NamedTuple):
    """Kind of accelerator.

    Attributes:
      platform: "gpu" or "tpu".
      peak: peak floating-point operations per second by the dtype of the computation, without sparsity.
      bandwidth: bytes per second of its memory.
      memory: bytes that a program can use.
      levels: takes a number of accelerators and returns the networks between them, inner ones first.
    """

    platform: str
    peak: dict[str, float]
    bandwidth: float
    memory: float
    levels: Callable[[int], list[Level]]


def all_reduce_seconds(num_bytes: float, levels: Sequence[Level]) -> float:
    """Returns the estimated seconds of one all-reduce over all levels.

    On each level the accelerators form a ring, or another pattern that sends as few bytes: a reduce-scatter and an
    all-gather, each of which sends (n-1)/n of the bytes from every accelerator. After the reduce-scatter, each of them
    has 1/n of the array, and only this part goes through the next level. The array is sent in pieces that follow each
    other through the levels, so the slowest level determines the time.

    Args:
      num_bytes: of the array on each accelerator.
      levels: the networks, inner ones first (`Accelerator.levels`).
    """
    sending = latency = 0.0
    for level in levels:
        sending = max(sending, 2 * (level.devices - 1) / level.devices * num_bytes / level.bandwidth)
        latency += 2 * level.hops * level.latency
        num_bytes /= level.devices
    return sending + latency


def _gpu(bfloat16: float, tf32: float, bandwidth: float, memory: float, nvlink: float, network: float) -> Accelerator:
    """Returns GPUs in hosts of 8, connected by one switch, with one network card per GPU.

    `nvlink` and `network` are bytes per second of each GPU in one direction, inside a host and between hosts. Between
    hosts NCCL builds trees, so the number of hops grows with the logarithm of the hosts. JAX takes 75 % of a GPU's
    memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
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
    """Returns TPU chips in a grid of 2 or 3 axes, whose sides are equally long or differ by a factor of 2.

    The axes exchange parts of the data at the same time. On an axis that wraps around, a chip has two links and paths
    are half as long; `wrapped` takes the sides of the grid and returns those of such axes. On another axis the chip at
    the end has one link, and all chips wait for it. `link` is bytes per second in one direction. A TPU multiplies
    float32 as bfloat16 unless a higher precision is requested, which this project does not do.
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


# Sources. Rates in the table are in one direction and without sparsity.
# H100, H200: data sheets of the SXM modules (with sparsity 1,979 TFLOP/s in bfloat16 and 989 in TF32; NVLink 900 GB/s
#   in both directions); DGX SuperPOD reference architecture RA-11333 (a network card of 400 Gb/s per GPU).
# A100: data sheet (312 and 156 TFLOP/s, NVLink 600 GB/s in both directions); DGX A100 user guide (200 Gb/s per GPU).
# B200: DGX B200 data sheet, for 8 GPUs (36 PFLOP/s in bfloat16 with sparsity, NVLink 14.4 TB/s in both directions, 400
#   Gb/s per GPU).
# Bandwidth and memory of GPUs: the files in targets/.
# TPU v5e, v5p, v6e: Google Cloud's pages (197, 459, 918 TFLOP/s; 819, 2,765, 1,640 GB/s; links of a chip in both
#   directions 400, 1,200, 800 GB/s, over 4, 6, 4 links). Axes that wrap around: How to Scale Your Model
#   (jax-ml.github.io/scaling-book), part 2. Memory: the bytes that libtpu 0.0.50 leaves to a program.
# Latencies are typical round numbers, not a vendor's (1 us for a TPU's link: How to Scale Your Model, part 3).
ACCELERATORS = {
    "h100": _gpu(989e12, 494e12, 3352.32e9, 84_942_979_072, 450e9, 50e9),
    "h200": _gpu(989e12, 494e12, 4800e9, 151_397_597_184, 450e9, 50e9),
    "a100": _gpu(312e12, 156e12, 2039.04e9, 85_100_068_864, 300e9, 25e9),
    "b200": _gpu(2250e12, 1125e12, 7672.32e9, 191_514_411_008, 900e9, 50e9),
    "v5e": _tpu(197e12, 819e9, 15.75 * GIB, 50e9, 2, _sides_of_16),
    "v5p": _tpu(459e12, 2765e9, 95.73 * GIB, 100e9, 3, _multiples_of_4),
    "v6e": _tpu(918e12, 1640e9, 31.24 * GIB, 100e9, 2, _sides_of_16),
}
