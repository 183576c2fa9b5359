"""The benchmarks of the forward pass and of unpooling: all sides compute the same; the numbers are no test."""

import numpy as np
import pytest

from experiments.benchmarks import forward as forward_benchmark
from experiments.benchmarks import train as train_benchmark
from experiments.benchmarks import unpool as unpool_benchmark

WITHOUT = (None, "PyTorch is not installed")


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """Few rounds of little."""
    for name, value in {"ROUNDS": 2, "SECONDS": 0.0, "WARM": 1}.items():
        monkeypatch.setattr(train_benchmark, name, value)
    monkeypatch.setattr(unpool_benchmark, "ROUNDS", 2)
    monkeypatch.setattr(unpool_benchmark, "ENCODER_WIDTHS", {1: (4,), 2: (6, 3)})


def check_spread(spread):
    assert 0 < spread["min"] <= spread["median"] <= spread["max"]


def test_forward(capsys):
    pytest.importorskip("torch", reason="PyTorch is the alternative: pip install deconvnet_jax[reference]")
    numbers = forward_benchmark.run(None, 1 / 32)
    assert list(numbers["results"]) == ["2", "8"]
    for result in numbers["results"].values():
        assert len(set(result["parameters"].values())) == 1
        for spread in (*result["images_per_second"].values(), result["ratio"]):
            check_spread(spread)
    assert "PyTorch, 8 images" in capsys.readouterr().err


def test_forward_without_pytorch(monkeypatch, capsys):
    monkeypatch.setattr(forward_benchmark, "find_torch", lambda platform: WITHOUT)
    (result,) = forward_benchmark.run(1, 1 / 32)["results"].values()
    assert result["ratio"] is None
    assert "against nothing: PyTorch is not installed" in capsys.readouterr().err


def test_forward_notices_another_computation(rng):
    torch = pytest.importorskip("torch")
    mine = rng.standard_normal((1, 4, 4, 3))
    theirs = torch.from_numpy(mine.transpose(0, 3, 1, 2).copy())
    forward_benchmark.check_scores(mine, theirs)
    with pytest.raises(RuntimeError, match="do not compute the same"):
        forward_benchmark.check_scores(mine, theirs.flip(2))


def test_unpool(capsys):
    pytest.importorskip("torch", reason="PyTorch is the alternative: pip install deconvnet_jax[reference]")
    numbers = unpool_benchmark.run(1)
    assert list(numbers["results"]) == ["224x224x4", "112x112x3"]
    for result in numbers["results"].values():
        assert set(result["ratio"]) == {"PyTorch", "deconvnet_jax, any window"}
        for spread in (*result["seconds"].values(), *result["ratio"].values()):
            check_spread(spread)
    assert "112x112x3" in capsys.readouterr().err


def test_unpool_without_pytorch(monkeypatch, capsys):
    monkeypatch.setattr(unpool_benchmark, "find_torch", lambda platform: WITHOUT)
    for result in unpool_benchmark.run(1)["results"].values():
        assert list(result["ratio"]) == ["deconvnet_jax, any window"]
    assert "against nothing: PyTorch is not installed" in capsys.readouterr().err


def test_unpool_notices_another_computation():
    ones, twos = (np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 1))), (np.ones((1, 2, 2, 1)), np.full((1, 2, 2, 1), 2.0))
    with pytest.raises(RuntimeError, match="any window does not compute the same as deconvnet_jax"):
        unpool_benchmark.check({"deconvnet_jax": lambda: ones, "deconvnet_jax, any window": lambda: twos})
