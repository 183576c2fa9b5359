"""Tests the networks between accelerators against cases computed by hand."""

import re

import pytest

from experiments.compiled.hardware import ACCELERATORS, Level, all_reduce_seconds
from experiments.compiled.topologies import TARGETS

GB = 1e9
SIZES = tuple(2**i for i in range(2, 13))


@pytest.mark.parametrize(
    ("levels", "seconds"),
    [
        ([Level(2, 1 * GB, 0, 1)], 1.0),  # 2 * (n-1)/n * bytes / bandwidth
        ([Level(8, 1 * GB, 0, 7)], 1.75),
        ([Level(8, 2 * GB, 1e-3, 7)], 0.875 + 0.014),  # 7 hops in the reduce-scatter, 7 in the all-gather
        ([Level(1, 1 * GB, 1e-3, 0)], 0.0),
        ([], 0.0),
        (
            [Level(8, 10 * GB, 0, 7), Level(2, 1 * GB, 0, 1)],
            0.175,
        ),  # The outer level gets an eighth; the inner one, 0.175, is slower.
        (
            [Level(8, 10 * GB, 0, 7), Level(2, 0.1 * GB, 0.5, 1)],
            1.25 + 1.0,
        ),  # The outer level is slower; latencies add up.
    ],
)
def test_all_reduce_of_a_gigabyte(levels, seconds):
    assert all_reduce_seconds(GB, levels) == pytest.approx(seconds)


@pytest.mark.parametrize("name", ["h100", "a100"])
def test_more_hosts_are_never_faster(name):
    seconds = [all_reduce_seconds(GB, ACCELERATORS[name].levels(size)) for size in SIZES]
    assert seconds == sorted(seconds)


def test_the_networks():
    """Rates are those of the data sheets times the share that links are assumed to reach."""
    within, between = ACCELERATORS["h100"].levels(64)
    assert (within.devices, within.bandwidth, within.hops) == (8, 0.8 * 450e9, 7)
    assert (between.devices, between.bandwidth, between.hops) == (8, 0.8 * 50e9, 3)

    def chips(name, size):
        (grid,) = ACCELERATORS[name].levels(size)
        return grid.devices, round(grid.bandwidth / 0.8e9), grid.hops

    assert chips("v5p", 8) == (8, 3 * 100, 3)  # 2x2x2: no axis wraps around.
    assert chips("v5p", 16) == (16, 3 * 100, 5)  # 2x2x4: a single axis of 4 does not wrap around.
    assert chips("v5p", 64) == (64, 6 * 100, 6)  # 4x4x4: all axes wrap around.
    assert chips("v5e", 64) == (64, 2 * 50, 14)  # 8x8
    assert chips("v5e", 128) == (128, 3 * 50, 15)  # 8x16: the axis of 16 wraps around.
    assert chips("v5e", 256) == (256, 4 * 50, 16)


def test_gpus_have_what_their_descriptions_say():
    """Numbers equal those in targets/. JAX takes three quarters of a GPU's memory."""
    for name, accelerator in ACCELERATORS.items():
        if accelerator.platform == "gpu":
            lines = dict(re.findall(r"(\w+): (\d+)", (TARGETS / f"{name}.txtpb").read_text()))
            assert accelerator.bandwidth == float(lines["memory_bandwidth"])
            assert accelerator.memory == 0.75 * float(lines["device_memory_size"])
