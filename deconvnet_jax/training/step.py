"""Computes one update of the network from one batch, as each device runs it under a mapped axis.

The state has no device axis and is equal on all devices. A device's share of the batch, [n, H, W, 3] and [n, H, W], is
reshaped to [micro_batches, groups, crops, ...] (`BatchLayout`). Micro-batches run one after the other. The groups of a
micro-batch run at the same time, by `jax.vmap`; each is normalised with its own batch statistics.

Reductions over devices, in this order:

1. In the network, if its `bn_axis_name` is set: `pmean` of the moments of every batch normalisation, float32 [2, C] per
   group, over the devices that share a group; in the backward pass, of their gradients, [2, C] too.
2. With `caffe_gradients`, if a group spans several devices: `psum` of the weights, float32 [groups], over them.
3. In the backward pass of the last micro-batch: `psum` over all devices of the gradients of the largest layers, as
   `all_reduce_dtype` (`early_sums`). They are complete: those of the earlier micro-batches are added before.
4. After the last micro-batch: `psum` over all devices of all other gradients, as `all_reduce_dtype`; of four float32
   scalars (`pixel_sums`); and of the running statistics, float32 [C] each.

Then every device computes the same update from the same arrays. On a single device there is no `psum` of 3 and 4.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import DTypeLike

from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.models import Layers, Network, Variables
from deconvnet_jax.ops import normalize_images, sum_of_squares
from deconvnet_jax.training.averages import update_averages
from deconvnet_jax.training.early_sums import Before, early_sums, large_layers, sum_over_devices
from deconvnet_jax.training.loss import pixel_sums, positive
from deconvnet_jax.training.optimizer import apply_gradients, is_batch_norm, is_frozen
from deconvnet_jax.training.parallel import BatchLayout
from deconvnet_jax.training.state import TrainState

Metrics = dict[str, Array]
Sums = tuple[Layers, tuple[Metrics, Layers]]  # gradients; `pixel_sums` and running statistics


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
    ema_decay: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one update, and the metrics of the batch; runs under a mapped axis over devices.

    The loss is the (weighted) mean over all pixels of the global batch that are not ignored. It is exact even if they
    are distributed unevenly over devices and micro-batches: sums are divided after all reductions (see the module).

    Args:
      state: the state, float32, equal on every device.
      batch: this device's share: "image" uint8 RGB [n, H, W, 3] and "label" uint8 [n, H, W], class ids or 255.
      net: the network; its `bn_axis_name` and `bn_axis_groups` must fit `layout` (`make_step` sets them).
      optimizer: the result of `make_optimizer`.
      axis_name: the mapped axis over devices.
      layout: how the global batch is divided (`batch_layout`); None for one micro-batch and one group per device.
      seed: the seed of dropout; step, device, micro-batch and group are folded in.
      freeze: prefixes of the names of layers that get no gradient; `make_optimizer` leaves them unchanged.
      class_weights: [K], the weight of each class in the loss; None weights all pixels alike.
      caffe_gradients: True computes the loss as Caffe accumulates it: the mean over groups of each group's mean over
        pixels. Scale and shift of batch normalisation then learn from the last group only (solver.cpp, bn_layer.cpp).
      all_reduce_dtype: the gradients are cast to it for `psum`; bfloat16 halves the bytes that are sent.
      ema_decay: decay of the state's averages (`update_averages`); not used if the state has none.

    Returns:
      The new state, in which running statistics are the mean over all groups; and float32 scalars: "loss" in nats per
      pixel, "pixel_accuracy" 0..1, the L2 norms "gradient_norm" (of the loss, without weight decay), "parameter_norm"
      (after the update) and "update_norm", and "finite", 1 or, if any of these or a statistic is not finite, 0. All of
      them are equal on every device.
    """
    check_arrays("train_step", image=(batch["image"], "N H W 3", "uint8"), label=(batch["label"], "N H W", "integer"))
    layout = layout or BatchLayout(devices=lax.axis_size(axis_name))
    params, batch_stats = state.variables["params"], state.variables.get("batch_stats", {})
    groups = jax.tree.map(partial(_divide, layout=layout), batch)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), state.step), lax.axis_index(axis_name))
    large = large_layers(params, freeze) if lax.axis_size(axis_name) > 1 else []

    forward = partial(_group_sums, net=net, batch_stats=batch_stats, freeze=freeze, class_weights=class_weights)
    options = {"layout": layout, "axis_name": axis_name, "caffe_gradients": caffe_gradients, "dtype": all_reduce_dtype}
    micro_batch = partial(_micro_batch_sums, params=params, key=key, forward=forward, **options)
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
    averages = state.averages and update_averages(state.averages, variables, state.step, ema_decay)
    return state.replace(step=state.step + 1, variables=variables, opt_state=opt_state, averages=averages), metrics


