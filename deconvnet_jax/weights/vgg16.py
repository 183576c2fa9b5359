"""Initialises the encoder with the ImageNet weights of VGG-16 (Simonyan and Zisserman, 2015)."""

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
    """Returns variables whose encoder has the convolutions of an ImageNet VGG-16.

    The 13 convolutions are always taken. fc6 and fc7 are taken if the file has both and the network's have the same
    shapes ([7, 7, 512, 4096] and [1, 1, 4096, 4096] at full size). All other arrays stay as they are.

    Args:
      path: a file of Keras, PyTorch, Caffe or NumPy (.h5, .hdf5, .keras, .pth, .pt, .safetensors, .caffemodel, .npz);
        see `vgg16_files.read_vgg16`. Weights that expect RGB in 0 to 1 are converted to this project's input.
      variables: the variables of a `DeconvNet` of width 1; they are not changed.

    Returns:
      New variables. The replaced arrays are float32.

    Raises:
      InputError: for a file that is missing, damaged or no VGG-16, and for a network of another width.

    Example:
      >>> from deconvnet_jax import DeconvNet
      >>> from deconvnet_jax.training import init_variables
      >>> from deconvnet_jax.weights import load_vgg16
      >>> net = DeconvNet(num_classes=3, width=1 / 32, fc_features=8, fc_window=1)  # as narrow as this vgg16.npz
      >>> variables = load_vgg16("vgg16.npz", init_variables(net, seed=0))
      >>> variables["params"]["conv1_1"]["kernel"].shape
      (3, 3, 3, 2)
    """
    layers = read_vgg16(path)
    params = dict(variables["params"])
    if not all(name in layers and _same_shapes(layers[name], params[name]) for name in WINDOWS):
        layers = {name: layers[name] for name in CONVOLUTIONS}
    for name in list(layers):
        parts = layers.pop(name)  # The file's fc6 takes 400 MB, which are freed when the network's copy exists.
        for part, values in parts.items():
            if values.shape != params[name][part].shape:
                raise InputError(
                    f"VGG-16 weights: the {part} of {name} in {path} has shape {values.shape}, but the network needs "
                    f"{params[name][part].shape}; give --config.model.width=1.0 to use VGG-16"
                )
        params[name] = {part: jnp.asarray(values, jnp.float32) for part, values in parts.items()}
    return {**variables, "params": params}


def _same_shapes(parts: dict[str, np.ndarray], ours: dict[str, Array]) -> bool:
    """Returns whether a layer of the file has the shapes of the network's layer."""
    return all(parts[part].shape == ours[part].shape for part in ("kernel", "bias"))


def keep_vgg16_features(variables: Variables, images: Array, epsilon: float = 1e-5) -> Variables:
    """Returns variables whose batch normalisation keeps VGG-16's own features in the encoder.

    VGG-16 has no batch normalisation. A normalisation with scale 1 and shift 0 moves the mean of every channel to the
    ReLU's threshold, so that each layer sees other features than it was trained on. The original starts that way. This
    function sets scale and shift such that every channel keeps its mean and standard deviation, divided by one factor
    per layer. The next normalisation removes that factor.

    Args:
      variables: the variables of a `DeconvNet` with VGG-16's convolutions; they are not changed.
      images: typical training images, float32 [N, H, W, 3] from `ops.normalize_images`; H and W are multiples of 32.
      epsilon: the network's `bn_epsilon`.

    Returns:
      New variables with other scales, shifts and running statistics in bn1_1 to bn5_3. With the statistics of
      `images`, each pooled map equals VGG-16's up to a factor.
    """
    params, batch_stats = dict(variables["params"]), dict(variables["batch_stats"])
    x, unit = images, 1.0  # x * unit equals VGG-16's map.
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
