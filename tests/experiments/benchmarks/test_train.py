"""The training benchmark: both sides do the same work; the numbers themselves are no test."""

import math

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet
from experiments.benchmarks import train as train_benchmark

noise = train_benchmark.make_batch


def one_class(batch_size):
    """A batch on which the loss falls at once, with ignored pixels."""
    batch = noise(batch_size)
    batch["label"][batch["label"] != 255] = 3
    return batch


def test_both_sides_do_the_same_work(monkeypatch, capsys):
    """A narrow network: as many parameters, the same loss after every round, and it falls."""
    pytest.importorskip("torch", reason="PyTorch is the alternative: pip install deconvnet_jax[reference]")
    for name, value in {"ROUNDS": 2, "SECONDS": 0.0, "WARM": 1, "make_batch": one_class}.items():
        monkeypatch.setattr(train_benchmark, name, value)
    losses = []
    timed = train_benchmark.timed
    monkeypatch.setattr(train_benchmark, "timed", lambda *of: losses.append(timed(*of)) or losses[-1])
    numbers = train_benchmark.run(None, 1 / 32)
    result = numbers["results"]["float32"]
    assert numbers["batch_size"] == 2
    assert list(numbers["results"]) == ["float32"]
    assert len(set(result["parameters"].values())) == 1
    assert all(1e8 < peak < 1e10 for peak in result["peak_bytes"].values())
    assert numbers["rates"]["float32"]["flops"] > 1e9

    ours, theirs = ([loss for _, loss in losses[first::2]] for first in (4, 5))  # before: two of each, not in turns
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, rtol=0.01)
    assert ours[-1] < 0.97 * losses[0][1]
    assert result["loss"] == {"deconvnet_jax": ours[-1], "PyTorch": theirs[-1]}

    rates = result["images_per_second"]
    assert min(rate["min"] for rate in rates.values()) > 0
    assert result["ratio"]["min"] <= result["ratio"]["median"] <= result["ratio"]["max"]
    assert "PyTorch, float32" in capsys.readouterr().err


def test_cost_of_the_layers():
    """The paper's network: 251.8 M parameters, 32.75 G multiply-adds, of which the encoder 15.47."""
    layers = train_benchmark.layer_costs(train_benchmark.make_net("float32", 1.0))
    assert [layer.name for layer in layers[13:16]] == ["fc6", "fc7", "fc6-deconv"]
    assert sum(layer.parameters for layer in layers) == 251_805_653
    assert sum(layer.macs for layer in layers[:15]) == pytest.approx(15.47e9, rel=1e-3)
    assert sum(layer.macs for layer in layers) == pytest.approx(32.75e9, rel=1e-3)
    assert layers[1].macs == 224 * 224 * 3 * 3 * 64 * 64  # conv1_2
    assert layers[15].macs == 4096 * 7 * 7 * 512  # fc6-deconv, one matrix product


def test_another_size_of_images():
    layers = {layer.name: layer.macs for layer in train_benchmark.layer_costs(DeconvNet(21, width=1 / 16), 320)}
    smaller = {layer.name: layer.macs for layer in train_benchmark.layer_costs(DeconvNet(21, width=1 / 16), 224)}
    assert layers["conv3_2"] == pytest.approx(smaller["conv3_2"] * (320 / 224) ** 2)
    assert layers["fc6"] == smaller["fc6"] * 16  # at 4x4 places


def side(step=lambda: None):
    return train_benchmark.Contender(step, lambda _: math.pi, 7, lambda: 2_500_000_000, "by hand")


def test_without_pytorch_there_is_no_ratio(capsys):
    result = train_benchmark.summary({"deconvnet_jax": side()}, {"deconvnet_jax": [0.5, 0.25, 1.0]}, {}, 4)
    assert result["ratio"] is None
    assert result["images_per_second"]["deconvnet_jax"] == {"median": 8, "min": 4, "max": 16}
    numbers = {
        "device": "cpu",
        "cores": 1,
        "batch_size": 4,
        "gflop_per_image": 100.0,
        "rates": {"float32": {"flops": 4e12, "copy_bytes": 1e10}},
        "alternative": None,
        "no_alternative": "PyTorch is not installed",
        "results": {"float32": result},
    }
    train_benchmark.print_table(numbers)
    printed = capsys.readouterr().err
    assert "against nothing: PyTorch is not installed" in printed
    assert "2.5 GB" in printed
    assert "20 %" in printed
    assert "0.8" in printed  # 8 images a second, 100 GFLOP each


def test_rounds_take_turns_and_ratios_are_of_the_same_round():
    seconds = {"deconvnet_jax": [1.0, 2.0, 4.0], "PyTorch": [2.0, 2.0, 16.0]}
    sides = {name: side() for name in seconds}
    assert train_benchmark.summary(sides, seconds, {}, 1)["ratio"] == {"median": 2.0, "min": 1.0, "max": 4.0}


def test_turns(monkeypatch):
    for name, value in {"ROUNDS": 2, "SECONDS": 0.0, "WARM": 1}.items():
        monkeypatch.setattr(train_benchmark, name, value)
    calls = []
    sides = {name: side(lambda name=name: calls.append(name)) for name in ("a", "b")}
    seconds, losses = train_benchmark.compare(sides)
    assert calls == ["a", "a", "b", "b", "a", "b", "a", "b"]
    assert {name: len(of_name) for name, of_name in seconds.items()} == {"a": 2, "b": 2}
    assert losses == {"a": math.pi, "b": math.pi}


@pytest.mark.parametrize("width", [0, -1, 1.5])
def test_a_width_out_of_range(width):
    with pytest.raises(InputError, match=r"^--width=.*: expected more than 0 and at most 1"):
        train_benchmark.run(None, width)


def test_pytorch_that_cannot_use_the_device():
    pytest.importorskip("torch")
    torch, reason = train_benchmark.find_torch("tpu")
    assert torch is None
    assert reason == "this PyTorch cannot use the device that JAX uses (tpu)"
