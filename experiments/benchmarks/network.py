"""Makes the network that benchmarks measure: DeconvNet with random weights, random batches, and the cost of layers."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet, Variables, batch_norm_name, layer_names
from deconvnet_jax.models.deconvnet import STRIDE

from ..configs import default

SIZE, CLASSES, FC_FEATURES = 224, 21, 4096


class LayerCost(NamedTuple):
    """Cost of a layer with its batch normalisation.

    Attributes:
      name: of the layer, as in `DeconvNet`.
      parameters: number of parameters.
      macs: multiply-adds per image in the forward pass.
    """

    name: str
    parameters: int
    macs: int


def check_width(width: float) -> None:
    """Raises InputError unless the flag --width is above 0 and at most 1."""
    if not 0 < width <= 1:
        raise InputError(f"--width={width:g}: expected more than 0 and at most 1, the original's width")


def make_net(dtype: str, width: float) -> DeconvNet:
    """Returns a DeconvNet for 21 classes.

    Args:
      dtype: of the computation, "float32" or "bfloat16".
      width: factor on the channels of all layers, fc6 and fc7 included; above 0 and at most 1.
    """
    return DeconvNet(CLASSES, width=width, fc_features=max(1, round(FC_FEATURES * width)), dtype=jnp.dtype(dtype))


def shapes(net: DeconvNet, size: int = SIZE) -> Variables:
    """Returns the shapes and dtypes of a network's variables, without computing them.

    Args:
      net: the network.
      size: side of the square images in pixels; a multiple of 32.
    """
    return jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))


def make_variables(net: DeconvNet) -> Variables:
    """Returns random weights on the host. NumPy draws them, because `init_variables` takes long to compile."""
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            return rng.standard_normal(leaf.shape, np.float32) * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(net))


def make_batch(batch_size: int, size: int = SIZE) -> dict[str, np.ndarray]:
    """Returns a batch of noise, the same one every time.

    Args:
      batch_size: number of images B.
      size: their side in pixels.

    Returns:
      "image", uint8 RGB [B, size, size, 3], and "label", uint8 [B, size, size] class ids, 5 % of them 255 (ignored).
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (batch_size, size, size), np.uint8)
    labels[rng.random(labels.shape) < 0.05] = 255
    return {"image": rng.integers(0, 256, (batch_size, size, size, 3), np.uint8), "label": labels}


def layer_costs(net: DeconvNet, size: int = SIZE) -> list[LayerCost]:
    """Returns the cost of every layer in the order of the forward pass.

    Args:
      net: the network.
      size: side of the square images in pixels; a multiple of 32.
    """
    params = shapes(net, size)["params"]

    def cost(name: str) -> LayerCost:
        block = re.match(r"(?:de)?conv(\d)_", name)
        side = size // STRIDE - net.fc_window + 1 if "fc" in name else size // 2 ** (int(block[1]) - 1 if block else 0)
        # The last layer has no batch normalisation: `batch_norm_name` returns its own name.
        leaves = jax.tree.leaves({part: params[part] for part in (name, batch_norm_name(name))})
        return LayerCost(name, sum(leaf.size for leaf in leaves), params[name]["kernel"].size * side**2)

    return [cost(name) for name in layer_names(net) if "kernel" in params[name]]


def gflop(net: DeconvNet) -> float:
    """Returns the floating-point operations of a forward pass per image, in billions; a multiply-add counts as two."""
    return 2 * sum(layer.macs for layer in layer_costs(net)) / 1e9


def optimizer_settings() -> dict[str, Any]:
    """Returns section "optimizer" of the default config, the paper's settings, with a constant learning rate."""
    return {**default.get_config().optimizer.to_dict(), "drops": ()}
