"""The scaling model against cases computed by hand, its limits, and the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deconvnet_jax.errors import InputError
from experiments.benchmarks import scaling
from experiments.benchmarks.scaling import Group, Level, all_reduce_seconds, gradient_groups, weak_scaling
from experiments.benchmarks.train import LayerCost

ROOT = Path(__file__).resolve().parents[2]
GB = 1e9


@pytest.mark.parametrize(
    ("levels", "seconds"),
    [
        ([Level(2, 1 * GB, 0, 1)], 1.0),  # 2 * (n-1)/n * bytes / bandwidth
        ([Level(8, 1 * GB, 0, 7)], 1.75),
        ([Level(8, 2 * GB, 1e-3, 7)], 0.875 + 0.014),  # 7 hops there, 7 back
        ([Level(1, 1 * GB, 1e-3, 0)], 0.0),
        ([], 0.0),
        ([Level(8, 10 * GB, 0, 7), Level(2, 1 * GB, 0, 1)], 0.175),  # outside: an eighth; inside, 0.175, is slower
        ([Level(8, 10 * GB, 0, 7), Level(2, 0.1 * GB, 0.5, 1)], 1.25 + 1.0),  # outside is slower; latencies add up
    ],
)
def test_all_reduce_of_a_gigabyte(levels, seconds):
    assert all_reduce_seconds(GB, levels) == pytest.approx(seconds)


# Two groups of a second each on these levels.
GROUPS = [Group(0.5, GB), Group(1.0, GB)]
PAIR = [Level(2, 1 * GB, 0, 1)]


def test_the_first_group_hides_and_the_last_does_not():
    found = weak_scaling(4.0, GROUPS, PAIR)  # ready after 2 and 4 s, done after 3 and 5 s
    assert found == scaling.Scaling(all_reduce=2.0, hidden=0.5, step=5.0, efficiency=0.8, keeps_up=True)


def test_the_last_group_waits_when_the_step_is_short():
    found = weak_scaling(1.0, GROUPS, PAIR)  # ready after 0.5 and 1 s, done after 1.5 and 2.5 s
    assert found == scaling.Scaling(all_reduce=2.0, hidden=0.25, step=2.5, efficiency=0.4, keeps_up=False)


def test_just_in_time():
    assert weak_scaling(2.0, GROUPS, PAIR).keeps_up
    assert not weak_scaling(1.999, GROUPS, PAIR).keeps_up


def test_one_accelerator_loses_nothing():
    found = weak_scaling(3.0, GROUPS, [Level(1, GB, 1e-3, 0)])
    assert found == scaling.Scaling(all_reduce=0.0, hidden=1.0, step=3.0, efficiency=1.0, keeps_up=True)


def test_gradients_become_ready_from_the_output_to_the_input():
    layers = [LayerCost("first", 10, 3), LayerCost("middle", 1000, 0), LayerCost("last", 20, 1)]
    alone = gradient_groups(layers, 4, group_bytes=0)
    assert [group.num_bytes for group in alone] == [80, 4000, 40]
    assert [group.ready for group in alone] == pytest.approx([1 / 3 + 2 / 3 / 4, 1 / 3 + 2 / 3 / 4, 1.0])
    assert [group.num_bytes for group in gradient_groups(layers, 2, group_bytes=10_000)] == [2060]
    assert gradient_groups(layers, 2, group_bytes=10_000)[0].ready == pytest.approx(1.0)
    assert [group.num_bytes for group in gradient_groups(layers, 4, group_bytes=100)] == [80, 4000, 40]


@pytest.fixture(scope="module")
def numbers():
    return scaling.run(None, None)


def test_gradients_of_the_network(numbers):
    """fc6-deconv, fc7 and fc6 are ready in the middle of the backward pass, by themselves; 94 % with the decoder's."""
    assert numbers["gradient_bytes"] == {"float32": 1_007_222_612, "bfloat16": 503_611_306}
    assert numbers["share_ready_before_the_encoder"]["gradients"] == pytest.approx(0.94, abs=0.01)
    assert numbers["share_ready_before_the_encoder"]["backward_pass"] == pytest.approx(0.53, abs=0.01)
    layers = scaling.layer_costs(scaling.make_net("float32", 1.0))
    groups = gradient_groups(layers, 4)
    assert sum(group.num_bytes for group in groups) == 1_007_222_612
    assert groups[-1].ready == pytest.approx(1.0)
    large = [group for group in groups if group.num_bytes > 4e8]
    assert [round(group.num_bytes / 4e6, 1) for group in large] == [102.8, 102.8]
    assert all(0.65 < group.ready < 0.7 for group in large)


