"""Tests the growth benchmark with a narrow network at a few points; the measured numbers are not tested."""

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from experiments.benchmarks import growth, harness
from experiments.benchmarks.growth import Point

SERIES = {
    "batch": [Point(2, 224, 1)],
    "size": [Point(2, 256, 1), Point(2, 200, 1)],  # The network refuses the last size.
    "devices": [Point(2, 224, 2)],
}


def test_every_series_is_measured_and_drawn(monkeypatch, tmp_path, capsys, in_this_process):
    real = growth.measure_here

    def measure_here(batch_size, size, devices, width):
        if size == 200:
            real(batch_size, size, devices, width)
        return {"images_per_second": harness.spread([1.0, size / devices]), "peak_bytes": 2e9}

    monkeypatch.setattr(growth, "measure_here", measure_here)
    monkeypatch.setattr(growth, "SERIES", {"cpu": SERIES})
    numbers = growth.run(1 / 32, tmp_path / "growth.png")
    found = [(p["size"], p["devices"], p["images_per_second"]["max"]) for of in numbers["series"].values() for p in of]
    assert found == [(224, 1, 224), (256, 1, 256), (224, 2, 112)]
    flags = [
        environment.get("XLA_FLAGS", "").split("--xla_force_host_platform_device_count=")[-1]
        for environment in in_this_process
    ]
    assert flags == ["", "1", "1", "1", "2"]  # The first process reports the devices.
    printed = capsys.readouterr().err
    assert "Point(batch_size=2, size=200, devices=1) was not measured: " in printed
    assert "multiples of 32" in printed
    assert growth.tables(numbers)[0].rows[1][:4] == ["side of the images, pixels", "2", "256", "1"]
    with Image.open(tmp_path / "growth.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_a_point(monkeypatch, check_spread):
    """The measured step has the given network, batch and number of devices. test_train.py tests that it trains."""
    made = []

    def ours(net, variables, batch, devices):
        made.append((net.width, batch["image"].shape, len(devices)))
        return harness.Contender(lambda: np.ones(100_000), lambda array: float(array.sum()), 0)

    monkeypatch.setattr(growth.train, "ours", ours)
    found = growth.measure_here(2, 256, 3, 1 / 32)
    check_spread(found["images_per_second"])
    assert 1e8 < found["peak_bytes"] < 1e11
    assert made == [(1 / 32, (2, 256, 256, 3), 3)]


def test_nothing_could_be_measured(monkeypatch, in_this_process):
    monkeypatch.setattr(growth, "SERIES", {"cpu": {"size": [Point(2, 200, 1)]}})
    with pytest.raises(InputError, match=r"^no step could be measured, for the reasons above; give a smaller --width$"):
        growth.run(1 / 32, None)
