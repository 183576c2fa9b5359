"""How a step's cost grows: a narrow network at a few points; the numbers themselves are no test."""

from pathlib import Path

import numpy as np
from PIL import Image

from experiments.benchmarks import growth
from experiments.benchmarks.growth import Point


def test_every_series_is_measured_and_drawn(monkeypatch, tmp_path, capsys):
    series = {
        "batch": [Point(2, 224, 1)],
        "size": [Point(2, 256, 1), Point(2, 200, 1)],  # the last size does not exist
        "devices": [Point(2, 224, 2)],
    }
    monkeypatch.setattr(growth, "SERIES", {"cpu": series})
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    numbers = growth.run(1 / 32, tmp_path / "growth.png")
    found = numbers["series"]
    assert [(p["size"], p["devices"]) for points in found.values() for p in points] == [(224, 1), (256, 1), (224, 2)]
    for points in found.values():
        for point in points:
            assert 0 < point["images_per_second"]["min"] <= point["images_per_second"]["median"]
            assert 1e8 < point["peak_bytes"] < 1e11
    printed = capsys.readouterr().err
    assert "Point(batch_size=2, size=200, devices=1) was not measured: " in printed
    assert "multiples of 32" in printed
    with Image.open(tmp_path / "growth.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
