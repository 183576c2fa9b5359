"""Statistics of batch normalisation measured anew: the original's step "make BN layers testable"."""

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
    """Replaces running statistics by the mean of batch means and the mean of batch variances.

    As BN_make_INFERENCE_script.py does over 501 batches of 28 crops of the training data: the network normalises with
    every batch's own statistics while they are measured, over all devices together. Variances are biased and within a
    batch (the original's correction by m / (m - 1) divides integers, and is 1).

    Args:
      net: with batch normalisation.
      variables: of it; running statistics are not used.
      batches: this process's share of batches of the training data: "image" uint8 RGB [B, S, S, 3].
      count: how many of them to take, at least 1.
      progress: called with the batches done and `count`.

    Returns:
      New variables: other "batch_stats".

    Raises:
      InputError: if a statistic is no finite number.
    """
    # With this momentum "running" statistics are those of one batch alone.
    step = data_parallel(partial(_measure, net=net.clone(bn_momentum=0.0, bn_axis_name=AXIS_NAME)))
    sums = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    params = jax.tree.map(jnp.array, variables["params"])  # the step may reuse the memory of what it is given
    state = (params, sums)
    for done, batch in enumerate(islice(batches, count), 1):
        state, _ = step(state, place_batch({"image": batch["image"]}))
        progress(done, count)
    means = jax.tree.map(lambda total: total / count, first_replica(state[1]))
    for name, statistics in means.items():
        if not all(np.isfinite(values).all() for values in statistics.values()):
            raise InputError(f"the statistics of '{name}' are no finite numbers: the network's weights are damaged")
    return {**variables, "batch_stats": means}


def _measure(
    state: tuple[Layers, Layers], batch: dict[str, jax.Array], *, net: DeconvNet
) -> tuple[tuple[Layers, Layers], dict[str, jax.Array]]:
    params, sums = state
    fresh = jax.tree.map(jnp.zeros_like, sums)
    images = normalize_images(batch["image"])
    _, updates = net.apply({"params": params, "batch_stats": fresh}, images, train=True, mutable=["batch_stats"])
    return (params, jax.tree.map(jnp.add, sums, updates["batch_stats"])), {}
