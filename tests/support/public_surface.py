"""Calls the public functions that run on the accelerator, and prints one line per failure.

JAX's environment variables choose the platform and the precision.
"""

import sys
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deconvnet_jax import ops
from deconvnet_jax.data import propose_boxes
from deconvnet_jax.inference import Segmenter
from deconvnet_jax.models import DeconvNet, EdgeNetwork, FCN8s, fold_batch_norm
from deconvnet_jax.models.deconvnet import DECODER_WIDTHS, ENCODER_WIDTHS
from deconvnet_jax.proposals.edge_training import edge_loss
from deconvnet_jax.training import (
    AXIS_NAME,
    batch_layout,
    calibrate_batch_norm,
    create_state,
    data_parallel,
    init_variables,
    make_optimizer,
    place_batch,
    segmentation_loss,
    train_step,
)

for block in ENCODER_WIDTHS:  # One layer per block is enough for these checks.
    ENCODER_WIDTHS[block] = ENCODER_WIDTHS[block][:1]
    DECODER_WIDTHS[block] = DECODER_WIDTHS[block][-1:]

OPTIMIZER = {
    "learning_rate": 0.01,
    "schedule": "step",
    "drops": (3,),
    "drop_factor": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "decay_bn": True,
    "bias_rate": 2.0,
    "rates": (),
    "freeze": (),
}
NET = DeconvNet(num_classes=3, width=1 / 32, fc_features=8, fc_window=1, decoder_init="smooth")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
LABELS = RNG.integers(0, 3, (4, 32, 32), np.uint8)
UNARY = RNG.random((12, 10, 3)).astype(np.float32)
FAILURES: list[str] = []


def check(name: str, call: Callable[[], object]) -> None:
    """Runs a call and reports it as failed unless its results are finite and none is float64."""
    try:
        leaves = jax.tree.leaves(call())
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves), "results are not finite"
        wide = [leaf for leaf in leaves if isinstance(leaf, Array) and leaf.dtype == jnp.float64]
        assert not wide, "float32 became float64"
    except Exception as error:  # Any failure is reported, and the other calls are still made.
        FAILURES.append(name)
        print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)


def check_ops() -> None:
    """Checks the functions in `ops` that compute with JAX."""
    x = jnp.asarray(RNG.standard_normal((2, 8, 8, 3)), jnp.float32)
    pooled, indices = ops.max_pool_with_indices(x, 2)
    check("max_pool_with_indices", lambda: jax.grad(lambda x: ops.max_pool_with_indices(x, 3, 2, 1)[0].sum())(x))
    for window in (None, 2):
        unpool = partial(ops.max_unpool, output_size=(8, 8), window=window)
        check(f"max_unpool window={window}", lambda unpool=unpool: jax.grad(lambda p: unpool(p, indices).sum())(pooled))
    check("channel_sums", lambda: ops.channel_sums(x))
    check("sum_of_squares", lambda: ops.sum_of_squares([x, jnp.float32(1)]))
    check("normalize_images", lambda: ops.normalize_images(IMAGES))
    image = IMAGES[0, :12, :10]
    for normalization in ("none", "symmetric"):
        for method in ("lattice", "exact"):
            crf = partial(ops.dense_crf, iterations=2, normalization=normalization, method=method)
            name = f"dense_crf {normalization} {method}"
            check(name, lambda crf=crf: crf(UNARY, image))
    crf = partial(ops.dense_crf, iterations=2, normalization="symmetric")
    check("dense_crf jit", lambda: jax.jit(jax.grad(lambda u, i: crf(u, i)[..., 0].sum()))(UNARY, image))


def check_models() -> None:
    """Checks the forward and backward passes of the networks."""
    images = ops.normalize_images(IMAGES)
    variables = init_variables(NET, 0)
    check("DeconvNet", lambda: jax.jit(NET.apply)(variables, images))
    folded = fold_batch_norm(NET, variables)
    check("fold_batch_norm", lambda: folded[0].apply(folded[1], images))
    fcn = FCN8s(num_classes=3, width=1 / 32, fc_features=8)
    check("FCN8s", lambda: jax.jit(fcn.apply)(init_variables(fcn, 0), images))
    edges = EdgeNetwork()
    params = jax.jit(edges.init)(jax.random.key(0), IMAGES)["params"]
    targets = jnp.zeros((4, 32, 32), jnp.float32)
    check("edge network", lambda: jax.jit(jax.grad(edge_loss), static_argnums=1)(params, edges, IMAGES, targets))


def check_training() -> None:
    """Checks the loss, the train step in its variants, and the calibration."""
    check("segmentation_loss", lambda: segmentation_loss(jnp.zeros((4, 32, 32, 3)).astype(jnp.float32), LABELS))
    variables = init_variables(NET, 0)
    for accumulate, caffe in ((1, False), (2, True)):
        optimizer = make_optimizer(OPTIMIZER, variables["params"])
        layout = batch_layout(4, 1, 4 // accumulate, 2)
        step = partial(train_step, net=NET, optimizer=optimizer, axis_name=AXIS_NAME, layout=layout)
        step = partial(step, caffe_gradients=caffe, class_weights=(1.0, 2.0, 1.0))

        def update(step: Callable = step, optimizer: object = optimizer) -> object:
            devices = jax.devices()[:1]
            state = create_state(jax.tree.map(jnp.array, variables), optimizer)
            state, metrics = data_parallel(step, devices)(
                state, place_batch({"image": IMAGES, "label": LABELS}, devices)
            )
            return state.variables, state.opt_state, metrics

        check(f"train_step in {accumulate} micro-batches", update)
    batches = [{"image": IMAGES}] * 2
    check("calibrate_batch_norm", lambda: calibrate_batch_norm(NET, variables, iter(batches), 2))


def check_inference() -> None:
    """Checks proposals, and the Segmenter on windows and whole images, flipped, with both CRFs."""
    photograph = RNG.integers(0, 256, (40, 48, 3), np.uint8)
    check("propose_boxes", lambda: propose_boxes(photograph, 5))
    segmenter = Segmenter(NET, init_variables(NET, 0), ("a", "b", "c"), 32)
    for mode, crf in (("paper", "usual"), ("released", "released"), ("whole_image", "none")):
        changed = segmenter.changed(mode=mode, crf=crf, flip=True, num_proposals=3, batch_size=2)
        check(f"Segmenter {mode}", lambda changed=changed: changed(photograph)[:2])


if __name__ == "__main__":
    check_ops()
    check_models()
    check_training()
    check_inference()
    sys.exit(bool(FAILURES))
