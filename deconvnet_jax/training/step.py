"""One update of the network from one batch, as each device runs it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import chex
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import DTypeLike

from deconvnet_jax.models import Layers, Network, Variables
from deconvnet_jax.ops import normalize_images, sum_of_squares
from deconvnet_jax.training.early_sums import Before, early_sums, large_layers, sum_over_devices
from deconvnet_jax.training.loss import pixel_sums, positive
from deconvnet_jax.training.optimizer import apply_gradients, is_batch_norm, is_frozen
from deconvnet_jax.training.parallel import BatchLayout
from deconvnet_jax.training.state import TrainState

Metrics = dict[str, Array]
Sums = tuple[Layers, tuple[Metrics, Layers]]  # gradients, parts of the metrics, running statistics


def train_step(
    state: TrainState,
    batch: dict[str, Array],
    *,
    net: Network,
    optimizer: optax.GradientTransformationExtraArgs,
    axis_name: str,
    layout: BatchLayout | None = None,
    seed: int = 0,
    freeze: Sequence[str] = (),
    class_weights: Sequence[float] | None = None,
    caffe_gradients: bool = False,
    all_reduce_dtype: DTypeLike = jnp.float32,
) -> tuple[TrainState, Metrics]:
    """One update of the parameters; runs under a mapped axis over devices.

    The loss is the (weighted) mean over the non-ignored pixels of the whole global batch, exact also when devices or
    micro-batches hold different numbers of them. Everything returned is reduced over the axis, so it is equal on every
    device.

    Args:
      state: the same on every device.
      batch: this device's share: "image" uint8 RGB [n, H, W, 3], "label" uint8 [n, H, W] class ids or 255.
      net, optimizer: what to train, and how (`make_optimizer`).
      axis_name: the mapped axis.
      layout: of the batch (`batch_layout`); None: what a device has is one micro-batch and one group. Running
        statistics move once a step, by the mean over all groups.
      seed: of dropout, where the network has it.
      freeze: prefixes of layer names that get no gradient; `make_optimizer` leaves them unchanged.
      class_weights: see `segmentation_loss`.
      caffe_gradients: as the original's Caffe accumulates groups: the loss is the mean over groups of each one's mean
        over pixels, and scale and shift of batch normalisation learn from the last group alone (solver.cpp,
        bn_layer.cpp).
      all_reduce_dtype: of the gradients while they are summed over devices; bfloat16 halves what is sent.

    Returns:
      The new state, and float32 scalars: "loss" (nats a pixel), "pixel_accuracy" (0..1), "gradient_norm" (of the loss
      alone), "parameter_norm" and "update_norm" (after and of the update), "finite" (1, or 0 if any of these or of the
      statistics is no finite number).
    """
    chex.assert_rank([batch["image"], batch["label"]], [4, 3])
    layout = layout or BatchLayout(devices=lax.axis_size(axis_name))
    params, batch_stats = state.variables["params"], state.variables.get("batch_stats", {})
    groups = jax.tree.map(partial(_divide, layout=layout), batch)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), lax.axis_index(axis_name))
    large = large_layers(params, freeze) if lax.axis_size(axis_name) > 1 else []

    def micro_batch(index: Array, crops: dict[str, Array], before: Before) -> Sums:
        """Sums over a micro-batch: gradients (`before`: see `early_sums`), parts of the metrics, running statistics."""
        keys = jax.random.split(jax.random.fold_in(key, index), layout.groups)
        last = _is_last(layout, index, axis_name) if caffe_gradients else None

        def loss(params: Layers) -> tuple[Array, tuple[Metrics, Layers]]:
            forward = partial(_group_sums, net=net, batch_stats=batch_stats, freeze=freeze, class_weights=class_weights)
            with early_sums(before, params, axis_name, all_reduce_dtype):
                sums, stats = jax.vmap(partial(forward, params))(crops, keys, last)
            if caffe_gradients:
                sums["loss"] /= positive(_over_group(sums["weight"], layout, axis_name)) * layout.total_groups
            sums, stats = jax.tree.map(lambda values: values.sum(axis=0), (sums, stats))
            return sums["loss"], (sums, stats)

        return jax.grad(loss, has_aux=True)(params)

    totals = _sum_over(micro_batch, groups, layout.micro_batches, large)
    gradients, sums, stats = _over_devices(totals, large, axis_name, all_reduce_dtype)
    weight = jnp.ones((), jnp.float32) if caffe_gradients else positive(sums["weight"])
    gradients = jax.tree.map(lambda g: g / weight, gradients)
    count = layout.micro_batches * layout.groups * lax.axis_size(axis_name)
    batch_stats = jax.tree.map(lambda total: total / count, stats)

    params, opt_state, norms = apply_gradients(optimizer, gradients, state.opt_state, params, state.plateau.scale)
    metrics = {
        "loss": sums["loss"] / weight,
        "pixel_accuracy": sums["correct"] / positive(sums["pixels"]),
        **norms,
    }
    metrics["finite"] = _all_finite(metrics, batch_stats)
    variables = {**state.variables, "params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
    return state.replace(step=state.step + 1, variables=variables, opt_state=opt_state), metrics


def _over_devices(
    totals: Sums, summed: Sequence[str], axis_name: str, dtype: DTypeLike
) -> tuple[Layers, Metrics, Layers]:
    """Gradients, parts of the metrics and running statistics summed over the axis, unless they are (`summed`)."""
    gradients, (sums, stats) = totals
    if lax.axis_size(axis_name) == 1:  # XLA would copy a gigabyte of gradients
        return gradients, sums, stats
    rest = {name: layer for name, layer in gradients.items() if name not in summed}
    sums, stats = lax.psum((sums, stats), axis_name)
    return {**gradients, **sum_over_devices(rest, axis_name, dtype)}, sums, stats


def _all_finite(metrics: Metrics, batch_stats: Layers) -> Array:
    """1.0, or 0.0 if a metric or a statistic is no finite number; norms are what shows it of gradients and weights."""
    statistics = [jnp.sqrt(sum_of_squares(batch_stats))] if batch_stats else []
    return jnp.all(jnp.isfinite(jnp.stack([*metrics.values(), *statistics]))).astype(jnp.float32)


def _divide(x: Array, layout: BatchLayout) -> Array:
    """[n, ...] -> [micro-batches, groups, crops, ...]."""
    return x.reshape(layout.micro_batches, layout.groups, -1, *x.shape[1:])


def _sum_over(micro_batch: Callable[..., Sums], groups: dict[str, Array], count: int, large: Sequence[str]) -> Sums:
    """Sums the results of all micro-batches one at a time, so that only one set of activations is alive.

    The last one is computed after the loop if there are large layers: its backward pass sums their gradients over
    devices, those of the other micro-batches included.
    """
    parts = jnp.arange(count), groups
    first = jax.tree.map(lambda x: x[0], parts)
    if count == 1:
        return micro_batch(*first, dict.fromkeys(large))
    one = partial(micro_batch, before={})
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, *first))

    def add(total: Sums, part: tuple[Array, dict[str, Array]]) -> tuple[Sums, None]:
        return jax.tree.map(jnp.add, total, one(*part)), None

    def loop(zeros: Sums, parts: tuple[Array, dict[str, Array]], unroll: bool = False) -> Sums:
        return lax.scan(add, zeros, parts, unroll=unroll)[0]

    looped = jax.tree.map(lambda x: x[:-1], parts) if large else parts
    # On CPU XLA compiles convolutions inside a loop to something 20 times slower.
    total = lax.platform_dependent(zeros, looped, cpu=partial(loop, unroll=True), default=loop)
    if not large:
        return total
    last = jax.tree.map(lambda x: x[-1], parts)
    total, last = lax.optimization_barrier((total, last))  # or XLA keeps activations of two micro-batches at once
    gradients, others = micro_batch(*last, {name: total[0][name] for name in large})
    added, others = jax.tree.map(jnp.add, total, (gradients, others))
    return {**added, **{name: gradients[name] for name in large}}, others


def _group_sums(
    params: Layers,
    batch: dict[str, Array],
    key: Array,
    last: Array | None,
    *,
    net: Network,
    batch_stats: Layers,
    freeze: Sequence[str],
    class_weights: Sequence[float] | None,
) -> tuple[Metrics, Layers]:
    """`pixel_sums` of a group, and the running statistics after it."""
    params = {name: _learning(name, layer, freeze, last) for name, layer in params.items()}
    variables = {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}
    images = normalize_images(batch["image"])
    logits, updates = net.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    return pixel_sums(logits, batch["label"], class_weights=class_weights), cast(Variables, updates).get(
        "batch_stats", {}
    )


def _learning(name: str, layer: dict[str, Array], freeze: Sequence[str], last: Array | None) -> dict[str, Array]:
    """A layer's parameters, without gradient if they are frozen, or learn from the last group and it is not."""
    if is_frozen(name, freeze):
        return lax.stop_gradient(layer)
    if last is None or not is_batch_norm(name):
        return layer
    return jax.tree.map(lambda leaf: jnp.where(last, leaf, lax.stop_gradient(leaf)), layer)


def _is_last(layout: BatchLayout, micro_batch: Array, axis_name: str) -> Array:
    """bool [groups]: which group of a device's micro-batch is the last of the global batch."""
    device = lax.axis_index(axis_name) // layout.devices_a_group == layout.devices // layout.devices_a_group - 1
    return device & (micro_batch == layout.micro_batches - 1) & (jnp.arange(layout.groups) == layout.groups - 1)


def _over_group(values: Array, layout: BatchLayout, axis_name: str) -> Array:
    """Sums over the devices that share a group."""
    if layout.devices_a_group == 1:
        return values
    return lax.psum(values, axis_name, axis_index_groups=layout.device_groups)
