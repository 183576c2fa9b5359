"""Checks the pmapped step: four devices must compute what one does, and every reduction must be necessary."""

from functools import cache, partial
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from deconvnet_jax.models import DeconvNet, FCN8s
from deconvnet_jax.ops import normalize_images, onednn
from deconvnet_jax.training import (
    AXIS_NAME,
    batch_layout,
    create_state,
    data_parallel,
    init_variables,
    make_optimizer,
    segmentation_loss,
    train_step,
)
from deconvnet_jax.training import step as step_module

SMALL = {"num_classes": 4, "width": 1 / 32, "fc_features": 8, "fc_window": 1, "decoder_init": "smooth"}
OPTIMIZER = {
    "learning_rate": 0.01,
    "schedule": "step",
    "drops": (),
    "drop_factor": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "decay_bn": True,
    "bias_rate": 2.0,
    "rates": (),
    "freeze": (),
}


def global_batch(rng, size=8):
    """Returns images of very different brightness, and labels whose share of ignored pixels differs per device."""
    images = rng.integers(0, 256, (size, 64, 64, 3)) * rng.uniform(0.2, 1, (size, 1, 1, 1))
    labels = rng.integers(0, 4, (size, 64, 64))
    labels[rng.random(labels.shape) < np.linspace(0, 0.95, size)[:, None, None]] = 255
    return {"image": images.astype(np.uint8), "label": labels.astype(np.uint8)}


@pytest.fixture(scope="module", autouse=True)
def _shallow(shallow):
    """Uses one layer per block: the step does not depend on their number, and `test_trajectory` has all of them."""


@cache
def variables_of(net):
    return jax.device_get(init_variables(net, seed=3))


@cache
def compiled_step(plain, net, devices, crops, learning_rate, freeze, **options):
    """Returns the optimizer and the step, cached by all arguments; `net` is `plain` with a mapped axis."""
    changes = {"learning_rate": learning_rate, "freeze": freeze}
    optimizer = make_optimizer({**OPTIMIZER, **changes}, variables_of(plain)["params"])
    options |= {"net": net, "optimizer": optimizer, "freeze": freeze, "axis_name": AXIS_NAME}
    return optimizer, data_parallel(partial(train_step, **options), devices)


def run(
    batch,
    devices,
    *,
    cross_device_bn=False,
    layout=None,
    net=None,
    variables=None,
    scale=1.0,
    patched=False,
    learning_rate=0.01,
    freeze=(),
    **options,
):
    """Returns state and metrics after one step on the first `devices` devices, or on the given ones.

    Only one step: sums in another order differ by 1e-6 after it, and every further step multiplies that.

    Args:
      patched: True builds a new step, because the test has patched a function inside it.
    """
    devices = jax.devices()[:devices] if isinstance(devices, int) else devices
    net = plain = net or DeconvNet(**SMALL)
    variables = variables_of(plain) if variables is None else variables
    if cross_device_bn:
        net = net.clone(bn_axis_name=AXIS_NAME)
    if layout and layout.devices_a_group > 1:
        net = net.clone(bn_axis_name=AXIS_NAME, bn_axis_groups=layout.device_groups)
    make = compiled_step.__wrapped__ if patched else compiled_step
    optimizer, step = make(
        plain, net, tuple(devices), len(batch["label"]), learning_rate, freeze, layout=layout, **options
    )
    state = create_state(variables, optimizer)
    state = state.replace(plateau=state.plateau._replace(scale=jnp.float32(scale)))
    split = {key: value.reshape(len(devices), -1, *value.shape[1:]) for key, value in batch.items()}
    state, metrics = step(state, split)
    return jax.device_get(state), jax.device_get(metrics)


def largest_difference(a, b):
    """Returns the largest difference of two trees, relative to the largest value of each leaf."""
    differences = jax.tree.map(lambda x, y: np.max(np.abs(x - y)) / max(1.0, np.max(np.abs(y))), a, b)
    return max(jax.tree.leaves(differences))


