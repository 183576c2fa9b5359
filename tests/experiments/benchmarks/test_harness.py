"""Tests turns, ratios, processes and memory without a network."""

import math
import operator
import os
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import harness


def side(step=lambda: None, peak_bytes=lambda: 2_500_000_000):
    return harness.Contender(step, lambda _: math.pi, 7, "by hand", peak_bytes)


@pytest.mark.usefixtures("short")
def test_contenders_take_turns():
    calls = []
    sides = {name: side(lambda name=name: calls.append(name)) for name in (harness.OURS, harness.THEIRS)}
    found = harness.compare(sides, batch_size=4)
    ours, theirs = sides
    assert calls == [ours, ours, theirs, theirs, ours, theirs, ours, theirs]  # after warm-up and a first measurement
    assert found["loss"] == {ours: math.pi, theirs: math.pi}
    assert found["parameters"] == {ours: 7, theirs: 7}
    assert found["mode"][ours] == "by hand"


def test_ratios_are_of_the_same_round():
    seconds = {"deconvnet_jax": [1.0, 2.0, 4.0], "PyTorch": [2.0, 2.0, 16.0]}
    assert harness.times_as_fast(seconds, "PyTorch") == {"median": 2.0, "min": 1.0, "max": 4.0}
    assert harness.times_as_fast({"deconvnet_jax": [1.0]}, "PyTorch") is None


def test_a_table_of_networks(capsys):
    """8 images/s of 100 GFLOP each, on a machine with 4 TFLOP/s."""
    result = {"images_per_second": {"deconvnet_jax": harness.spread([8, 4, 16])}, "ratio": None}
    result |= {"peak_bytes": {"deconvnet_jax": 2.5e9}, "mode": {"deconvnet_jax": "jit"}}
    numbers = {"device": "cpu", "cores": 1, "alternative": None, "no_alternative": "PyTorch is not installed"}
    rows = harness.rate_rows("float32", result, 100.0, 4e12)
    assert rows == [["deconvnet_jax, float32", "8 (4 to 16)", "0.8", "20 %", "2.5 GB", "-", "jit"]]
    harness.show([harness.Table(harness.title("Steps", numbers), harness.RATE_COLUMNS, rows)])
    printed = capsys.readouterr().err
    assert "Steps; cpu, 1 cores; no comparison: PyTorch is not installed" in printed
    assert "2.5 GB" in printed


def test_numbers_as_text():
    assert [harness.number(value) for value in (1234.5, 12.345, 0.001234)] == ["1,234", "12.3", "0.00123"]
    assert harness.text({"median": 0.5, "min": 0.25, "max": 1.0}, unit=1e-3) == "500 (250 to 1,000)"
    assert harness.text(None) == "-"


@pytest.mark.usefixtures("short")
def test_rates_of_the_machine():
    rates = harness.measure_rates("float32")
    assert rates["flops"] > 1e9
    assert rates["copy_bytes"] > 1e7


def test_pytorch_that_cannot_use_the_device():
    pytest.importorskip("torch")
    assert harness.find_torch("tpu") == (None, "this PyTorch cannot use the device that JAX uses (tpu)")


def test_another_process():
    assert harness.result_of(harness.start_process(os.getpid)) != os.getpid()
    assert harness.result_of(harness.start_process(os.getenv, "GIVEN", GIVEN="this")) == "this"
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError: "):
        harness.result_of(harness.start_process(operator.floordiv, 1, 0))


def peaks():
    """Returns the peaks of an idle call, of one that holds 200 MB, and of another idle call, in bytes."""
    return [harness.peak_during(work)[1] for work in (int, lambda: np.ones(200_000_000, np.uint8).sum().item(), int)]


def test_peak_memory_is_that_of_one_call():
    before, during, after = harness.result_of(harness.start_process(peaks))
    if during is None:
        pytest.skip("this system does not let a process reset its peak memory")
    assert during > before + 150e6
    assert after < during - 150e6


def test_peak_memory_is_unknown_where_it_cannot_be_reset(monkeypatch):
    monkeypatch.setattr(harness, "Path", lambda _: Path("no-such-folder/file"))
    assert harness.peak_during(lambda: 3) == (3, None)
