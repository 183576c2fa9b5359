"""Finds out which input the first layer of a VGG-16 expects, and converts it to this project's input.

Networks from Caffe expect blue, green, red in 0..255 minus a mean. Those from torchvision expect red, green, blue in
0..1, normalised. Names do not decide: many files have Caffe's weights under torchvision's names (vgg16-00b39a1b.pth,
vgg16_caffe.pth, vgg16_reducedfc.pth). Neither does the size of the numbers: the standard deviation of conv1_1 is 0.21
in Caffe's weights and 0.3 in torchvision's.

So the first layer is compared with the published ones by two features (vgg16_first_layers.npz): the responses of
Caffe's 64 filters to a step of 1 in each channel, and torchvision's 64 biases.
"""

import warnings
from enum import Enum
from functools import cache
from pathlib import Path

import numpy as np

from deconvnet_jax.npz import read_npz
from deconvnet_jax.ops.preprocess import MEAN_BGR

# Mean and standard deviation by which torchvision and timm normalise red, green, blue in 0..1.
TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Least cosine between a layer and a published one of which it is a copy, perhaps trained further. If the order of the
# colours differs, the cosine is negative.
SAME = 0.95
SCALES_DIFFER = 0.2  # largest relative difference between two scales that count as equal
# Ratio of the root mean squares of kernel and bias, beyond which only one input is plausible. It is 0.3 and 0.6 in the
# published networks.
LARGE_KERNEL, SMALL_KERNEL = 8.0, 0.02
ENOUGH_FILTERS = 4  # number of filters from which this ratio is trusted


class Input(Enum):
    """Kind of images that a first layer expects."""

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
    """Converts a first convolution so that it gives the same result for this project's input as for its own.

    Warns if the layer is none of the published ones and could expect either input; the warning says which one is
    assumed.

    Args:
      kernel: floats [3, 3, 3, out].
      bias: floats [out].
      sees_caffe: True if all known files with such names expect Caffe's input, False if they may expect either.
      hint: the reason why an unknown layer probably expects Caffe's input; "" if there is none.
      source: the file, named in warnings.

    Returns:
      kernel and bias, of the same shapes.
    """
    found, factors = published_input(kernel, bias)
    if factors is not None:
        kernel = kernel / factors[:, None]
        warnings.warn(
            f"VGG-16 weights: the first layer in {source} is Caffe's times {', '.join(f'{f:.3g}' for f in factors)} "
            "per channel, so it expects another range of values. The kernel is divided by these factors.",
            stacklevel=2,
        )
    if found is None:
        found, sure = _plausible_input(kernel, bias, sees_caffe, bool(hint))
        if not sure:
            other, names = _OTHERS[found]
            warnings.warn(
                f"VGG-16 weights: the first layer in {source} is of no published network and is assumed to expect "
                f"{found.value}{hint and f', because {hint}'}. If it expects {other.value}, save its arrays under "
                f"{names}.",
                stacklevel=2,
            )
    if found is Input.TORCHVISION:
        return first_kernel_for_bgr(kernel, bias)
    return (kernel[:, :, ::-1] if found is Input.CAFFE_RGB else kernel), bias


def published_input(kernel: np.ndarray, bias: np.ndarray) -> tuple[Input | None, np.ndarray | None]:
    """Compares a first layer with the published ones.

    Args:
      kernel: floats [3, 3, 3, out].
      bias: floats [out].

    Returns:
      The input if the layer is a published one or was trained from one, else None. And, for a multiple of Caffe's
      kernel, the factor of each input channel, float64 [3], in the kernel's order of channels; else None.
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
    """Returns the factor from reference to values, or NaN if they are not nearly a positive multiple of it."""
    values, reference = values.astype(np.float64), reference.astype(np.float64)
    dot, norms = values @ reference, np.linalg.norm(values) * np.linalg.norm(reference)
    return float(dot / (reference @ reference)) if norms > 0 and dot > SAME * norms else float("nan")


@cache
def _published() -> dict[str, np.ndarray]:
    return read_npz(Path(__file__).with_name("vgg16_first_layers.npz"))


def _plausible_input(kernel: np.ndarray, bias: np.ndarray, sees_caffe: bool, hint: bool) -> tuple[Input, bool]:
    """Returns which input an unknown layer most likely expects, and whether that is sure.

    If the kernel is far larger than the bias, the bias would have no effect on images in 0..255. If it is far smaller,
    images with values around 1 would have no effect.
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
    """Converts a first convolution from torchvision's input to this project's.

    The results are equal except at the border of the image. The zeros of the padding stand for torchvision's mean
    colour before, and for `MEAN_BGR` after the conversion; these differ by at most 1 of 255.

    Args:
      kernel: floats [h, w, 3, out], for red, green, blue in 0..1 minus `TORCH_MEAN`, divided by `TORCH_STD`.
      bias: floats [out].

    Returns:
      kernel and bias of the same shapes, float32, for blue, green, red in 0..255 minus `MEAN_BGR`.
    """
    std, mean = 255 * np.array(TORCH_STD), 255 * np.array(TORCH_MEAN)
    scaled = kernel.astype(np.float64) / std[:, None]
    shift = (np.array(MEAN_BGR[::-1]) - mean) @ scaled.sum((0, 1))
    return scaled[:, :, ::-1].astype(np.float32), (bias + shift).astype(np.float32)
