"""The encoder's ImageNet weights: VGG-16 (Simonyan and Zisserman, 2015)."""

import zipfile
from pathlib import Path

import chex
import jax.numpy as jnp
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.models.deconvnet import ENCODER_WIDTHS


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
