"""Any of the networks from a caffemodel: which one it is shows in the names of its layers.

The score layers' names do not count: fine-tuning in Caffe on other classes changes them.
"""

from pathlib import Path

import chex

from deconvnet_jax.models import Network
from deconvnet_jax.weights.caffemodel import CaffemodelError, read_layers
from deconvnet_jax.weights.deconvnet import deconvnet_from_caffe
from deconvnet_jax.weights.fcn8s import fcn8s_from_caffe

# In the older and the newer form.
LOSS_TYPES = (21, "SoftmaxWithLoss")
DECONVOLUTION_TYPES = (39, "Deconvolution")

DECONVNET_LAYERS = ("conv1_1", "fc6-deconv", "deconv1_2")  # fine-tuning leaves them their names, unlike the score layer


def network_from_caffe(
    path: str | Path, folded_bn: bool | None = None
) -> tuple[Network, chex.ArrayTree, dict[str, str]]:
    """DeconvNet or FCN-8s, with what is known of its batch statistics.

    Args:
      path: a caffemodel of the authors' or Berkeley's.
      folded_bn: of a DeconvNet, see `deconvnet_from_caffe`; by default False if the file has a loss layer, as
        snapshots of training have, and True otherwise.

    Returns:
      The module, its variables, and of a DeconvNet {"batch_statistics": "folded" or "unknown"}.

    Raises:
      CaffemodelError: for a file that is neither, is damaged, or does not fit together.
    """
    layers = {layer.name: layer.type for layer in read_layers(path, with_blobs=False)}
    if set(DECONVNET_LAYERS) <= set(layers):
        if folded_bn is None:
            folded_bn = not any(kind in LOSS_TYPES or (not kind and "loss" in name) for name, kind in layers.items())
        return *deconvnet_from_caffe(path, folded_bn), {"batch_statistics": "folded" if folded_bn else "unknown"}
    if any("score" in name for name in layers) or set(DECONVOLUTION_TYPES) & set(layers.values()):
        return *fcn8s_from_caffe(path), {}
    raise CaffemodelError(
        f"{path} is neither a DeconvNet (it has no layer 'fc6-deconv') nor an FCN-8s (no 'score-fr'); a VGG-16 is "
        "only an encoder: give it as --vgg16 to experiments.import_weights, or as --config.init.vgg16 to voc_train"
    )
