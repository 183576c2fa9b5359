"""Tests that both sides of the training benchmark compute the same; the measured numbers are not tested."""

import numpy as np
import pytest

from experiments.benchmarks import harness, network, train

pytestmark = pytest.mark.usefixtures("short")


def one_class(batch_size):
    """Returns a batch of one class, with ignored pixels, on which the loss falls at once."""
    batch = network.make_batch(batch_size)
    batch["label"][batch["label"] != 255] = 3
    return batch


@pytest.mark.usefixtures("in_this_process")
def test_both_sides_do_the_same_work(monkeypatch, check_spread):
    """With a narrow network, both sides have the same number of parameters and the same loss, which falls."""
    pytest.importorskip("torch", reason="PyTorch is the alternative: pip install deconvnet_jax[reference]")
    monkeypatch.setattr(train, "make_batch", one_class)
    losses = []
    timed = harness.timed
    monkeypatch.setattr(harness, "timed", lambda *of: losses.append(timed(*of)) or losses[-1])
    monkeypatch.setattr(harness, "measure_rates", lambda dtype: {"flops": 1e9, "copy_bytes": 1e9})
    numbers = train.run(None, 1 / 32)
    result = numbers["results"]["float32"]
    assert numbers["batch_size"] == 2
    assert list(numbers["results"]) == ["float32"]
    assert len(set(result["parameters"].values())) == 1
    assert all(1e8 < peak < 1e10 for peak in result["peak_bytes"].values())

    # Each side is measured twice before the rounds, and its memory after them.
    ours, theirs = ([loss for _, loss in losses[first:8:2]] for first in (4, 5))
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, rtol=0.01)
    assert ours[-1] < 0.97 * losses[0][1]
    assert result["loss"] == {"deconvnet_jax": ours[-1], "PyTorch": theirs[-1]}

    for spread in (*result["images_per_second"].values(), result["ratio"]):
        check_spread(spread)
    (table,) = train.tables(numbers)
    assert [row[0] for row in table.rows] == ["deconvnet_jax, float32", "PyTorch, float32"]


@pytest.mark.usefixtures("without_torch")
def test_without_pytorch_there_is_no_ratio():
    numbers = train.run(2, 1 / 32, quick=True)
    (result,) = numbers["results"].values()
    assert result["ratio"] is numbers["alternative"] is None
    assert list(result["images_per_second"]) == ["deconvnet_jax"]
