"""Tests the recall of object proposals on drawn scenes; the measured times are not tested."""

import numpy as np

from deconvnet_jax.data import write_scenes
from experiments.benchmarks import proposals


def test_recall(tmp_path):
    write_scenes(tmp_path / "scenes", train=1, val=2, seed=4)
    numbers = proposals.run(tmp_path / "scenes", "val")
    _, truth = zip(*proposals.load(tmp_path / "scenes", "val"), strict=True)
    assert numbers["images"] == 2
    assert numbers["objects"] == sum(len(boxes) for boxes in truth) > 0
    assert list(numbers["methods"]) == ["network", "gradient", "selective_search", "grid"]
    for result in numbers["methods"].values():
        recall = np.array([list(of_threshold.values()) for of_threshold in result["recall"].values()])
        assert (np.diff(recall, axis=1) >= 0).all()
        assert recall[0, -1] >= 50
        assert result["seconds"] > 0
    (table,) = proposals.tables(numbers)
    assert table.columns[1] == "50@0.5"
    assert {len(row) for row in table.rows} == {len(table.columns)}
