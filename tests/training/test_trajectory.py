"""Compares five steps with the rule of the original's solver written out by hand, with a drop of the rate."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_deconvnet import to_torch, torch_forward

from deconvnet_jax.models import DeconvNet
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.training import (
    AXIS_NAME,
    create_state,
    data_parallel,
    init_variables,
    make_optimizer,
    segmentation_loss,
    train_step,
)

pytestmark = pytest.mark.end_to_end

SIZE = 64
NARROW = {"num_classes": 4, "width": 1 / 32, "fc_features": 8, "fc_window": 2, "decoder_init": "smooth"}
RATES = (0.02, 0.02, 0.02, 0.002, 0.002)  # training/00*/solver.prototxt has 0.01, 0.001, ...
MOMENTUM, DECAY = 0.9, 0.0005
OPTIMIZER = {
    "learning_rate": 0.02,
    "schedule": "step",
    "drops": (3,),
    "drop_factor": 0.1,
    "momentum": MOMENTUM,
    "weight_decay": DECAY,
    "decay_bn": True,
    "bias_rate": 2.0,
    "rates": (),
    "freeze": (),
}


def batches():
    """Yields fixed batches: in some others, two values of a window are so close that rounding picks the maximum."""
    rng = np.random.default_rng(11)
    for _ in RATES:
        labels = rng.integers(0, 4, (4, SIZE, SIZE))
        labels[rng.random(labels.shape) < 0.2] = 255
        yield {"image": rng.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8), "label": labels.astype(np.uint8)}


def caffe_update(params, velocity, gradients, rate):
    """Applies solver.cpp: v <- momentum v + rate (g + decay w), w <- w - v; biases: twice the rate, no decay."""
    for name, w in params.items():
        layer, part = name
        bias = part == "bias" and "bn" not in layer
        local_rate, local_decay = (2 * rate, 0) if bias else (rate, DECAY)
        velocity[name] = MOMENTUM * velocity[name] + local_rate * (gradients[name] + local_decay * w)
        params[name] = w - velocity[name]


def flat(tree):
    return {(layer, part): value for layer, parts in tree.items() for part, value in parts.items()}


def nested(params):
    tree = {}
    for (layer, part), value in params.items():
        tree.setdefault(layer, {})[part] = value
    return tree


def our_trajectory(net, variables):
    optimizer = make_optimizer(OPTIMIZER, variables["params"])
    options = {"net": net, "optimizer": optimizer, "axis_name": AXIS_NAME}
    step = data_parallel(partial(train_step, **options), jax.devices()[:1])
    state = create_state(variables, optimizer)
    for batch in batches():
        state, metrics = step(state, {key: value[None] for key, value in batch.items()})
    return flat(jax.device_get(state.variables["params"])), float(metrics["loss"])


def their_trajectory(variables, gradients_of):
    params = {name: np.asarray(value, np.float64) for name, value in flat(variables["params"]).items()}
    velocity = {name: np.zeros_like(value) for name, value in params.items()}
    for rate, batch in zip(RATES, batches(), strict=True):
        loss, gradients = gradients_of(params, batch)
        caffe_update(params, velocity, gradients, rate)
    return params, loss


def assert_same(found, expected, start):
    """Compares weights to 1e-5, and the distance they have moved to 0.1 %."""
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg="/".join(name))
    moved = np.sqrt(sum(np.sum((value - np.asarray(start[name])) ** 2) for name, value in expected.items()))
    apart = np.sqrt(sum(np.sum((found[name] - value) ** 2) for name, value in expected.items()))
    assert apart < 1e-3 * moved


def test_five_steps_equal_caffes_rule_in_numpy(shallow_here):
    net = DeconvNet(**NARROW)
    variables = jax.device_get(init_variables(net, seed=5))

    @jax.jit
    def value_and_gradients(params, image, label):
        def loss(params):
            images = normalize_images(image)
            logits, _ = net.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return segmentation_loss(logits, label)

        return jax.value_and_grad(loss)(params)

    def gradients_of(params, batch):
        params = jax.tree.map(jnp.float32, nested(params))
        loss, gradients = value_and_gradients(params, jnp.asarray(batch["image"]), jnp.asarray(batch["label"]))
        return float(loss), {name: np.asarray(value, np.float64) for name, value in flat(gradients).items()}

    found, loss = our_trajectory(net, variables)
    expected, expected_loss = their_trajectory(variables, gradients_of)
    assert_same(found, expected, flat(variables["params"]))
    assert loss == pytest.approx(expected_loss, rel=1e-4)


def test_five_steps_equal_caffes_rule_on_pytorchs_gradients():
    """In float64, rounding does not change a maximum; in float32, the error of one step would affect all later ones."""
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: pip install deconvnet_jax[reference]")
    mean = torch.tensor([104.00698793, 116.66876762, 122.67891434])[None, :, None, None]

    def gradients_of(params, batch):
        images = to_torch(torch, batch["image"][..., ::-1].astype(np.float32)) - mean
        logits, leaves = torch_forward(torch, {"params": nested(params)}, images.double(), 1e-5)
        labels = torch.tensor(batch["label"].astype(np.int64))
        loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)
        loss.backward()
        return loss.item(), {name: leaf.grad.numpy() for name, leaf in leaves.items()}

    with jax.enable_x64(True):
        net = DeconvNet(**NARROW, dtype=jnp.float64)
        variables = jax.device_get(init_variables(net, seed=5))
        variables = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables)
        found, loss = our_trajectory(net, variables)
    expected, expected_loss = their_trajectory(variables, gradients_of)
    assert_same(found, expected, flat(variables["params"]))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
