"""Computes the per-pixel softmax loss and the class weights in it.

The original's layer is SOFTMAX_LOSS with ignore_label 255, normalised by the number of pixels that are not ignored.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from deconvnet_jax.array_checks import check_arrays, host_array
from deconvnet_jax.errors import InputError
from deconvnet_jax.labels import IGNORE, check_ignore_label


def segmentation_loss(
    logits: Array, labels: Array, ignore_label: int = IGNORE, class_weights: ArrayLike | Sequence[float] | None = None
) -> Array:
    """Returns the mean cross entropy over all pixels of a batch that are not ignored.

    On one device only: over several, `train_step` sums `pixel_sums` over the devices and divides once.

    Args:
      logits: [N, H, W, K], any floating-point dtype; computed in float32.
      labels: [N, H, W], any integer dtype: class ids 0..K-1, or `ignore_label`.
      ignore_label: the id of pixels that do not count.
      class_weights: [K], the weight of a pixel of each class in a weighted mean; None weights all pixels alike.

    Returns:
      float32 scalar in nats per pixel; 0, with a gradient of 0, if all pixels are ignored.

    Raises:
      InputError: if an array has another shape or dtype, or `ignore_label` is 255 and there are more than 255 classes.

    Example:
      >>> import jax.numpy as jnp
      >>> logits = jnp.zeros((1, 2, 2, 4))  # equal scores: each of the four classes has the probability 1/4
      >>> labels = jnp.array([[[0, 1], [3, 255]]])  # the last pixel is ignored
      >>> print(f"{segmentation_loss(logits, labels):.3f}")  # log(4)
      1.386
    """
    sums = pixel_sums(logits, labels, ignore_label, class_weights)
    return sums["loss"] / positive(sums["weight"])


def positive(total: Array) -> Array:
    """Returns a divisor that is never 0.

    Args:
      total: a count or a sum of weights, at least 0, any shape.

    Returns:
      `total`, with 1 in place of 0.
    """
    return jnp.where(total > 0, total, 1)


def class_weights_of(config: Mapping[str, Any], count_pixels: Callable[[], np.ndarray]) -> list[float] | None:
    """Returns the class weights of the loss that a config asks for.

    A new rule for the weights belongs here. Training (experiments/common/training.py) and `experiments.compile` both
    call this function, so that the compiled step has weights whenever the training step has them.

    Args:
      config: the experiment's settings; only "class_balance" is read.
      count_pixels: returns the number of pixels of each class in the training data, [K]; not called without weights.

    Returns:
      K weights (`balanced_class_weights`), or None if "class_balance" is 0 and every pixel counts the same.
    """
    balance = config["class_balance"]
    return balanced_class_weights(count_pixels(), balance).tolist() if balance else None


def balanced_class_weights(pixels: np.ndarray, balance: float) -> np.ndarray:
    """Returns class weights proportional to share ** -balance, where share is a class's share of all pixels.

    Args:
      pixels: [K], the number of pixels of each class in the training split, without ignored ones (`data.class_pixels`).
      balance: from 0 (every pixel counts the same in the loss) to 1 (every class counts the same).

    Returns:
      float32 [K], scaled so that the mean over all pixels is 1; 0 for a class without pixels.

    Raises:
      InputError: if `pixels` does not hold one number per class.

    Example:
      >>> weights = balanced_class_weights(np.array([900, 100, 0]), balance=1.0)
      >>> [round(weight, 2) for weight in weights.tolist()]
      [0.56, 5.0, 0.0]
    """
    pixels = host_array("balanced_class_weights: pixels", pixels)
    check_arrays("balanced_class_weights", pixels=(pixels, "K", "number"))
    shares = np.asarray(pixels, np.float64) / max(1, np.sum(pixels))
    weights = np.where(shares > 0, np.maximum(shares, 1e-12) ** -balance, 0)
    return (weights / max(1e-12, np.sum(weights * shares))).astype(np.float32)


def pixel_sums(
    logits: Array, labels: Array, ignore_label: int = IGNORE, class_weights: ArrayLike | Sequence[float] | None = None
) -> dict[str, Array]:
    """Returns the sums over a batch from which the loss and the accuracy of several devices can be computed exactly.

    Sums are added up over devices and micro-batches first; then loss = "loss" / "weight" and accuracy = "correct" /
    "pixels".

    Args:
      logits: [N, H, W, K], any floating-point dtype; computed in float32.
      labels: [N, H, W], any integer dtype: class ids 0..K-1, or `ignore_label`.
      ignore_label: the id of pixels that do not count.
      class_weights: [K], the weight of a pixel of each class; None weights all pixels alike.

    Returns:
      float32 scalars, summed over all pixels that are not ignored: "loss", the weighted cross entropy in nats;
      "weight", the weights, equal to the number of pixels without class weights; "correct", the number of pixels whose
      label has the highest score (of equal scores, the lowest id counts); "pixels", the number of pixels.

    Raises:
      InputError: if an array has another shape or dtype, or `ignore_label` is 255 and there are more than 255 classes.
    """
    check_arrays("segmentation_loss", labels=(labels, "N H W", "integer"), logits=(logits, "N H W K", "float"))
    check_ignore_label(logits.shape[-1], ignore_label)
    logits = logits.astype(jnp.float32)
    labels = labels.astype(jnp.int32)  # in int8, 255 would be -1
    counts = labels != ignore_label
    # The label's log probability is selected by a mask: the gradient of a gather is a scatter, slow on every platform.
    is_label = labels[..., None] == jnp.arange(logits.shape[-1])
    log_likelihood = jnp.sum(jnp.where(is_label, jax.nn.log_softmax(logits), 0), axis=-1)
    weight = counts.astype(jnp.float32)
    if class_weights is not None:
        class_weights = jnp.asarray(class_weights, jnp.float32)
        if class_weights.shape != logits.shape[-1:]:
            raise InputError(
                f"segmentation_loss: class_weights has shape {list(class_weights.shape)}; expected one weight per "
                f"class, [{logits.shape[-1]}]"
            )
        weight *= jnp.sum(jnp.where(is_label, class_weights, 0), axis=-1)
    return {
        "loss": -jnp.sum(jnp.where(counts, log_likelihood * weight, 0)),
        "weight": jnp.sum(weight),
        "correct": jnp.sum(counts & (jnp.argmax(logits, axis=-1) == labels), dtype=jnp.float32),
        "pixels": jnp.sum(counts, dtype=jnp.float32),
    }
