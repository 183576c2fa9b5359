"""FCN-8s from Berkeley's caffemodels."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np

from deconvnet_jax.models import FCN8s, layer_names
from deconvnet_jax.weights.caffe_layers import check_names, kernel_shape, params_from_caffe, rename_layers
from deconvnet_jax.weights.caffemodel import CaffemodelError, load_caffemodel

# fcn8s-heavy-pascal.caffemodel, the later release, is the same network with other names and no bias in score2.
HEAVY_NAMES = {
    "score_fr": "score-fr",
    "upscore2": "score2",
    "score_pool4": "score-pool4",
    "upscore_pool4": "score4",
    "score_pool3": "score-pool3",
    "upscore8": "upsample",
}
DECONVOLUTIONS = ("score2", "score4", "upsample")


def fcn8s_from_caffe(path: str | Path) -> tuple[FCN8s, chex.ArrayTree]:
    """The network in fcn-8s-pascal.caffemodel, or fcn8s-heavy-pascal.caffemodel; widths are read from the file.

    The layers after fc7 may have other names, as after fine-tuning in Caffe on other classes.

    Returns:
      The module, and its variables: {"params"}, float32.

    Raises:
      CaffemodelError: for a file that is no caffemodel or damaged; a layer that is missing, unknown or misshapen.
    """
    layers = {HEAVY_NAMES.get(name, name): blobs for name, blobs in load_caffemodel(path).items()}
    source, names = str(path), layer_names(FCN8s(width=1 / 512, fc_features=1))
    layers = rename_layers(layers, names, _score_shapes(layers), source)
    check_names(layers, names, source)
    for name in ("conv5_3", "fc6", "score-fr", "score2"):
        if layers[name][0].ndim != 4:
            raise CaffemodelError(
                f"{source}: kernel of layer {name!r} has the shape {layers[name][0].shape}, expected 4 dimensions"
            )
    encoder, fc6, scores = (layers[name][0].shape for name in ("conv5_3", "fc6", "score-fr"))
    if len(layers["score2"]) == 1:
        layers["score2"].append(np.zeros(scores[0], np.float32))
    net = FCN8s(num_classes=scores[0], width=encoder[0] / 512, fc_features=fc6[0])
    return net, {"params": params_from_caffe(layers, _shapes(net), deconvolutions=DECONVOLUTIONS, source=source)}


def _shapes(net: FCN8s) -> chex.ArrayTree:
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), images)["params"]


def _score_shapes(layers: dict[str, list[np.ndarray]]) -> dict[str, tuple[int | None, ...]]:
    """Kernels of the layers whose shapes depend on the number of classes, in the network's order."""
    inputs = {"score-fr": "fc7", "score-pool4": "conv4_3", "score-pool3": "conv3_3"}
    shapes = {name: (None, kernel_shape(layers, before)[0], 1, 1) for name, before in inputs.items()}
    return shapes | {"score2": (None, None, 4, 4), "score4": (None, None, 4, 4), "upsample": (None, None, 16, 16)}
