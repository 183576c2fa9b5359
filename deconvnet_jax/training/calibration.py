"""Re-estimates the running statistics of batch normalisation: the original's step "make BN layers testable"."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet, Layers, Variables
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.training.parallel import AXIS_NAME, data_parallel, first_replica, place_batch


def calibrate_batch_norm(
    net: DeconvNet,
    variables: Variables,
    batches: Iterator[dict[str, np.ndarray]],
    count: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Variables:
    """Replaces the running statistics by the mean of the batch means and the mean of the batch variances.

    BN_make_INFERENCE_script.py of the original does this over 501 batches of 28 crops of the training data. Meanwhile
    the network normalises with the statistics of each batch. A batch extends over all devices of all processes: means
    and variances are averaged over the mapped axis. Variances are biased and taken within a batch. The original's
    correction by m / (m - 1) divides integers, so it is 1.

    Args:
      net: a network with batch normalisation.
      variables: {"params", "batch_stats"} of `net`, float32; the values of "batch_stats" are not used.
      batches: this process's share of every batch of training data, with "image" uint8 RGB [B, S, S, 3].
      count: the number of batches to use, at least 1. If `batches` ends earlier, the sums are still divided by `count`.
      progress: called after every batch with the number of batches done and `count`.

    Returns:
      {"params", "batch_stats"}: the same parameters, and the new statistics, float32, on the first device.

    Raises:
      InputError: if a statistic is NaN or infinite.
    """
    # With a momentum of 0 the network's "running" statistics are those of the last batch alone.
    step = data_parallel(partial(_measure, net=net.clone(bn_momentum=0.0, bn_axis_name=AXIS_NAME)))
    sums = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    params = jax.tree.map(jnp.array, variables["params"])  # a copy, because the step reuses the memory of its arguments
    state = (params, sums)
    for done, batch in enumerate(islice(batches, count), 1):
        state, _ = step(state, place_batch({"image": batch["image"]}))
        progress(done, count)
    means = jax.tree.map(lambda total: total / count, first_replica(state[1]))
    for name, statistics in means.items():
        if not all(np.isfinite(values).all() for values in statistics.values()):
            raise InputError(
                f"the statistics of '{name}' are not finite: the network's weights are damaged; load another checkpoint"
            )
    return {**variables, "batch_stats": means}


def _measure(
    state: tuple[Layers, Layers], batch: dict[str, jax.Array], *, net: DeconvNet
) -> tuple[tuple[Layers, Layers], dict[str, jax.Array]]:
    """Adds the statistics of one batch to the sums; runs under the mapped axis."""
    params, sums = state
    fresh = jax.tree.map(jnp.zeros_like, sums)
    images = normalize_images(batch["image"])
    _, updates = net.apply({"params": params, "batch_stats": fresh}, images, train=True, mutable=["batch_stats"])
    return (params, jax.tree.map(jnp.add, sums, updates["batch_stats"])), {}