@pytest.fixture(scope="module")
def batch():
    # The seed is fixed: in half of all batches, two values of a pooling window are so close that the order of summation
    # decides which one wins, and gradients then differ by 1e-4. This batch has no such window; all agrees to 1e-6.
    return global_batch(np.random.default_rng(3))


@pytest.fixture(scope="module")
def on_one_device(batch):
    return run(batch, 1, cross_device_bn=True)


@pytest.mark.accelerator
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="compares an accelerator with the CPU; there is none here")
def test_an_accelerator_takes_the_step_of_the_cpu(batch, on_one_device):
    """Needs products in full precision: JAX_DEFAULT_MATMUL_PRECISION=highest."""
    with jax.default_device(jax.devices("cpu")[0]):
        expected, expected_metrics = run(batch, jax.devices("cpu")[:1], cross_device_bn=True)
    state, metrics = on_one_device
    assert largest_difference(state.variables, expected.variables) < 1e-4
    assert largest_difference(metrics, expected_metrics) < 1e-3  # another maximum in a pooling window changes norms


def test_four_devices_equal_one(batch, on_one_device):
    assert jax.device_count() >= 4
    state, metrics = run(batch, 4, cross_device_bn=True)
    expected, expected_metrics = on_one_device
    assert largest_difference(state.variables["params"], expected.variables["params"]) < 1e-5
    assert largest_difference(state.variables["batch_stats"], expected.variables["batch_stats"]) < 1e-5
    assert largest_difference(metrics, expected_metrics) < 1e-4  # another maximum in a pooling window changes norms
    assert largest_difference(state.opt_state, expected.opt_state) < 1e-5
    assert state.step == expected.step == 1


def test_four_devices_with_onednn_equal_one_without(monkeypatch, batch):
    """Runs on an x86 CPU, where the other tests compute with oneDNN."""
    if not onednn.has_onednn():
        pytest.skip("XLA has no oneDNN here")
    calls = Mock(wraps=onednn._lower_by_onednn)
    monkeypatch.setattr(onednn, "_lower_by_onednn", calls)
    state, metrics = run(batch, 4, cross_device_bn=True, patched=True)
    with_onednn = calls.call_count
    monkeypatch.setattr(onednn, "has_onednn", lambda: False)
    expected, expected_metrics = run(batch, 1, cross_device_bn=True, patched=True)
    assert with_onednn == calls.call_count > 0
    assert largest_difference(state.variables, expected.variables) < 1e-4
    assert largest_difference(metrics, expected_metrics) < 1e-3  # another maximum in a pooling window changes norms


@pytest.mark.parametrize("removed", ["gradients", "sums", "running statistics", "statistics inside the network"])
def test_four_devices_differ_from_one_if_a_reduction_is_removed(monkeypatch, batch, on_one_device, removed):
    psum = lax.psum

    def without(trees, axis_name):
        if not isinstance(trees, tuple):
            return trees if removed == "gradients" else psum(trees, axis_name)
        sums, stats = trees
        return (
            sums if removed == "sums" else psum(sums, axis_name),
            stats if removed == "running statistics" else psum(stats, axis_name),
        )

    monkeypatch.setattr(step_module.lax, "psum", without)
    inside = removed == "statistics inside the network"  # then the step itself is not patched
    state, metrics = run(batch, 4, cross_device_bn=not inside, patched=not inside)
    expected, expected_metrics = on_one_device
    assert (
        max(
            largest_difference(state.variables, expected.variables),
            largest_difference(metrics, expected_metrics),
        )
        > 1e-4
    )


@pytest.fixture(scope="module")
def four_groups_on_one_device(batch):
    return run(batch, 1, layout=batch_layout(8, 1, bn_group=2))


