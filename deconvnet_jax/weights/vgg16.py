"""The encoder's ImageNet weights: VGG-16 (Simonyan and Zisserman, 2015)."""

import zipfile
from pathlib import Path

import chex
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deconvnet_jax.errors import InputError
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS
from deconvnet_jax.ops import max_pool_with_indices


def load_vgg16(path: str | Path, variables: chex.ArrayTree) -> chex.ArrayTree:
    """Replaces the encoder's 13 convolutions by those of an ImageNet VGG-16; all else stays as it is.

    Args:
      path: .npz with arrays `blockB_convC/kernel` ([3, 3, in, out], input channels blue, green, red, 0..255 minus
        mean) and `blockB_convC/bias` ([out]) of any float type: the names and layouts of Keras's VGG16.
      variables: of a `DeconvNet` of width 1.

    Returns:
      New variables; the arrays that are replaced are float32.

    Raises:
      InputError: for a file that is missing or not an .npz, and for a layer that is missing or has another shape.
    """
    arrays = _read_npz(Path(path))
    params = dict(variables["params"])
    for block, widths in ENCODER_WIDTHS.items():
        for i in range(1, len(widths) + 1):
            ours = params[f"conv{block}_{i}"]
            params[f"conv{block}_{i}"] = {
                part: _take(arrays, f"block{block}_conv{i}/{part}", ours[part].shape, path)
                for part in ("kernel", "bias")
            }
    return {**variables, "params": params}


def keep_vgg16_features(variables: chex.ArrayTree, images: Array, epsilon: float = 1e-5) -> chex.ArrayTree:
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


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(
            f"VGG-16 weights: no file {path}; give an .npz as --config.init.vgg16 (README, 'VGG-16 weights')"
        )
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"VGG-16 weights: {path} is not a complete .npz file ({error}); fetch or write it again"
        ) from error


def _take(arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...], path: str | Path) -> jnp.ndarray:
    if name not in arrays:
        raise InputError(
            f"VGG-16 weights: {path} has no array '{name}'; expected Keras's names, blockB_convC/kernel and /bias"
        )
    if arrays[name].shape != shape:
        raise InputError(
            f"VGG-16 weights: '{name}' in {path} has shape {arrays[name].shape}, the network needs {shape}; "
            "the weights fit a network with config.model.width=1.0 only"
        )
    return jnp.asarray(arrays[name], jnp.float32)
