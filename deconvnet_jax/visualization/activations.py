"""Pictures of single feature-map channels."""

import cv2
import matplotlib
import numpy as np

from deconvnet_jax.array_checks import check_arrays


def representative_channel(maps: np.ndarray, target: np.ndarray) -> int:
    """Returns the channel that correlates best with a target.

    The paper shows "the most representative" channel without saying how it was chosen.

    Args:
      maps: feature map, float [h, w, C].
      target: float [H, W], for example the probability of a class; it is resized to h x w.

    Returns:
      The index of the channel with the highest correlation over all places; 0 if no channel varies.

    Raises:
      InputError: if `maps` is not numbers [h, w, C] or `target` not numbers [H, W].
    """
    check_arrays("representative_channel", maps=(maps, "h w C", "number"), target=(target, "H W", "number"))
    small = cv2.resize(np.asarray(target, np.float32), maps.shape[1::-1], interpolation=cv2.INTER_AREA)
    flat = np.asarray(maps, np.float64).reshape(-1, maps.shape[2])
    flat = flat - flat.mean(axis=0)
    wanted = small.ravel() - small.mean()
    spread = np.sqrt((flat**2).sum(axis=0))
    agreement = wanted @ flat / np.maximum(spread, 1e-12)
    return int(np.where(spread > 1e-9 * max(1.0, spread.max()), agreement, -np.inf).argmax())


def activation_picture(activations: np.ndarray, side: int) -> np.ndarray:
    """Returns one channel as a colour picture, from dark at its lowest value to bright at its highest.

    Args:
      activations: float [h, w].
      side: longer side of the picture, in pixels. Every value becomes a square.

    Returns:
      uint8 RGB [H', W', 3].

    Raises:
      InputError: if the activations are not numbers [h, w].

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.visualization import activation_picture
      >>> activation_picture(np.eye(7), side=70).shape
      (70, 70, 3)
    """
    check_arrays("activation_picture", activations=(activations, "H W", "number"))
    low, high = float(activations.min()), float(activations.max())
    scaled = (np.asarray(activations, np.float64) - low) / max(high - low, 1e-12)
    colors = (matplotlib.colormaps["inferno"](scaled)[..., :3] * 255).round().astype(np.uint8)
    scale = side / max(activations.shape)
    size = tuple(max(1, round(length * scale)) for length in activations.shape[1::-1])
    return cv2.resize(colors, size, interpolation=cv2.INTER_NEAREST_EXACT)
