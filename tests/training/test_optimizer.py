"""Momentum SGD against the original solver's rule, written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import make_optimizer, step_schedule
from deconvnet_jax.training.optimizer import parameter_groups

CONFIG = {
    "learning_rate": 0.5,
    "schedule": "step",
    "drops": (2, 4),
    "drop_factor": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "decay_bn": True,
    "bias_rate": 2.0,
    "rates": (),
    "freeze": (),
}


def params_like(value):
    part = {"kernel": value, "bias": value}
    bn = {"scale": value, "bias": value}
    return {"conv1_1": part, "bn1_1": bn, "fc6-deconv": part, "fc6-deconv-bn": bn, "seg-score-voc": part}


def test_groups():
    groups = parameter_groups(params_like(jnp.zeros(1)), freeze=("conv1_", "bn1_"))
    assert groups == {
        "conv1_1": {"kernel": "frozen", "bias": "frozen"},
        "bn1_1": {"scale": "frozen", "bias": "frozen"},
        "fc6-deconv": {"kernel": "weight", "bias": "bias"},
        "fc6-deconv-bn": {"scale": "batch_norm", "bias": "batch_norm"},
        "seg-score-voc": {"kernel": "weight", "bias": "bias"},
    }


def test_groups_of_layers_with_other_learning_rates():
    """The first prefix that fits counts; in the checkpoint's config pairs are lists."""
    groups = parameter_groups(params_like(jnp.zeros(1)), rates=[["conv1", 0.1], ["bn", 0.5], ["c", 3]])
    assert groups["conv1_1"] == {"kernel": "weight 0.1", "bias": "bias 0.1"}
    assert groups["bn1_1"] == {"scale": "batch_norm 0.5", "bias": "batch_norm 0.5"}
    assert groups["fc6-deconv"] == {"kernel": "weight", "bias": "bias"}


def test_other_learning_rates_move_layers_as_far_less(rng):
    params = params_like(jnp.asarray(rng.standard_normal(3)))
    config = {**CONFIG, "weight_decay": 0.0, "rates": (("conv1_", 0.25),)}
    optimizer = make_optimizer(config, params)
    gradients = params_like(jnp.asarray(rng.standard_normal(3)))
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    for part in ("kernel", "bias"):
        np.testing.assert_allclose(updates["conv1_1"][part], 0.25 * updates["fc6-deconv"][part], rtol=1e-6)
    updates_half, _ = optimizer.update(gradients, optimizer.init(params), params, rate_scale=0.5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.5 * b, rtol=1e-6), updates_half, updates)


def test_batch_normalisation_need_not_decay():
    params = params_like(jnp.ones(1))
    optimizer = make_optimizer({**CONFIG, "decay_bn": False}, params)
    updates, _ = optimizer.update(params_like(jnp.zeros(1)), optimizer.init(params), params)
    assert updates["conv1_1"]["kernel"] < 0
    assert updates["bn1_1"]["scale"] == updates["bn1_1"]["bias"] == updates["conv1_1"]["bias"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rates": (("conv9", 0.1),)},
            "config.optimizer.rates: no layer begins with 'conv9'; there are conv1_1",
        ),
        ({"schedule": "cosine"}, "config.optimizer.schedule='cosine': unknown; expected step or plateau"),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(InputError, match=message):
        make_optimizer({**CONFIG, **change}, params_like(jnp.zeros(1)))


def test_updates_follow_the_original_solver_through_learning_rate_drops(rng):
    """v <- 0.9 v + rate * (g + decay * w); w <- w - v: a drop leaves the velocity that is under way as it is."""
    start = float(rng.standard_normal())
    params = params_like(jnp.asarray(start))
    optimizer = make_optimizer(CONFIG, params)
    opt_state = optimizer.init(params)
    expected = {"weight": [start, 0.0], "bias": [start, 0.0]}  # w, v
    for rate in (0.5, 0.5, 0.05, 0.05, 0.005, 0.005):
        g = float(rng.standard_normal())
        updates, opt_state = optimizer.update(params_like(jnp.asarray(g)), opt_state, params)
        params = optax.apply_updates(params, updates)
        for group, multiplier, decay in (("weight", 1, 0.01), ("bias", 2, 0)):
            w, v = expected[group]
            v = 0.9 * v + multiplier * rate * (g + decay * w)
            expected[group] = [w - v, v]
        np.testing.assert_allclose(params["conv1_1"]["kernel"], expected["weight"][0], rtol=1e-5)
        np.testing.assert_allclose(params["bn1_1"]["bias"], expected["weight"][0], rtol=1e-5)
        np.testing.assert_allclose(params["conv1_1"]["bias"], expected["bias"][0], rtol=1e-5)


def test_frozen_layers_stay_and_a_wrong_prefix_is_named():
    params = params_like(jnp.ones(()))
    optimizer = make_optimizer({**CONFIG, "freeze": ("conv1_",)}, params)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert jax.tree.leaves(updates["conv1_1"]) == [0, 0]
    assert updates["bn1_1"]["scale"] != 0
    with pytest.raises(InputError, match=r"config.optimizer.freeze: no layer begins with 'convx'; there are conv1_1"):
        make_optimizer({**CONFIG, "freeze": ("convx",)}, params)


def test_schedule():
    schedule = step_schedule(1.0, (2, 4), 0.1)
    np.testing.assert_allclose([schedule(step) for step in range(6)], [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)