@given(
    compute=st.floats(1e-3, 10),
    name=st.sampled_from(list(scaling.ACCELERATORS)),
    size=st.sampled_from(scaling.SIZES),
    ready=st.lists(st.floats(1 / 3, 1), min_size=1, max_size=5),
    num_bytes=st.floats(1e3, 1e9),
)
def test_bounds_and_monotonicity(compute, name, size, ready, num_bytes):
    levels = scaling.ACCELERATORS[name].levels(size)
    groups = [Group(share, num_bytes) for share in sorted(ready)]
    found = weak_scaling(compute, groups, levels)
    assert compute <= found.step <= compute + found.all_reduce * (1 + 1e-9)
    assert 0 < found.efficiency <= 1
    assert -1e-9 <= found.hidden <= 1
    rounding = 1 + 1e-12
    assert weak_scaling(2 * compute, groups, levels).efficiency * rounding >= found.efficiency
    half = [Group(group.ready, group.num_bytes / 2) for group in groups]
    assert weak_scaling(compute, half, levels).step <= found.step * rounding
    if found.keeps_up:
        assert found.step <= (groups[-1].ready * compute + all_reduce_seconds(num_bytes, levels)) * rounding or (
            found.step == compute
        )


@pytest.mark.parametrize("name", ["H100", "A100"])
def test_more_hosts_are_never_faster(name):
    seconds = [all_reduce_seconds(GB, scaling.ACCELERATORS[name].levels(size)) for size in scaling.SIZES]
    assert seconds == sorted(seconds)


def test_the_networks():
    """From the rates of the data sheets, at the share that is assumed to be reached."""
    within, between = scaling.ACCELERATORS["H100"].levels(64)
    assert (within.devices, within.bandwidth, within.hops) == (8, 0.8 * 450e9, 7)
    assert (between.devices, between.bandwidth, between.hops) == (8, 0.8 * 50e9, 3)

    def chips(name, size):
        within, between = scaling.ACCELERATORS[name].levels(size)
        return within.devices, round(within.bandwidth / 0.8e9), within.hops, between.devices

    assert chips("TPU v4", 8) == (8, 3 * 45, 3, 1)  # 2x2x2, nothing wraps around
    assert chips("TPU v4", 16) == (16, 3 * 45, 5, 1)  # 2x2x4: a single side of 4 does not
    assert chips("TPU v4", 64) == (64, 6 * 45, 6, 1)  # 4x4x4, all do
    assert chips("TPU v4", 512) == (512, 6 * 45, 12, 1)
    assert chips("TPU v5e", 64) == (64, 2 * 50, 14, 1)  # 8x8
    assert chips("TPU v5e", 128) == (128, 3 * 50, 15, 1)  # 8x16: the 16 does
    assert chips("TPU v5e", 512) == (256, 4 * 50, 16, 2)  # two pods
    assert scaling.ACCELERATORS["TPU v5e"].levels(512)[1].bandwidth == pytest.approx(0.8 * 3.125e9)


def test_cases_and_least_images_agree(numbers):
    assert len(numbers["cases"]) == 4 * 2 * 2
    for row in numbers["cases"]:
        least = numbers["least_images"][row["accelerator"]][row["gradients"]]
        for size, found in row["scaling"].items():
            assert found["keeps_up"] == (int(size) in row["hides_at"]) == (row["batch_per_device"] >= least[size])


def test_a_measured_step(capsys):
    numbers = scaling.run(500.0, 16)
    assert {row["compute_seconds"] for row in numbers["cases"]} == {0.5}
    assert {row["batch_per_device"] for row in numbers["cases"]} == {16}
    assert numbers["step"] == "given"
    printed = capsys.readouterr().err
    assert "Step on one accelerator: given" in printed
    assert "TPU v5e" in printed


@pytest.mark.parametrize(
    ("sizes", "text"),
    [([], "none"), ([8], "8"), ([4, 8, 16], "4-16"), ([4, 64, 128], "4, 64-128")],
)
def test_ranges(sizes, text):
    assert scaling.ranges(sizes) == text


@pytest.mark.parametrize(
    ("step_ms", "batch", "message"),
    [
        (0.0, 8, "--step_ms=0: expected the milliseconds of a step, more than 0"),
        (-3.0, 8, "--step_ms=-3: expected the milliseconds of a step, more than 0"),
        (50.0, None, "--step_ms=50: expected --batch_per_device too, the images of that step"),
    ],
)
def test_wrong_use(step_ms, batch, message):
    with pytest.raises(InputError) as error:
        scaling.run(step_ms, batch)
    assert str(error.value) == message


def test_command(tmp_path):
    arguments = ("scaling", "--step_ms=40", "--batch_per_device=8", f"--json={tmp_path / 'numbers.json'}")
    command = [sys.executable, "-m", "experiments.benchmark", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert json.loads((tmp_path / "numbers.json").read_text()) == numbers
    assert numbers["cases"][0]["compute_seconds"] == pytest.approx(0.04)
    assert "efficiency" in done.stderr
