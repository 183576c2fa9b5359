"""Checks re-estimated statistics: the first layer by hand, the others by their effect, and over several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.training import calibrate_batch_norm, calibration, data_parallel, init_variables, place_batch

NET = DeconvNet(num_classes=3, width=1 / 32, fc_features=8, fc_window=1, decoder_init="smooth")
DEVICES = jax.device_count()


@pytest.fixture(scope="module")
def variables():
    return init_variables(NET, seed=4)


def random_batches(rng, count, size=4):
    brightness = rng.uniform(0.2, 1, (count, size, 1, 1, 1))
    images = (rng.integers(0, 256, (count, size, 32, 32, 3)) * brightness).astype(np.uint8)
    return [{"image": batch} for batch in images]


def on_one_device(monkeypatch):
    monkeypatch.setattr(calibration, "data_parallel", lambda step: data_parallel(step, jax.devices()[:1]))
    monkeypatch.setattr(calibration, "place_batch", lambda batch: place_batch(batch, jax.devices()[:1]))


def test_first_layer_by_hand(monkeypatch, rng, variables):
    on_one_device(monkeypatch)
    batches = random_batches(rng, 3)
    done = []
    calibrated = calibrate_batch_norm(NET, variables, iter(batches), 3, lambda i, total: done.append((i, total)))
    assert done == [(1, 3), (2, 3), (3, 3)]
    conv = variables["params"]["conv1_1"]
    means, variances = [], []
    for batch in batches:
        x = np.asarray(normalize_images(jnp.asarray(batch["image"])), np.float64)
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        kernel = np.asarray(conv["kernel"], np.float64)
        y = sum(padded[:, i : i + 32, j : j + 32] @ kernel[i, j] for i in range(3) for j in range(3)) + conv["bias"]
        means.append(y.mean((0, 1, 2)))
        variances.append(y.var((0, 1, 2)))
    found = calibrated["batch_stats"]["bn1_1"]
    np.testing.assert_allclose(found["mean"], np.mean(means, 0), rtol=1e-4)
    np.testing.assert_allclose(found["var"], np.mean(variances, 0), rtol=1e-4)
    assert calibrated["params"] is variables["params"]


def test_with_one_batch_inference_is_training(monkeypatch, rng, variables):
    """With the statistics of one batch, inference on that batch equals training on it, so every layer's are right."""
    on_one_device(monkeypatch)
    (batch,) = random_batches(rng, 1)
    calibrated = calibrate_batch_norm(NET, variables, iter([batch]), 1)
    images = normalize_images(jnp.asarray(batch["image"]))
    expected, _ = jax.jit(partial(NET.apply, train=True, mutable=["batch_stats"]))(variables, images)
    infer = jax.jit(NET.apply)
    found = infer(calibrated, images)
    assert np.std(expected) > 0
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    assert np.abs(infer(variables, images) - expected).max() > 0.1 * np.abs(expected).max()


def test_a_batch_is_one_over_any_number_of_devices(monkeypatch, rng, variables):
    """Holds even with one crop per device. The arguments stay usable, and their old statistics do not matter."""
    assert DEVICES == 4
    batches = random_batches(rng, 3)
    variables = {**variables, "batch_stats": jax.tree.map(lambda x: jnp.full_like(x, np.inf), variables["batch_stats"])}
    before = jax.tree.map(np.array, variables)
    over_devices = calibrate_batch_norm(NET, variables, iter(batches), 3)
    jax.tree.map(np.testing.assert_array_equal, variables, before)
    on_one_device(monkeypatch)
    expected = calibrate_batch_norm(NET, variables, iter(batches), 3)
    assert (expected["batch_stats"]["bnfc6"]["var"] > 0).all()
    for name, statistics in expected["batch_stats"].items():
        for part, values in statistics.items():
            tolerance = 1e-3 * np.abs(values).max()
            np.testing.assert_allclose(over_devices["batch_stats"][name][part], values, atol=tolerance)


def test_statistics_that_are_no_numbers(rng, variables):
    kernel = variables["params"]["fc6"]["kernel"].at[0, 0, 0, 0].set(np.nan)
    damaged = {**variables["params"], "fc6": {**variables["params"]["fc6"], "kernel": kernel}}
    with pytest.raises(InputError, match="the statistics of 'bnfc6' are not finite"):
        calibrate_batch_norm(NET, {**variables, "params": damaged}, iter(random_batches(rng, 1)), 1)
