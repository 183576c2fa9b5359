"""Tests that both sides of the forward benchmark compute the same; the measured numbers are not tested."""

import pytest

from experiments.benchmarks import forward

pytestmark = pytest.mark.usefixtures("short")


def test_both_sides(check_spread):
    pytest.importorskip("torch", reason="PyTorch is the alternative: pip install deconvnet_jax[reference]")
    numbers = forward.run(None, 1 / 32)
    assert list(numbers["results"]) == ["2", "8"]
    for result in numbers["results"].values():
        assert len(set(result["parameters"].values())) == 1
        for spread in (*result["images_per_second"].values(), result["ratio"]):
            check_spread(spread)
    (table,) = forward.tables(numbers)
    assert table.rows[-1][0] == "PyTorch, 8 images"
    assert {len(row) for row in table.rows} == {len(table.columns)}


@pytest.mark.usefixtures("without_torch")
def test_without_pytorch():
    numbers = forward.run(2, 1 / 32)
    (result,) = numbers["results"].values()
    assert result["ratio"] is None
    assert "no comparison: PyTorch is not installed" in forward.tables(numbers)[0].title


def test_another_computation_is_noticed(rng):
    torch = pytest.importorskip("torch")
    mine = rng.standard_normal((1, 4, 4, 3))
    theirs = torch.from_numpy(mine.transpose(0, 3, 1, 2).copy())
    forward.check_scores(mine, theirs)
    with pytest.raises(RuntimeError, match="do not compute the same"):
        forward.check_scores(mine, theirs.flip(2))