@pytest.mark.parametrize(("devices", "micro_batch"), [(2, 2), (4, 0), (4, 1)])
def test_an_update_does_not_depend_on_devices_and_micro_batches(batch, four_groups_on_one_device, devices, micro_batch):
    """Groups of two crops: as micro-batches of two devices, one per device, or across two devices."""
    if micro_batch == 1:  # a group spans two devices; the next crops of both are another group
        order = [0, 2, 1, 3, 4, 6, 5, 7]
        batch = {key: value[order] for key, value in batch.items()}
    state, metrics = run(batch, devices, layout=batch_layout(8, devices, micro_batch, bn_group=2))
    expected, expected_metrics = four_groups_on_one_device
    assert largest_difference(state.variables, expected.variables) < 1e-5
    assert largest_difference(state.opt_state, expected.opt_state) < 1e-5
    assert largest_difference(metrics, expected_metrics) < 1e-4  # another maximum in a pooling window changes norms


def test_groups_have_their_own_statistics(batch, on_one_device, four_groups_on_one_device):
    assert largest_difference(four_groups_on_one_device[0].variables, on_one_device[0].variables) > 1e-3


def group_gradients(net, variables, batch):
    """Returns the loss and its gradient on one group of crops alone."""
    images = normalize_images(jnp.asarray(batch["image"]))

    def loss(params):
        logits, _ = net.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return segmentation_loss(logits, jnp.asarray(batch["label"]))

    return jax.value_and_grad(loss)(variables["params"])


@pytest.mark.parametrize(("devices", "micro_batch"), [(1, 2), (1, 0), (4, 1)])
def test_gradients_as_caffe_accumulates_them(batch, devices, micro_batch):
    """solver.cpp takes the mean of the micro-batches' means; in bn_layer.cpp scale and shift learn from the last."""
    net = DeconvNet(**SMALL)
    variables = variables_of(net)
    layout = batch_layout(8, devices, micro_batch, bn_group=2)
    state, metrics = run(batch, devices, layout=layout, caffe_gradients=True, learning_rate=1.0)
    members = [[0, 2], [4, 6], [1, 3], [5, 7]] if devices == 4 else [[0, 1], [2, 3], [4, 5], [6, 7]]
    one = jax.jit(partial(group_gradients, net))
    losses, gradients = zip(
        *(one(variables, {key: value[crops] for key, value in batch.items()}) for crops in members), strict=True
    )
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    for layer, parts in variables["params"].items():
        for part, value in parts.items():
            bn = "bn" in layer
            if part == "bias" and not bn and layer != "seg-score-voc":
                continue  # batch normalisation removes it, so its gradient is only rounding
            rate, decay = (2.0, 0.0) if part == "bias" and not bn else (1.0, 5e-4)
            gradient = sum(g[layer][part] for g in (gradients[-1:] if bn else gradients)) / 4
            expected = -rate * (gradient + decay * value)
            error = np.abs(state.variables["params"][layer][part] - value - expected)
            assert error.max() < 0.2 * np.abs(expected).max(), (
                f"{layer}/{part}"
            )  # a pooling window may have another maximum


def test_norms_in_the_metrics(batch, on_one_device):
    """In the first step the velocity equals the update."""
    state, metrics = on_one_device
    before, after = variables_of(DeconvNet(**SMALL))["params"], state.variables["params"]
    norm = partial(jax.tree.reduce, lambda total, x: np.hypot(total, np.linalg.norm(x)))
    assert metrics["parameter_norm"] == pytest.approx(norm(after, 0.0), rel=1e-5)
    moved = jax.tree.map(lambda a, b: a.astype(np.float64) - b, after, before)
    assert metrics["update_norm"] == pytest.approx(norm(moved, 0.0), rel=1e-3)
    assert metrics["finite"] == 1


def test_what_evaluations_have_lowered_the_learning_rate_to(batch, on_one_device):
    _, whole = on_one_device
    _, lowered = run(batch, 1, cross_device_bn=True, scale=0.25)
    assert lowered["update_norm"] == pytest.approx(0.25 * whole["update_norm"], rel=1e-5)


@pytest.mark.parametrize("damaged", ["batch_stats", "params"])
def test_a_value_that_is_no_number_is_reported(batch, damaged):
    """Running statistics influence neither the loss nor the norms of gradients, so they are checked apart."""
    variables = jax.tree.map(np.copy, variables_of(DeconvNet(**SMALL)))
    leaf = variables[damaged]["debn1_1"]["mean" if damaged == "batch_stats" else "scale"]
    leaf[:] = np.nan
    _, metrics = run(batch, 1, variables=variables)
    assert metrics["finite"] == 0


