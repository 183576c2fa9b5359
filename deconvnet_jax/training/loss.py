"""The per-pixel softmax loss (original: SOFTMAX_LOSS with ignore_label 255, normalised by the pixels that count)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from deconvnet_jax.labels import IGNORE, check_ignore_label


def segmentation_loss(
    logits: Array, labels: Array, ignore_label: int = IGNORE, class_weights: ArrayLike | Sequence[float] | None = None
) -> Array:
    """Mean cross entropy over the non-ignored pixels of the whole batch; 0 if there is none.

    Args:
      logits: [N, H, W, K], floating point; the computation is in float32.
      labels: [N, H, W], integer class ids 0..K-1, or `ignore_label`.
      ignore_label: id of pixels that do not count.
      class_weights: [K], how much a pixel of each class counts in the (weighted) mean; None: all alike.

    Returns:
      A float32 scalar, nats per pixel.

    Raises:
      InputError: if `ignore_label` is 255 and there are more than 255 classes.
    """
    sums = pixel_sums(logits, labels, ignore_label, class_weights)
    return sums["loss"] / positive(sums["weight"])


def positive(total: Array) -> Array:
    """A total to divide by: itself, or 1 where nothing was counted."""
    return jnp.where(total > 0, total, 1)


def class_weights_of(config: Mapping[str, Any], count_pixels: Callable[[], np.ndarray]) -> list[float] | None:
    """Returns the weights of the classes in the loss, or None if every pixel counts the same.

    Training (experiments/common/training.py) and `experiments.compile` both call it: the compiled step has weights if
    the step that trains has them. A new rule for the weights belongs here.

    Args:
      config: the experiment's settings; `class_balance` is read.
      count_pixels: returns the number of pixels of each class in the training data, [K]; called only for weights.
    """
    balance = config["class_balance"]
    return balanced_class_weights(count_pixels(), balance).tolist() if balance else None


def balanced_class_weights(pixels: np.ndarray, balance: float) -> np.ndarray:
    """Returns the weights share ** -balance, by each class's share of the pixels.

    `class_weights_of` calls it with the setting `class_balance`.

    Args:
      pixels: [K], number of pixels of each class in the training split without ignored ones (`data.class_pixels`).
      balance: from 0 (every pixel counts the same in the loss) to 1 (every class counts the same).

    Returns:
      float32 [K], 1 on average over the pixels; 0 for a class without any.
    """
    shares = np.asarray(pixels, np.float64) / max(1, np.sum(pixels))
    weights = np.where(shares > 0, np.maximum(shares, 1e-12) ** -balance, 0)
    return (weights / max(1e-12, np.sum(weights * shares))).astype(np.float32)


def pixel_sums(
    logits: Array, labels: Array, ignore_label: int = IGNORE, class_weights: ArrayLike | Sequence[float] | None = None
) -> dict[str, Array]:
    """What a mean over several devices is made of: sums over the non-ignored pixels, float32 scalars.

    Returns "loss" (weighted cross entropy), "weight" (of the pixels in it; their number without weights), "correct"
    (pixels whose greatest score is the label's) and "pixels" (their number).
    """
    chex.assert_rank([logits, labels], [4, 3])
    chex.assert_equal_shape_prefix([logits, labels], 3)
    chex.assert_type([logits, labels], [float, int])
    check_ignore_label(logits.shape[-1], ignore_label)
    logits = logits.astype(jnp.float32)
    labels = labels.astype(jnp.int32)  # 255 as int8 would be -1
    counts = labels != ignore_label
    # The log probability of the label by selection: the gradient of a gather is a scatter, slow on every platform.
    is_label = labels[..., None] == jnp.arange(logits.shape[-1])
    log_likelihood = jnp.sum(jnp.where(is_label, jax.nn.log_softmax(logits), 0), axis=-1)
    weight = counts.astype(jnp.float32)
    if class_weights is not None:
        class_weights = jnp.asarray(class_weights, jnp.float32)
        chex.assert_shape(class_weights, (logits.shape[-1],))
        weight *= jnp.sum(jnp.where(is_label, class_weights, 0), axis=-1)
    return {
        "loss": -jnp.sum(jnp.where(counts, log_likelihood * weight, 0)),
        "weight": jnp.sum(weight),
        "correct": jnp.sum(counts & (jnp.argmax(logits, axis=-1) == labels), dtype=jnp.float32),
        "pixels": jnp.sum(counts, dtype=jnp.float32),
    }
