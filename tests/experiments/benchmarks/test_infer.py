"""Tests that both sides of the inference benchmark compute the same; the measured numbers are not tested."""

import numpy as np
import pytest

from experiments.benchmarks import crf, harness, infer

WIDTH = 1 / 32
STAGES = ["proposals", "network", "aggregation", "total"]


def no_crf(scores, image, keywords):
    return crf.Run(scores.argmax(-1).astype(np.uint8), 0.1, 0.1, (1,))


@pytest.fixture
def little(monkeypatch):
    """Makes the image small, proposals and rounds few, and replaces the CRF by the labels of the scores."""
    for name, value in {"HEIGHT": 90, "WIDTH": 120, "COUNTS": (2, 5), "COUNT": 5, "ROUNDS": 2}.items():
        monkeypatch.setattr(infer, name, value)
    monkeypatch.setattr(crf, "find_contenders", lambda: ({"deconvnet_jax": no_crf}, "not here"))


def test_both_sides_do_the_same_work(little, check_spread):
    """With a narrow network and a last batch that is not full, every stage agrees, and so do whole passes."""
    pytest.importorskip("torch", reason="PyTorch is the alternative: pip install deconvnet_jax[reference]")
    numbers = infer.run(2, WIDTH)
    assert numbers["proposals"] == 5
    assert numbers["batch_size"] == 2
    assert numbers["agreement"]["network"] < 1e-2
    assert numbers["agreement"]["aggregation"] < 1e-3
    assert numbers["agreement"]["labels_of_whole_passes"] > 0.9
    assert list(numbers["stages"]) == STAGES
    for result in numbers["stages"].values():
        assert set(result["seconds"]) == {"deconvnet_jax", "PyTorch, OpenCV"}
        for spread in (*result["seconds"].values(), result["ratio"]):
            check_spread(spread)
    total, *parts = (
        numbers["stages"][stage]["seconds"]["PyTorch, OpenCV"] for stage in ("total", "network", "aggregation")
    )
    assert total["min"] > sum(part["min"] for part in parts)
    assert [row[0] for row in infer.tables(numbers)[0].rows] == [*STAGES, "CRF, compared with pydensecrf2"]


@pytest.mark.usefixtures("without_torch")
def test_without_alternatives(little, capsys):
    numbers = infer.run(None, WIDTH)
    assert numbers["alternative"] is None
    assert numbers["agreement"] is None
    assert numbers["batch_size"] == 5  # at most the number of proposals
    for result in (*numbers["stages"].values(), numbers["crf"]):
        assert list(result["seconds"]) == ["deconvnet_jax"]
        assert result["ratio"] is None
    assert list(numbers["costs"]) == ["2", "5"]
    for count, cost in numbers["costs"].items():
        assert cost["seconds_per_proposal"] == pytest.approx(cost["seconds"] / int(count))
        assert cost["peak_bytes"] is None or cost["peak_bytes"] > 50e6
    harness.show(infer.tables(numbers))
    printed = capsys.readouterr().err
    assert "no comparison: PyTorch is not installed" in printed
    assert "CRF without comparison: not here" in printed


def test_another_computation_is_no_comparison(little):
    pytest.importorskip("torch")
    image = infer.make_image()
    segmenter = infer.make_segmenter(WIDTH, 2)
    _, windows = infer.find_windows(image)
    network, _ = infer.their_network(WIDTH, 2)
    infer.check_stages(segmenter, network, image, windows[:2])
    with pytest.raises(RuntimeError, match="the two sides do not compute the same"):
        infer.check_stages(segmenter, lambda crops: network(crops + 20), image, windows[:2])


def test_windows_of_whole_pixels(little):
    seconds, windows = infer.find_windows(infer.make_image())
    assert len(seconds) == 2
    assert windows.shape == (5, 4)
    np.testing.assert_array_equal(windows, np.round(windows))
    np.testing.assert_array_equal(windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1])


def test_the_maximum_of_boxes_that_reach_beyond_the_image():
    canvas = np.full((4, 6, 2), -np.inf, np.float32)
    infer.take_maximum(canvas, np.ones((2, 2, 2), np.float32), -2, 1, 3, 6)
    infer.take_maximum(canvas, np.full((2, 2, 2), 2, np.float32), 2, -3, 9, 4)
    np.testing.assert_array_equal(canvas[0, :, 0], [-np.inf, -np.inf, 2, 2, 2, 2])
    np.testing.assert_array_equal(canvas[3, :, 0], [1, 1, 2, 2, 2, 2])
