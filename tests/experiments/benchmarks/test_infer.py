"""The inference benchmark: both sides do the same work; the numbers themselves are no test."""

import sys

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from experiments.benchmarks import crf as crf_benchmark
from experiments.benchmarks import infer as infer_benchmark
from experiments.benchmarks import machine

WIDTH = 1 / 32
STAGES = ["proposals", "network", "aggregation", "total"]


def no_crf(scores, image, keywords):
    return crf_benchmark.Run(scores.argmax(-1).astype(np.uint8), 0.1, 0.1, (1,))


@pytest.fixture
def little(monkeypatch):
    """A small image, few proposals, few rounds, no CRF but the scores themselves."""
    for name, value in {"HEIGHT": 90, "WIDTH": 120, "COUNTS": (2, 5), "COUNT": 5, "ROUNDS": 2}.items():
        monkeypatch.setattr(infer_benchmark, name, value)
    monkeypatch.setattr(crf_benchmark, "find_contenders", lambda: ({"deconvnet_jax": no_crf}, "not here"))


def test_both_sides_do_the_same_work(little, capsys):
    """A narrow network and few windows, the last batch not full: every stage agrees, and so do whole passes."""
    pytest.importorskip("torch", reason="PyTorch is the alternative: pip install deconvnet_jax[reference]")
    numbers = infer_benchmark.run(2, WIDTH)
    assert numbers["proposals"] == 5
    assert numbers["batch_size"] == 2
    assert numbers["agreement"]["network"] < 1e-2
    assert numbers["agreement"]["aggregation"] < 1e-3
    assert numbers["agreement"]["labels_of_whole_passes"] > 0.9
    assert list(numbers["stages"]) == STAGES
    for result in numbers["stages"].values():
        assert set(result["seconds"]) == {"deconvnet_jax", "PyTorch, OpenCV"}
        for spread in (*result["seconds"].values(), result["ratio"]):
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    total, *parts = (
        numbers["stages"][stage]["seconds"]["PyTorch, OpenCV"] for stage in ("total", "network", "aggregation")
    )
    assert total["min"] > sum(part["min"] for part in parts)
    assert "times as fast" in capsys.readouterr().err


def test_without_alternatives(little, monkeypatch, capsys):
    monkeypatch.setattr(infer_benchmark, "find_torch", lambda platform: (None, "PyTorch is not installed"))
    numbers = infer_benchmark.run(None, WIDTH)
    assert numbers["alternative"] is None
    assert numbers["agreement"] is None
    assert numbers["batch_size"] == 5  # no more than there are proposals
    for result in (*numbers["stages"].values(), numbers["crf"]):
        assert list(result["seconds"]) == ["deconvnet_jax"]
        assert result["ratio"] is None
    assert list(numbers["costs"]) == ["2", "5"]
    for count, cost in numbers["costs"].items():
        assert cost["seconds_per_proposal"] == pytest.approx(cost["seconds"] / int(count))
        assert cost["peak_bytes"] is None or cost["peak_bytes"] > 50e6
    printed = capsys.readouterr().err
    assert "against nothing: PyTorch is not installed" in printed
    assert "CRF against nothing: not here" in printed


def test_another_computation_is_no_comparison(little):
    torch = pytest.importorskip("torch")
    image = infer_benchmark.make_image()
    segmenter = infer_benchmark.make_segmenter(WIDTH, 2)
    _, windows = infer_benchmark.find_windows(image)
    network, _ = infer_benchmark.their_network(torch, WIDTH, 2, "cpu")
    infer_benchmark.check_stages(torch, segmenter, network, image, windows[:2])
    with pytest.raises(RuntimeError, match="the two sides do not compute the same"):
        infer_benchmark.check_stages(torch, segmenter, lambda crops: network(crops + 20), image, windows[:2])


def test_windows_of_whole_pixels(little):
    seconds, windows = infer_benchmark.find_windows(infer_benchmark.make_image())
    assert len(seconds) == 2
    assert windows.shape == (5, 4)
    np.testing.assert_array_equal(windows, np.round(windows))
    np.testing.assert_array_equal(windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1])


def test_the_maximum_of_boxes_that_reach_beyond_the_image():
    canvas = np.full((4, 6, 2), -np.inf, np.float32)
    infer_benchmark.take_maximum(canvas, np.ones((2, 2, 2), np.float32), -2, 1, 3, 6)
    infer_benchmark.take_maximum(canvas, np.full((2, 2, 2), 2, np.float32), 2, -3, 9, 4)
    np.testing.assert_array_equal(canvas[0, :, 0], [-np.inf, -np.inf, 2, 2, 2, 2])
    np.testing.assert_array_equal(canvas[3, :, 0], [1, 1, 2, 2, 2, 2])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_most_memory_is_of_what_came_last():
    machine.forget_peak()
    before = machine.process_peak()
    np.ones(200_000_000, np.uint8)
    grown = machine.process_peak()
    machine.forget_peak()
    assert grown > before + 150e6
    assert machine.process_peak() < grown - 150e6


def test_ratios_are_of_the_same_round():
    seconds = {"deconvnet_jax": [1.0, 2.0, 4.0], "PyTorch, OpenCV": [2.0, 2.0, 16.0]}
    assert infer_benchmark.summary(seconds)["ratio"] == {"median": 2.0, "min": 1.0, "max": 4.0}


@pytest.mark.parametrize("width", [0, -1, 1.5])
def test_a_width_out_of_range(width):
    with pytest.raises(InputError, match=r"^--width=.*: expected more than 0 and at most 1"):
        infer_benchmark.run(None, width)
