"""The input that a VGG-16's first layer was made for: Caffe's, or torchvision's.

Caffe's networks see blue, green, red in 0..255 minus a mean, torchvision's red, green, blue in 0..1, normalised. Many
files have Caffe's weights under torchvision's names (vgg16-00b39a1b.pth, vgg16_caffe.pth, vgg16_reducedfc.pth), and
the size of the numbers does not tell them apart: the deviation of conv1_1 is 0.21 in Caffe's, 0.3 in torchvision's.
So the layer is compared with the published ones by what tells them apart: the responses of Caffe's 64 filters to a step
of 1 in each channel, and torchvision's 64 biases (vgg16_first_layers.npz).
"""

import warnings
from enum import Enum
from functools import cache
from pathlib import Path

import numpy as np

from deconvnet_jax.npz import read_npz
from deconvnet_jax.ops.preprocess import MEAN_BGR

# What torchvision and timm take off and divide by; red, green, blue, of values in 0..1.
TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SAME = 0.95  # cosine above which a layer is a published one, perhaps trained further; of other colours it is negative
SCALES_DIFFER = 0.2  # relative
# Deviation of kernel over that of bias, beyond which only one of the inputs is plausible. The published: 0.3 and 0.6.
LARGE_KERNEL, SMALL_KERNEL = 8.0, 0.02
ENOUGH_FILTERS = 4  # for such a deviation


class Input(Enum):
    """Images that a first layer was made for."""

    CAFFE = "Caffe's input (BGR, 0..255 minus mean)"
    CAFFE_RGB = "Caffe's input in another order (RGB, 0..255 minus mean)"
    TORCHVISION = "torchvision's input (RGB, 0..1, normalised)"


_OTHERS = {
    Input.CAFFE: (Input.TORCHVISION, "torchvision's names (features.0.weight, ..., classifier.0.weight, ...)"),
    Input.TORCHVISION: (Input.CAFFE, "Caffe's names (conv1_1.weight, ..., fc6.weight, ...)"),
}


def for_caffe_input(
    kernel: np.ndarray, bias: np.ndarray, *, sees_caffe: bool, hint: str, source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Changes a first convolution so that it gives for this project's input what it gave for its own.

    Args:
      kernel: [3, 3, 3, out].
      bias: [out].
      sees_caffe: whether files with such names have Caffe's input; otherwise they may have either.
      hint: why a layer that is not known sees Caffe's input, "" if nothing says so.
      source: the file, for the warning.

    Returns:
      kernel and bias of the same shapes. If the layer is none of the published ones and could have either input, a
      warning tells which was assumed.
    """
    found, factors = published_input(kernel, bias)
    if factors is not None:
        kernel = kernel / factors[:, None]
        warnings.warn(
            f"VGG-16 weights: the first layer in {source} is Caffe's times {', '.join(f'{f:.3g}' for f in factors)}, "
            "as for another range of values. It is divided by that; its bias is taken as it is.",
            stacklevel=2,
        )
    if found is None:
        found, sure = _plausible_input(kernel, bias, sees_caffe, bool(hint))
        if not sure:
            other, names = _OTHERS[found]
            warnings.warn(
                f"VGG-16 weights: the first layer in {source} is of no published network and is taken to see "
                f"{found.value}{hint and f', because {hint}'}. If it sees {other.value}, save its arrays under "
                f"{names}.",
                stacklevel=2,
            )
    if found is Input.TORCHVISION:
        return first_kernel_for_bgr(kernel, bias)
    return (kernel[:, :, ::-1] if found is Input.CAFFE_RGB else kernel), bias


def published_input(kernel: np.ndarray, bias: np.ndarray) -> tuple[Input | None, np.ndarray | None]:
    """Compares a layer with the published ones.

    Returns:
      The input if the layer is one of them or was trained from it, else None; and of Caffe's kernels for another range
      of values how many times they are larger, [3].
    """
    if kernel.shape != (3, 3, 3, 64):
        return None, None
    published, steps = _published(), kernel.sum((0, 1))
    for order, found in ((slice(None), Input.CAFFE), (slice(None, None, -1), Input.CAFFE_RGB)):
        reference = published["caffe_steps"][order]
        scales = np.array([_scale(steps[i], reference[i]) for i in range(3)])
        if np.isnan(scales).any():
            continue
        if np.allclose(scales, 1, rtol=SCALES_DIFFER):
            return found, None
        if found is Input.CAFFE_RGB and np.allclose(scales, 255 * np.array(TORCH_STD), rtol=SCALES_DIFFER):
            return Input.TORCHVISION, None
        return found, scales
    trained_by_torchvision = np.isclose(_scale(bias, published["torchvision_bias"]), 1, rtol=SCALES_DIFFER)
    return (Input.TORCHVISION if trained_by_torchvision else None), None


def _scale(values: np.ndarray, reference: np.ndarray) -> float:
    """Returns the factor by which values are larger than reference, or NaN if they are no multiple of it."""
    values, reference = values.astype(np.float64), reference.astype(np.float64)
    dot, norms = values @ reference, np.linalg.norm(values) * np.linalg.norm(reference)
    return float(dot / (reference @ reference)) if norms > 0 and dot > SAME * norms else float("nan")


@cache
def _published() -> dict[str, np.ndarray]:
    return read_npz(Path(__file__).with_name("vgg16_first_layers.npz"))


def _plausible_input(kernel: np.ndarray, bias: np.ndarray, sees_caffe: bool, hint: bool) -> tuple[Input, bool]:
    """Returns what a layer of another network most likely sees, and whether that is sure.

    Where the kernel is far larger than the bias, values of 0..255 would leave the bias without effect; where it is far
    smaller, values around 1 would leave the image without effect.
    """
    assumed = Input.CAFFE if sees_caffe or hint else Input.TORCHVISION
    size, other = (np.sqrt(np.mean(np.square(values.astype(np.float64)))) for values in (kernel, bias))
    if len(bias) >= ENOUGH_FILTERS and size > 0:
        if size > LARGE_KERNEL * other:
            return (Input.CAFFE, other == 0) if sees_caffe else (Input.TORCHVISION, not hint)
        if size < SMALL_KERNEL * other:
            return Input.CAFFE, sees_caffe
    return assumed, sees_caffe or size == 0


def first_kernel_for_bgr(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a first convolution made for torchvision's input, changed so that it gives the same for this project's.

    Exact but for one thing: beyond the border there are zeros, which mean torchvision's mean colour in the one case
    and the original's in the other. They differ by at most 1 of 255, and so do, a little, the outermost pixels.

    Args:
      kernel: [h, w, 3, out], for red, green, blue in 0..1 minus TORCH_MEAN, divided by TORCH_STD.
      bias: [out].

    Returns:
      kernel and bias of the same shapes, float32, for blue, green, red in 0..255 minus MEAN_BGR.
    """
    std, mean = 255 * np.array(TORCH_STD), 255 * np.array(TORCH_MEAN)
    scaled = kernel.astype(np.float64) / std[:, None]
    shift = (np.array(MEAN_BGR[::-1]) - mean) @ scaled.sum((0, 1))
    return scaled[:, :, ::-1].astype(np.float32), (bias + shift).astype(np.float32)
