"""DeconvNet from the authors' caffemodels."""

from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np

from deconvnet_jax.models import DeconvNet, layer_names
from deconvnet_jax.weights.caffe_layers import check_names, kernel_shape, params_from_caffe, rename_layers
from deconvnet_jax.weights.caffemodel import CaffemodelError, load_caffemodel

SCORES = "seg-score-voc"
TINY = DeconvNet(num_classes=1, width=1 / 512, fc_features=1)  # for the names of the layers


def deconvnet_from_caffe(path: str | Path, folded_bn: bool = True) -> tuple[DeconvNet, chex.ArrayTree]:
    """The network in a caffemodel of the original's layer names; its widths are read from the file.

    The score layer may have another name, as after fine-tuning in Caffe on other classes.

    The original has no running statistics. While it trains, a BN layer holds scale and shift and takes the statistics
    of the batch; afterwards BN_make_INFERENCE_script.py folds averages of statistics into the two.

    Args:
      path: DeconvNet_trainval_inference.caffemodel, stage_1_train_result.caffemodel, ...
      folded_bn: True for files with folded statistics (..._inference): scale and shift are all that normalisation
        does; running statistics are 0 and 1. False for stage_*_train_result: scale and shift are as trained, running
        statistics are not known (0 and 1 too) until `training.calibrate_batch_norm` measures them; without, only
        training can go on.

    Returns:
      The module, and its variables: {"params", "batch_stats"}, float32.

    Raises:
      CaffemodelError: for a file that is no caffemodel or damaged; a layer that is missing, unknown or misshapen.
    """
    layers = load_caffemodel(path)
    names = layer_names(TINY)
    channels = kernel_shape(layers, "deconv1_2")[1]
    layers = rename_layers(layers, names, {SCORES: (None, channels, 1, 1)}, str(path))
    check_names(layers, names, str(path))
    net = _network(layers, str(path))
    images = jax.ShapeDtypeStruct((1, net.min_input_size, net.min_input_size, 3), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), images)
    deconvolutions = [name for name in shapes["params"] if "deconv" in name and "bn" not in name]
    params = params_from_caffe(layers, shapes["params"], deconvolutions=deconvolutions, source=str(path))
    # Variances such that what is divided by, the root of variance plus epsilon, is 1.
    unit = 1 - net.bn_epsilon if folded_bn else 1.0
    values = {"mean": 0.0, "var": unit}
    batch_stats = {
        name: {part: jnp.full(leaf.shape, values[part], leaf.dtype) for part, leaf in statistics.items()}
        for name, statistics in shapes["batch_stats"].items()
    }
    return net, {"params": params, "batch_stats": batch_stats}


def _network(layers: dict[str, list[np.ndarray]], source: str) -> DeconvNet:
    """The module whose widths are those of a few telling layers; the others' are checked against it later."""
    telling = ("conv5_3", "fc6", "deconv5_1", SCORES)
    for name in telling:
        if layers[name][0].ndim != 4:
            raise CaffemodelError(
                f"{source}: kernel of layer {name!r} has the shape {layers[name][0].shape}, expected 4 dimensions"
            )
    encoder, fc6, decoder, scores = (layers[name][0].shape for name in telling)
    return DeconvNet(
        num_classes=scores[0],
        width=encoder[0] / 512,
        decoder_width=decoder[1] / encoder[0],
        fc_features=layers["bnfc6"][0].size,
        fc_window=fc6[2],
    )
