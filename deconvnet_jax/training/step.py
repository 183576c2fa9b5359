"""One update of the network from one batch, as each device runs it."""

from collections.abc import Sequence

import chex
import jax
import optax
from jax import Array, lax

from deconvnet_jax.models import DeconvNet
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.training.loss import pixel_sums, positive
from deconvnet_jax.training.optimizer import is_frozen
from deconvnet_jax.training.state import TrainState

Metrics = dict[str, Array]


def train_step(
    state: TrainState,
    batch: dict[str, Array],
    *,
    net: DeconvNet,
    optimizer: optax.GradientTransformation,
    axis_name: str,
    freeze: Sequence[str] = (),
    class_weights: Sequence[float] | None = None,
) -> tuple[TrainState, Metrics]:
    """One update of the parameters; runs under a mapped axis over devices.

    The loss is the (weighted) mean over the non-ignored pixels of the whole global batch, exact also when devices hold
    different numbers of them. Everything returned is reduced over the axis, so it is equal on every device.

    Args:
      state: the same on every device.
      batch: this device's share: "image" uint8 RGB [n, H, W, 3], "label" uint8 [n, H, W] class ids or 255.
      net, optimizer: what to train, and how.
      axis_name: the mapped axis.
      freeze: prefixes of layer names that get no gradient; `make_optimizer` leaves them unchanged.
      class_weights: see `segmentation_loss`.

    Returns:
      The new state, and float32 scalars: "loss" (nats a pixel), "pixel_accuracy" (0..1), "gradient_norm".
    """
    chex.assert_rank([batch["image"], batch["label"]], [4, 3])
    images = normalize_images(batch["image"])
    params, batch_stats = state.variables["params"], state.variables["batch_stats"]

    def loss_sum(params: chex.ArrayTree) -> tuple[Array, tuple[Metrics, chex.ArrayTree]]:
        variables = {"params": _stop_gradients(params, freeze), "batch_stats": batch_stats}
        logits, updates = net.apply(variables, images, train=True, mutable=["batch_stats"])
        sums = pixel_sums(logits, batch["label"], class_weights=class_weights)
        return sums["loss"], (sums, updates["batch_stats"])

    gradients, (sums, batch_stats) = jax.grad(loss_sum, has_aux=True)(params)
    gradients, sums = lax.psum((gradients, sums), axis_name)
    batch_stats = lax.pmean(batch_stats, axis_name)
    weight = positive(sums["weight"])
    gradients = jax.tree.map(lambda g: g / weight, gradients)

    updates, opt_state = optimizer.update(gradients, state.opt_state, params)
    variables = {"params": optax.apply_updates(params, updates), "batch_stats": batch_stats}
    metrics = {
        "loss": sums["loss"] / weight,
        "pixel_accuracy": sums["correct"] / positive(sums["pixels"]),
        "gradient_norm": optax.tree.norm(gradients),
    }
    return TrainState(state.step + 1, variables, opt_state), metrics


def _stop_gradients(params: chex.ArrayTree, freeze: Sequence[str]) -> chex.ArrayTree:
    return {name: lax.stop_gradient(layer) if is_frozen(name, freeze) else layer for name, layer in params.items()}
