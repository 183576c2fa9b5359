"""The pmapped step: four devices must do exactly what one does, and every reduction must be needed for that."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from deconvnet_jax.models import DeconvNet
from deconvnet_jax.training import AXIS_NAME, create_state, data_parallel, init_variables, make_optimizer, train_step
from deconvnet_jax.training import step as step_module

SMALL = {"num_classes": 4, "width": 1 / 32, "fc_features": 8, "fc_window": 1, "decoder_init": "smooth"}
OPTIMIZER = {
    "learning_rate": 0.01,
    "drops": (),
    "drop_factor": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "bias_rate": 2.0,
    "freeze": (),
}


def global_batch(rng, size=8):
    """Images of very different brightness, and labels whose ignored share differs from device to device."""
    images = rng.integers(0, 256, (size, 64, 64, 3)) * rng.uniform(0.2, 1, (size, 1, 1, 1))
    labels = rng.integers(0, 4, (size, 64, 64))
    labels[rng.random(labels.shape) < np.linspace(0, 0.95, size)[:, None, None]] = 255
    return {"image": images.astype(np.uint8), "label": labels.astype(np.uint8)}


def run(batch, devices, *, cross_device_bn, freeze=(), class_weights=None):
    """State and metrics after one step on the first `devices` devices.

    One: the rounding of sums in another order is 1e-6 after it, and every further step multiplies that.
    """
    net = DeconvNet(**SMALL, bn_axis_name=AXIS_NAME if cross_device_bn else None)
    variables = init_variables(net, seed=3)
    optimizer = make_optimizer({**OPTIMIZER, "freeze": freeze}, variables["params"])
    state = create_state(variables, optimizer)
    options = {"net": net, "optimizer": optimizer, "freeze": freeze, "class_weights": class_weights}
    step = data_parallel(partial(train_step, axis_name=AXIS_NAME, **options), jax.devices()[:devices])
    split = {key: value.reshape(devices, -1, *value.shape[1:]) for key, value in batch.items()}
    state, metrics = step(state, split)
    return jax.device_get(state), jax.device_get(metrics)


def largest_difference(a, b):
    """Of two trees, relative to the size of each leaf's values."""
    differences = jax.tree.map(lambda x, y: np.max(np.abs(x - y)) / max(1.0, np.max(np.abs(y))), a, b)
    return max(jax.tree.leaves(differences))


@pytest.fixture(scope="module")
def batch():
    # Not fresh: in half of all batches some pooling window has two values so close that the order of summation decides
    # which one wins, and gradients then differ by 1e-4. In this one none has; all else agrees to 1e-6.
    return global_batch(np.random.default_rng(3))


@pytest.fixture(scope="module")
def on_one_device(batch):
    return run(batch, 1, cross_device_bn=True)


def test_four_devices_equal_one(batch, on_one_device):
    assert jax.device_count() >= 4
    state, metrics = run(batch, 4, cross_device_bn=True)
    expected, expected_metrics = on_one_device
    assert largest_difference(state.variables["params"], expected.variables["params"]) < 1e-5
    assert largest_difference(state.variables["batch_stats"], expected.variables["batch_stats"]) < 1e-5
    assert largest_difference(metrics, expected_metrics) < 1e-5
    assert largest_difference(state.opt_state, expected.opt_state) < 1e-5
    assert state.step == expected.step == 1


@pytest.mark.parametrize("removed", ["gradients", "sums", "statistics inside the network"])
def test_four_devices_differ_from_one_if_a_reduction_is_removed(monkeypatch, batch, on_one_device, removed):
    psum = lax.psum

    def without(tree, axis_name):
        gradients, sums = tree
        return (gradients if removed == "gradients" else psum(gradients, axis_name)), (
            sums if removed == "sums" else psum(sums, axis_name)
        )

    monkeypatch.setattr(step_module.lax, "psum", without)
    state, metrics = run(batch, 4, cross_device_bn=removed != "statistics inside the network")
    expected, expected_metrics = on_one_device
    assert (
        max(
            largest_difference(state.variables, expected.variables),
            largest_difference(metrics, expected_metrics),
        )
        > 1e-4
    )


def test_running_statistics_are_the_mean_over_devices_when_each_has_its_own(batch):
    """Fails if the mean over devices is removed: pmap would hand out the first device's."""
    state, _ = run(batch, 4, cross_device_bn=False)
    alone = [
        run({key: value[2 * i : 2 * i + 2] for key, value in batch.items()}, 1, cross_device_bn=False)[0]
        for i in range(4)
    ]
    stats = [one.variables["batch_stats"] for one in alone]
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *stats)
    assert largest_difference(state.variables["batch_stats"], mean) < 1e-5
    assert largest_difference(stats[0], mean) > 1e-3


def test_frozen_layers_do_not_move_and_the_rest_does(batch):
    """Except their running statistics, which follow the data."""
    freeze = ("conv1_", "bn1_")
    state, _ = run({key: value[:2] for key, value in batch.items()}, 1, cross_device_bn=False, freeze=freeze)
    before = jax.device_get(init_variables(DeconvNet(**SMALL), seed=3))
    for layer, parts in state.variables["params"].items():
        moved = largest_difference(parts, before["params"][layer]) > 0
        assert moved != layer.startswith(freeze), layer


def test_metrics_are_those_of_the_initial_network(batch):
    net = DeconvNet(**SMALL)
    variables = init_variables(net, seed=3)
    weights = np.array([0.2, 1.0, 3.0, 0.5], np.float32)
    _, metrics = run(batch, 1, cross_device_bn=False)
    _, weighted = run(batch, 4, cross_device_bn=True, class_weights=weights)
    images = jnp.asarray(batch["image"][..., ::-1], jnp.float32) - jnp.asarray(
        [104.00698793, 116.66876762, 122.67891434]
    )
    logits, _ = jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images)
    counts = batch["label"] != 255
    logp = np.asarray(jax.nn.log_softmax(logits), np.float64)[counts]
    truth = batch["label"][counts]
    assert metrics["loss"] == pytest.approx(-logp[np.arange(len(truth)), truth].mean(), rel=1e-4)
    of_label = logp[np.arange(len(truth)), truth] * weights[truth]
    assert weighted["loss"] == pytest.approx(-of_label.sum() / weights[truth].sum(), rel=1e-4)
    assert metrics["pixel_accuracy"] == pytest.approx((logp.argmax(-1) == truth).mean(), abs=1e-4)
