"""An edge map that needs no weights: gradients of colour at several scales, each relative to its surroundings."""

import cv2
import numpy as np

SCALES = (1.0, 2.0, 4.0)  # standard deviations of the smoothing, in pixels
SURROUNDINGS = 16.0  # standard deviation of the window for the local mean
_FLOOR = 1.0  # of the local mean, in units of Lab: flat regions stay flat


def gradient_edges(image: np.ndarray) -> np.ndarray:
    """How strongly the colour changes at every pixel, compared with its surroundings.

    Args:
      image: uint8 RGB [H, W, 3].

    Returns:
      float32 [H, W] in 0..1.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    strength = np.zeros(image.shape[:2], np.float32)
    for scale in SCALES:
        smooth = cv2.GaussianBlur(lab, (0, 0), scale)
        x, y = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=scale / 8) for order in ((1, 0), (0, 1)))
        magnitude = np.sqrt((x * x + y * y).sum(axis=2))
        strength += magnitude / (cv2.GaussianBlur(magnitude, (0, 0), SURROUNDINGS) + _FLOOR)
    return np.minimum(strength / (4 * len(SCALES)), 1)
