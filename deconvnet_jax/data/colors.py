"""Changes the brightness, contrast, saturation and hue of crops at random.

The host does this, because crops travel to the device as uint8: what `browse_data` shows and a diverged run saves is
what the network was trained on.
"""

import cv2
import numpy as np

GREY = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in grey (ITU-R 601, as in Pillow)


def jitter_colors(
    image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float, rng: np.random.Generator
) -> np.ndarray:
    """Returns an image with random brightness, contrast, saturation and hue (`adjust_colors`).

    The meanings are those of torchvision's ColorJitter, but the order is always the same. A factor is uniform between
    1 - x and 1 + x, where x is the argument. No random number is drawn for an argument that is 0.

    Args:
      image: image, uint8 RGB [H, W, 3].
      brightness: largest deviation of the factor on the brightness from 1, 0 to 1.
      contrast: largest deviation of the factor on the contrast from 1, 0 to 1.
      saturation: largest deviation of the factor on the saturation from 1, 0 to 1.
      hue: largest shift of the hue in either direction, in turns, 0 to 0.5.
      rng: random generator.

    Returns:
      uint8 RGB [H, W, 3]; `image` itself if all arguments are 0.
    """
    drawn = [rng.uniform(-most, most) if most else 0.0 for most in (brightness, contrast, saturation, hue)]
    return adjust_colors(image, 1 + drawn[0], 1 + drawn[1], 1 + drawn[2], drawn[3])


def adjust_colors(
    image: np.ndarray, brightness: float = 1.0, contrast: float = 1.0, saturation: float = 1.0, hue: float = 0.0
) -> np.ndarray:
    """Returns an image with another brightness, contrast, saturation and hue, changed in this order.

    Black pixels stay black and do not count for the mean grey of the contrast, because black is what lies outside an
    image. The first three are one linear map of the colours, which is rounded and clipped once.

    Args:
      image: image, uint8 RGB [H, W, 3].
      brightness: factor on the colours. 1 keeps them.
      contrast: factor on the difference of the colours from the image's mean grey. 1 keeps it.
      saturation: factor on the difference of the colours from the pixel's grey. 1 keeps it.
      hue: shift of the hue in turns, from -0.5 to 0.5.

    Returns:
      uint8 RGB [H, W, 3]; `image` itself if nothing changes.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.data import adjust_colors
      >>> adjust_colors(np.full((1, 1, 3), (200, 100, 0), np.uint8), brightness=0.5).tolist()
      [[[100, 50, 0]]]
    """
    if (brightness, contrast, saturation) != (1, 1, 1):
        image = _linear(image, brightness, contrast, saturation)
    shift = 360 * (hue % 1)  # degrees; OpenCV wraps sums above 360, but not negative ones
    if not shift:
        return image
    hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)  # In 8 bits, OpenCV turns hues by 2 degrees itself.
    hsv[..., 0] += shift
    return cv2.convertScaleAbs(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def _linear(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    image = np.ascontiguousarray(image)
    colors = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * GREY)
    black = cv2.inRange(image, (0, 0, 0), (0, 0, 0)) if contrast != 1 else None
    if black is None:
        return cv2.transform(image, colors)
    mean_grey = GREY @ cv2.mean(image, cv2.bitwise_not(black))[:3]
    offset = np.full((3, 1), (1 - contrast) * brightness * mean_grey)
    changed = cv2.transform(image, np.hstack([colors, offset]))
    changed[black > 0] = 0
    return changed
