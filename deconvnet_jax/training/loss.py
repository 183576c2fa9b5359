"""The per-pixel softmax loss (original: SOFTMAX_LOSS with ignore_label 255, normalised by the pixels that count)."""

import chex
import jax
import jax.numpy as jnp
from jax import Array

IGNORE_LABEL = 255


def segmentation_loss(logits: Array, labels: Array, ignore_label: int = IGNORE_LABEL) -> Array:
    """Mean cross entropy over the non-ignored pixels of the whole batch; 0 if there is none.

    Args:
      logits: [N, H, W, K], floating point; the computation is in float32.
      labels: [N, H, W], integer class ids 0..K-1, or `ignore_label`.
      ignore_label: id of pixels that do not count.

    Returns:
      A float32 scalar, nats a pixel.
    """
    sums = pixel_sums(logits, labels, ignore_label)
    return sums["loss"] / jnp.maximum(sums["pixels"], 1)


def pixel_sums(logits: Array, labels: Array, ignore_label: int = IGNORE_LABEL) -> dict[str, Array]:
    """What a mean over several devices is made of: sums over the non-ignored pixels, float32 scalars.

    Returns "loss" (cross entropy), "correct" (pixels whose greatest score is the label's) and "pixels" (their number).
    """
    chex.assert_rank([logits, labels], [4, 3])
    chex.assert_equal_shape_prefix([logits, labels], 3)
    chex.assert_type([logits, labels], [float, int])
    logits = logits.astype(jnp.float32)
    labels = labels.astype(jnp.int32)  # 255 as int8 would be -1
    counts = labels != ignore_label
    # The log probability of the label by selection: the gradient of a gather is a scatter, slow on every platform.
    is_label = labels[..., None] == jnp.arange(logits.shape[-1])
    log_likelihood = jnp.sum(jnp.where(is_label, jax.nn.log_softmax(logits), 0), axis=-1)
    return {
        "loss": -jnp.sum(jnp.where(counts, log_likelihood, 0)),
        "correct": jnp.sum(counts & (jnp.argmax(logits, axis=-1) == labels), dtype=jnp.float32),
        "pixels": jnp.sum(counts, dtype=jnp.float32),
    }
