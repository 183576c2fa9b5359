"""Tests that all ways of pooling and unpooling compute the same; the measured numbers are not tested."""

import numpy as np
import pytest

from experiments.benchmarks import unpool

pytestmark = pytest.mark.usefixtures("short")


@pytest.fixture(autouse=True)
def little(monkeypatch):
    monkeypatch.setattr(unpool, "ROUNDS", 2)
    monkeypatch.setattr(unpool, "ENCODER_WIDTHS", {1: (4,), 2: (6, 3)})


def test_all_ways(check_spread):
    pytest.importorskip("torch", reason="PyTorch is the alternative: pip install deconvnet_jax[reference]")
    numbers = unpool.run(1)
    assert list(numbers["results"]) == ["224x224x4", "112x112x3"]
    for result in numbers["results"].values():
        assert set(result["ratio"]) == {"PyTorch", "deconvnet_jax, any window"}
        for spread in (*result["seconds"].values(), *result["ratio"].values()):
            check_spread(spread)
    assert unpool.tables(numbers)[0].rows[-1][0] == "112x112x3"


@pytest.mark.usefixtures("without_torch")
def test_without_pytorch():
    numbers = unpool.run(1)
    for result in numbers["results"].values():
        assert list(result["ratio"]) == ["deconvnet_jax, any window"]
    assert unpool.tables(numbers)[0].rows[0][-2:] == ["-", "-"]


def test_another_computation_is_noticed():
    ones, twos = (np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 1))), (np.ones((1, 2, 2, 1)), np.full((1, 2, 2, 1), 2.0))
    with pytest.raises(RuntimeError, match="any window does not compute the same as deconvnet_jax"):
        unpool.check({"deconvnet_jax": lambda: ones, "deconvnet_jax, any window": lambda: twos})
