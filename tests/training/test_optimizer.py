"""Compares momentum SGD with the rule of the original's solver, written out by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops import sums
from deconvnet_jax.training import SCHEDULES, make_optimizer
from deconvnet_jax.training.optimizer import apply_gradients, make_schedule

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


def test_rates_and_decay_of_every_parameter():
    """With gradients of 0 or 1 and no velocity, the first update is minus the rate times (gradient + decay)."""
    params = params_like(jnp.ones(()))
    optimizer = make_optimizer({**CONFIG, "freeze": ("conv1_", "bn1_")}, params)
    state = optimizer.init(params)
    decay, _ = optimizer.update(params_like(jnp.zeros(())), state, params)
    both, _ = optimizer.update(params, state, params)
    rates = jax.tree.map(lambda b, d: round(float((d - b) / 0.5), 5), both, decay)
    decays = jax.tree.map(lambda d: round(float(-d / 0.5), 5), decay)
    weight = {"scale": 1.0, "bias": 1.0}
    assert rates == {
        "conv1_1": {"kernel": 0.0, "bias": 0.0},
        "bn1_1": {"scale": 0.0, "bias": 0.0},
        "fc6-deconv": {"kernel": 1.0, "bias": 2.0},
        "fc6-deconv-bn": weight,
        "seg-score-voc": {"kernel": 1.0, "bias": 2.0},
    }
    assert decays == {
        "conv1_1": {"kernel": 0.0, "bias": 0.0},
        "bn1_1": {"scale": 0.0, "bias": 0.0},
        "fc6-deconv": {"kernel": 0.01, "bias": 0.0},
        "fc6-deconv-bn": {"scale": 0.01, "bias": 0.01},
        "seg-score-voc": {"kernel": 0.01, "bias": 0.0},
    }


def test_layers_with_other_learning_rates():
    """The first prefix that fits counts. In the config of a checkpoint, pairs are lists."""
    params = params_like(jnp.ones(()))
    config = {**CONFIG, "weight_decay": 0.0, "rates": [["conv1", 0.1], ["bn", 0.5], ["c", 3]]}
    updates, _ = (optimizer := make_optimizer(config, params)).update(params, optimizer.init(params), params)
    rates = jax.tree.map(lambda u: round(float(-u / 0.5), 5), updates)
    assert rates["conv1_1"] == {"kernel": 0.1, "bias": 0.2}
    assert rates["bn1_1"] == {"scale": 0.5, "bias": 0.5}
    assert rates["fc6-deconv"] == {"kernel": 1.0, "bias": 2.0}


@pytest.mark.parametrize("change", [{"freeze": ("conv1_",)}, {"rates": (("fc6", 0.5),)}, {"schedule": "plateau"}])
def test_a_run_can_go_on_with_other_settings(change):
    """The state keeps its structure; a layer that is frozen from now on stays put, whatever its velocity."""
    params = params_like(jnp.ones(()))
    before, after = make_optimizer(CONFIG, params), make_optimizer({**CONFIG, **change}, params)
    _, state = before.update(params, before.init(params), params)
    assert jax.tree.structure(state) == jax.tree.structure(after.init(params))
    updates, _ = after.update(params, state, params)
    assert (updates["conv1_1"]["kernel"] == 0) == ("freeze" in change)
    assert updates["fc6-deconv"]["kernel"] < 0


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
            "config.optimizer.rates: no layer's name begins with 'conv9'; the layers are conv1_1",
        ),
        (
            {"schedule": "unknown"},
            f"config.optimizer.schedule='unknown': unknown; expected {' or '.join(SCHEDULES)}",
        ),
    ],
)
def test_wrong_settings(change, message):
    with pytest.raises(InputError, match=message):
        make_optimizer({**CONFIG, **change}, params_like(jnp.zeros(1)))


def test_updates_follow_the_original_solver_through_learning_rate_drops(rng):
    """v <- 0.9 v + rate * (g + decay * w); w <- w - v. A drop of the rate does not change the velocity."""
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
        np.testing.assert_allclose(params["conv1_1"]["kernel"], expected["weight"][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(params["bn1_1"]["bias"], expected["weight"][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(params["conv1_1"]["bias"], expected["bias"][0], rtol=1e-5, atol=1e-6)


def test_frozen_layers_stay_and_a_wrong_prefix_is_named():
    params = params_like(jnp.ones(()))
    optimizer = make_optimizer({**CONFIG, "freeze": ("conv1_",)}, params)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert jax.tree.leaves(updates["conv1_1"]) == [0, 0]
    assert updates["bn1_1"]["scale"] != 0
    with pytest.raises(
        InputError, match=r"config.optimizer.freeze: no layer's name begins with 'convx'; the layers are conv1_1"
    ):
        make_optimizer({**CONFIG, "freeze": ("convx",)}, params)


def test_schedule():
    schedule = make_schedule({**CONFIG, "learning_rate": 1.0})
    np.testing.assert_allclose([schedule(step) for step in range(6)], [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)
    constant = make_schedule({**CONFIG, "schedule": "plateau"})
    assert [constant(step) for step in range(6)] == [0.5] * 6


@pytest.mark.parametrize("freeze", [(), ("conv1_",)])
def test_an_update_and_its_norms(rng, freeze):
    """The result equals optax's single steps, also with frozen layers and a scaled learning rate."""
    params = params_like(jnp.asarray(rng.standard_normal((3, 4)), jnp.float32))
    gradients = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), params)
    optimizer = make_optimizer({**CONFIG, "freeze": freeze}, params)
    state = optimizer.init(params)
    for _ in range(2):  # the second update has a velocity
        updates, expected_state = optimizer.update(gradients, state, params, rate_scale=0.5)
        expected = optax.apply_updates(params, updates)
        params, state, norms = jax.jit(partial(apply_gradients, optimizer))(gradients, state, params, 0.5)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), (params, state), (expected, expected_state))
    for name, tree in {"gradient_norm": gradients, "parameter_norm": expected, "update_norm": updates}.items():
        np.testing.assert_allclose(norms[name], optax.tree.norm(tree), rtol=1e-6)


def test_a_gpus_sums_of_squares_equal_the_others(rng):
    """The program for GPUs sums all trees at once; here its sums are compared on this machine."""
    arrays = [jnp.asarray(rng.standard_normal((5, 7)), dtype) for dtype in (jnp.float32, jnp.float32, jnp.bfloat16)]
    together = jax.jit(sums._squared_together)(*arrays)
    np.testing.assert_allclose(together, [sums.sum_of_squares(x) for x in arrays], rtol=1e-6)
    assert {total.dtype for total in together} == {jnp.dtype(jnp.float32)}