def test_gradients_sent_as_bfloat16(batch, on_one_device):
    exact, _ = on_one_device
    coarse, _ = run(batch, 4, cross_device_bn=True, all_reduce_dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(coarse.variables)} == {np.dtype(np.float32)}
    moved, error = (
        largest_difference(tree, exact.variables["params"])
        for tree in (variables_of(DeconvNet(**SMALL))["params"], coarse.variables["params"])
    )
    assert 0 < error < 0.05 * moved


def test_computation_in_bfloat16_leaves_the_state_in_float32(batch):
    state, metrics = run(batch, 1, net=DeconvNet(**SMALL, dtype=jnp.bfloat16))
    _, exact = run(batch, 1)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.variables, metrics))} == {np.dtype(np.float32)}
    assert 0 < abs(metrics["loss"] - exact["loss"]) < 0.01 * exact["loss"]


def test_rematerialisation_changes_nothing(batch):
    state, metrics = run(batch, 1, net=DeconvNet(**SMALL, remat=True))
    expected, expected_metrics = run(batch, 1)
    assert largest_difference(state.variables, expected.variables) < 1e-5
    assert largest_difference(metrics, expected_metrics) < 1e-4  # another maximum in a pooling window changes norms


def test_fcn8s_with_dropout(batch):
    net = FCN8s(num_classes=4, width=1 / 32, fc_features=16)
    same = {key: np.repeat(value[:1], 2, axis=0) for key, value in batch.items()}
    first = {key: value[:1] for key, value in same.items()}

    def params(crops, devices, seed=0):
        layout = batch_layout(len(crops["image"]), devices, 1)
        variables = run(crops, devices, net=net, layout=layout, seed=seed)[0].variables
        assert set(variables) == {"params"}
        return variables["params"]

    alone, again, other = params(first, 1), params(first, 1), params(first, 1, seed=1)
    assert largest_difference(alone, again) == 0
    assert largest_difference(alone["score-fr"], other["score-fr"]) > 0
    for each in (params(same, 2), params(same, 1)):  # the same crop twice, on two devices or in two micro-batches
        assert largest_difference(each["score-fr"], alone["score-fr"]) > 0


def test_running_statistics_are_the_mean_over_devices_when_each_has_its_own(batch):
    """Fails if the mean over devices is removed: pmap would return the first device's statistics."""
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
    """The running statistics of frozen layers still follow the data."""
    freeze = ("conv1_", "bn1_")
    state, _ = run({key: value[:2] for key, value in batch.items()}, 1, cross_device_bn=False, freeze=freeze)
    before = variables_of(DeconvNet(**SMALL))
    for layer, parts in state.variables["params"].items():
        moved = largest_difference(parts, before["params"][layer]) > 0
        assert moved != layer.startswith(freeze), layer


def test_metrics_are_those_of_the_initial_network(batch):
    net = DeconvNet(**SMALL)
    weights = (0.2, 1.0, 3.0, 0.5)
    _, metrics = run(batch, 1, cross_device_bn=False)
    _, weighted = run(batch, 4, cross_device_bn=True, class_weights=weights)
    images = jnp.asarray(batch["image"][..., ::-1], jnp.float32) - jnp.asarray(
        [104.00698793, 116.66876762, 122.67891434]
    )
    logits, _ = jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))(variables_of(net), images)
    counts = batch["label"] != 255
    logp = np.asarray(jax.nn.log_softmax(logits), np.float64)[counts]
    truth, weights = batch["label"][counts], np.array(weights)
    assert metrics["loss"] == pytest.approx(-logp[np.arange(len(truth)), truth].mean(), rel=1e-4)
    of_label = logp[np.arange(len(truth)), truth] * weights[truth]
    assert weighted["loss"] == pytest.approx(-of_label.sum() / weights[truth].sum(), rel=1e-4)
    assert metrics["pixel_accuracy"] == pytest.approx((logp.argmax(-1) == truth).mean(), abs=1e-4)
