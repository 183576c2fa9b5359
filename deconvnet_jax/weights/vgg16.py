"""The encoder's ImageNet weights: VGG-16 (Simonyan and Zisserman, 2015)."""

from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import Variables
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS
from deconvnet_jax.ops import max_pool_with_indices
from deconvnet_jax.weights.vgg16_files import CONVOLUTIONS, WINDOWS, read_vgg16


def load_vgg16(path: str | Path, variables: Variables) -> Variables:
    """Replaces the encoder's 13 convolutions by those of an ImageNet VGG-16, and fc6 and fc7 where both are to be had.

    fc6 and fc7 are taken if the file has them and the network's have the same shapes ([7, 7, 512, 4096] and
    [1, 1, 4096, 4096]). All else stays as it is.

    Args:
      path: .npz, .h5, .hdf5, .pth, .pt, .safetensors or .caffemodel (`vgg16_files.read_vgg16`).
      variables: of a `DeconvNet` of width 1.

    Returns:
      New variables; the arrays that are replaced are float32.

    Raises:
      InputError: for a file that cannot be used, and for a convolution of another shape than the network's.
    """
    layers = read_vgg16(path)
    params = dict(variables["params"])
    if not all(name in layers and _same_shapes(layers[name], params[name]) for name in WINDOWS):
        layers = {name: layers[name] for name in CONVOLUTIONS}
    for name in list(layers):
        parts = layers.pop(name)  # so that the file's fc6 goes when the network's is there
        for part, values in parts.items():
            if values.shape != params[name][part].shape:
                raise InputError(
                    f"VGG-16 weights: the {part} of {name} in {path} has shape {values.shape}, the network needs "
                    f"{params[name][part].shape}; the weights fit a network with config.model.width=1.0 only"
                )
        params[name] = {part: jnp.asarray(values, jnp.float32) for part, values in parts.items()}
    return {**variables, "params": params}


def _same_shapes(parts: dict[str, np.ndarray], ours: dict[str, Array]) -> bool:
    return all(parts[part].shape == ours[part].shape for part in ("kernel", "bias"))


def keep_vgg16_features(variables: Variables, images: Array, epsilon: float = 1e-5) -> Variables:
    """Sets the encoder's batch normalisation so that the network starts with VGG-16's own features.

    VGG-16 has no batch normalisation. One with scale 1 and shift 0 after each of its convolutions moves every channel's
    mean to the ReLU's threshold, so that the layers see other features than those they were trained on; the original
    starts like that. Here scale and shift give every channel its deviation and mean back, divided by one
    number a layer, which the next normalisation takes out again.

    Args:
      variables: of a `DeconvNet` with VGG-16's convolutions.
      images: [N, H, W, 3] float32 from `ops.normalize_images`, typical of the training data; H, W multiples of 32.
      epsilon: the network's `bn_epsilon`.

    Returns:
      New variables: scale, shift and running statistics of bn1_1 to bn5_3 differ. With the images' statistics each
      pooled map equals VGG-16's up to a factor.
    """
    params, batch_stats = dict(variables["params"]), dict(variables["batch_stats"])
    x, unit = images, 1.0  # x times unit is what VGG-16 has here
    for block, widths in ENCODER_WIDTHS.items():
        for i in range(1, len(widths) + 1):
            conv, name = params[f"conv{block}_{i}"], f"bn{block}_{i}"
            y = lax.conv_general_dilated(x, conv["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
            vgg_mean, vgg_std = mean * unit + conv["bias"], jnp.sqrt(var) * unit
            unit = jnp.sqrt(jnp.mean(vgg_std**2))
            params[name] = {"scale": vgg_std / unit, "bias": vgg_mean / unit}
            batch_stats[name] = {"mean": mean + conv["bias"], "var": var}
            x = nn.relu((y - mean) * lax.rsqrt(var + epsilon) * params[name]["scale"] + params[name]["bias"])
        x = max_pool_with_indices(x, window=2)[0]
    return {**variables, "params": params, "batch_stats": batch_stats}
