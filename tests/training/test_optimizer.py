"""Compares momentum SGD with the original's rule by hand, AdamW with PyTorch, schedules with their formulas."""

from functools import partial
from math import cos, pi

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
        ({"name": "adam"}, "config.optimizer.name='adam': unknown; expected sgd or adamw"),
        ({"schedule": "cosine"}, "schedule=cosine needs the step .* give --config.optimizer.decay_steps=STEP, usually"),
        (
            {"schedule": "poly", "decay_steps": 5, "warmup_steps": 5},
            "decay_steps=5: expected more than config.optimizer.warmup_steps=5",
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


def rate_by_hand(schedule, done, warmup, end=20, lowest=0.05, power=0.9):
    """Returns the learning rate of the update after `done` others, with drops by 0.1 at the steps 8 and 12."""
    past = min(max(done - warmup, 0) / (end - warmup), 1)
    factor = {
        "step": 0.1 ** sum(done >= drop for drop in (8, 12)),
        "plateau": 1.0,
        "poly": lowest + (1 - lowest) * (1 - past) ** power,
        "cosine": lowest + (1 - lowest) * (1 + cos(pi * past)) / 2,
    }[schedule]
    return 0.3 * factor * (min((done + 1) / warmup, 1) if warmup else 1)


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_of_all_schedules_with_and_without_warm_up(name, warmup):
    settings = {"schedule": name, "drops": (8, 12), "decay_steps": 20, "end_factor": 0.05, "power": 0.9}
    schedule = make_schedule({**CONFIG, **settings, "learning_rate": 0.3, "warmup_steps": warmup})
    steps = [*range(22), 1_000, 2**31 - 1]
    found = [float(schedule(jnp.int32(step))) for step in steps]
    np.testing.assert_allclose(found, [rate_by_hand(name, step, warmup) for step in steps], rtol=1e-5)
    assert found[max(warmup - 1, 0)] == pytest.approx(max(found))
    if SCHEDULES[name].has_end:
        assert found[19] > found[20] == pytest.approx(0.3 * 0.05) == found[-1]


def test_adamw_equals_pytorch(rng):
    """Kernels decay, biases and batch normalisation do not. The rate of a layer scales its decay too."""
    torch = pytest.importorskip("torch")
    rates = (0.0625, 0.125, 0.1875, 0.25, 0.25, 0.125, 0.125, 0.125)  # float32 holds them exactly
    schedule = {"learning_rate": 0.25, "warmup_steps": 4, "drops": (5,), "drop_factor": 0.5}
    adam = {"name": "adamw", "b1": 0.8, "b2": 0.95, "eps": 1e-6, "weight_decay": 0.3}
    config = {**CONFIG, **schedule, **adam, "rates": (("seg", 0.5),), "freeze": ("conv1_",)}
    with jax.enable_x64(True):
        params = params_like(jnp.asarray(rng.standard_normal((3, 4))))
        optimizer = make_optimizer(config, params)
        state = optimizer.init(params)
        expected = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf), requires_grad=True), params)
        groups = [
            {"params": [leaf], "weight_decay": 0.3 if part == "kernel" else 0.0, "factor": 0.5 if "seg" in layer else 1}
            for layer, parts in expected.items()
            for part, leaf in parts.items()
            if layer != "conv1_1"
        ]
        reference = torch.optim.AdamW(groups, lr=0.3, betas=(0.8, 0.95), eps=1e-6)
        for rate in rates:
            gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), params)
            updates, state = optimizer.update(gradients, state, params, rate_scale=0.5)
            params = optax.apply_updates(params, updates)
            for group in reference.param_groups:
                group["lr"] = rate * group["factor"] * 0.5
            for layer, parts in expected.items():
                for part, leaf in parts.items():
                    leaf.grad = torch.tensor(np.array(gradients[layer][part]))
            reference.step()
            jax.tree.map(
                lambda ours, theirs: np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9),
                params,
                expected,
            )
    assert params["conv1_1"]["kernel"].dtype == np.float64


def test_settings_of_older_configs_give_sgd():
    """A config without the newer settings has the optimizer, and the structure of the state, that it always had."""
    params = params_like(jnp.ones(()))
    newer = {"name": "sgd", "b1": 0.9, "b2": 0.999, "eps": 1e-8, "warmup_steps": 0, "decay_steps": 0, "power": 0.9}
    states = [make_optimizer(config, params).init(params) for config in (CONFIG, {**CONFIG, **newer})]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert [type(part).__name__ for part in states[0]] == [
        "MaskedState", "ScaleByScheduleState", "EmptyState", "TraceState", "MaskedState",
    ]  # fmt: skip


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