def _micro_batch_sums(
    index: Array,
    crops: dict[str, Array],
    before: Before,
    *,
    params: Layers,
    key: Array,
    forward: Callable[..., tuple[Metrics, Layers]],
    layout: BatchLayout,
    axis_name: str,
    caffe_gradients: bool,
    dtype: DTypeLike,
) -> Sums:
    """Returns the gradients, the `pixel_sums` and the running statistics of a micro-batch, summed over its groups.

    Args:
      index: int32 scalar, the number of the micro-batch.
      crops: "image" [groups, crops, H, W, 3] and "label" [groups, crops, H, W].
      before: {layer: gradient or None}, the layers whose gradients come back summed over devices (`early_sums`); all
        other results are this device's own.
      params: the parameters by which the loss is differentiated.
      key: this device's random key for the step.
      forward: `_group_sums` of one group.
      layout: how the global batch is divided.
      axis_name: the mapped axis over devices.
      caffe_gradients: see `train_step`.
      dtype: the dtype of gradients in the all-reduces of `early_sums`.
    """
    keys = jax.random.split(jax.random.fold_in(key, index), layout.groups)
    last = _is_last(layout, index, axis_name) if caffe_gradients else None

    def loss(params: Layers) -> tuple[Array, tuple[Metrics, Layers]]:
        with early_sums(before, params, axis_name, dtype):
            sums, stats = jax.vmap(partial(forward, params))(crops, keys, last)
        if caffe_gradients:
            sums["loss"] /= positive(_over_group(sums["weight"], layout, axis_name)) * layout.total_groups
        sums, stats = jax.tree.map(lambda values: values.sum(axis=0), (sums, stats))
        return sums["loss"], (sums, stats)

    return jax.grad(loss, has_aux=True)(params)


def _over_devices(
    totals: Sums, summed: Sequence[str], axis_name: str, dtype: DTypeLike
) -> tuple[Layers, Metrics, Layers]:
    """Returns gradients, `pixel_sums` and running statistics summed over the axis; the layers `summed` already are."""
    gradients, (sums, stats) = totals
    if lax.axis_size(axis_name) == 1:  # a psum over one device would make XLA copy a gigabyte of gradients
        return gradients, sums, stats
    rest = {name: layer for name, layer in gradients.items() if name not in summed}
    sums, stats = lax.psum((sums, stats), axis_name)
    return {**gradients, **sum_over_devices(rest, axis_name, dtype)}, sums, stats


def _all_finite(metrics: Metrics, batch_stats: Layers) -> Array:
    """Returns 1.0 if all metrics and statistics are finite, else 0.0; the norms cover gradients and parameters."""
    statistics = [jnp.sqrt(sum_of_squares(batch_stats))] if batch_stats else []
    return jnp.all(jnp.isfinite(jnp.stack([*metrics.values(), *statistics]))).astype(jnp.float32)


def _divide(x: Array, layout: BatchLayout) -> Array:
    """Reshapes [n, ...] to [micro_batches, groups, crops, ...]."""
    return x.reshape(layout.micro_batches, layout.groups, -1, *x.shape[1:])


def _sum_over(micro_batch: Callable[..., Sums], groups: dict[str, Array], count: int, large: Sequence[str]) -> Sums:
    """Sums the results of all micro-batches one at a time, so that only one set of activations is alive.

    If there are large layers, the last micro-batch runs after the loop. Its backward pass adds the large gradients of
    the earlier micro-batches and sums them over devices.

    Args:
      micro_batch: takes the number of a micro-batch, its crops and `before` (`_micro_batch_sums`).
      groups: {name: array [micro_batches, groups, crops, ...]}.
      count: the number of micro-batches.
      large: the layers whose gradients are summed over devices early; empty on one device.

    Returns:
      The sums of this device, except for the gradients of the layers `large`, which are summed over all devices.
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
    # On a CPU, XLA compiles convolutions inside a loop to code that is 20 times slower.
    total = lax.platform_dependent(zeros, looped, cpu=partial(loop, unroll=True), default=loop)
    if not large:
        return total
    last = jax.tree.map(lambda x: x[-1], parts)
    total, last = lax.optimization_barrier((total, last))  # otherwise XLA keeps the activations of two micro-batches
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
    """Returns the `pixel_sums` of one group, "image" [crops, H, W, 3], and the running statistics after it."""
    params = {name: _learning(name, layer, freeze, last) for name, layer in params.items()}
    variables = {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}
    images = normalize_images(batch["image"])
    logits, updates = net.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    return pixel_sums(logits, batch["label"], class_weights=class_weights), cast(Variables, updates).get(
        "batch_stats", {}
    )


def _learning(name: str, layer: dict[str, Array], freeze: Sequence[str], last: Array | None) -> dict[str, Array]:
    """Returns a layer's parameters, with their gradient stopped if they do not learn from this group.

    Args:
      name: the name of the layer.
      layer: {part: array}, its parameters.
      freeze: prefixes of the names of layers that never learn.
      last: bool scalar, whether this group is the last one, from which alone batch normalisation learns; None if it
        learns from all groups.
    """
    if is_frozen(name, freeze):
        return lax.stop_gradient(layer)
    if last is None or not is_batch_norm(name):
        return layer
    return jax.tree.map(lambda leaf: jnp.where(last, leaf, lax.stop_gradient(leaf)), layer)


def _is_last(layout: BatchLayout, micro_batch: Array, axis_name: str) -> Array:
    """Returns bool [groups], True for the group of this device's micro-batch that is the last of the global batch."""
    device = lax.axis_index(axis_name) // layout.devices_a_group == layout.devices // layout.devices_a_group - 1
    return device & (micro_batch == layout.micro_batches - 1) & (jnp.arange(layout.groups) == layout.groups - 1)


def _over_group(values: Array, layout: BatchLayout, axis_name: str) -> Array:
    """Returns values [groups] summed over the devices that share a group."""
    if layout.devices_a_group == 1:
        return values
    return lax.psum(values, axis_name, axis_index_groups=layout.device_groups)
