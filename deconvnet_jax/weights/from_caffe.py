"""Converts caffemodels of the authors' DeconvNet and of Berkeley's FCN-8s to Flax networks.

The two networks are recognised by the names of their layers, which Flax layers keep. Only score layers may have other
names than in the original files, because fine-tuning on other classes in Caffe renames them.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deconvnet_jax.models import DeconvNet, FCN8s, Network, Variables, layer_names
from deconvnet_jax.weights.caffemodel import CaffemodelError, load_caffemodel, read_layers

Layers = dict[str, list[np.ndarray]]
KernelShape = tuple[int | None, ...]  # in Caffe's order; None matches any size

# Types of layers, as number in the older and as word in the newer form of caffemodels.
LOSS_TYPES = (21, "SoftmaxWithLoss")
DECONVOLUTION_TYPES = (39, "Deconvolution")

DECONVNET_LAYERS = ("conv1_1", "fc6-deconv", "deconv1_2")
DECONVNET_SCORES = "seg-score-voc"
# fcn8s-heavy-pascal.caffemodel, the later release, is the same network with these names and without a bias in score2.
HEAVY_NAMES = {
    "score_fr": "score-fr",
    "upscore2": "score2",
    "score_pool4": "score-pool4",
    "upscore_pool4": "score4",
    "score_pool3": "score-pool3",
    "upscore8": "upsample",
}
# The smallest possible networks, which only supply the names of the layers.
TINY_DECONVNET = DeconvNet(num_classes=1, width=1 / 512, fc_features=1)
TINY_FCN8S = FCN8s(width=1 / 512, fc_features=1)


def network_from_caffe(path: str | Path, folded_bn: bool | None = None) -> tuple[Network, Variables, dict[str, str]]:
    """Reads a caffemodel of a DeconvNet or an FCN-8s, whichever it holds.

    Args:
      path: a caffemodel of the authors or of Berkeley, or one that was fine-tuned from these.
      folded_bn: whether the batch statistics of a DeconvNet are folded; see `deconvnet_from_caffe`. None decides by the
        file: False if it has a loss layer, as snapshots of training have, and True otherwise.

    Returns:
      The module; its variables, float32; and what is known of its running statistics, for `save_network`: {} for an
      FCN-8s, {"batch_statistics": "folded" or "unknown"} for a DeconvNet.

    Raises:
      CaffemodelError: for a file that holds neither network, is damaged, or whose layers do not fit together.

    Example:
      >>> from deconvnet_jax.weights import network_from_caffe
      >>> net, variables, statistics = network_from_caffe("DeconvNet_trainval_inference.caffemodel")
      >>> type(net).__name__, net.num_classes, statistics
      ('DeconvNet', 21, {'batch_statistics': 'folded'})
    """
    layers = {layer.name: layer.type for layer in read_layers(path, with_blobs=False)}
    if set(DECONVNET_LAYERS) <= set(layers):
        if folded_bn is None:
            folded_bn = not any(kind in LOSS_TYPES or (not kind and "loss" in name) for name, kind in layers.items())
        return *deconvnet_from_caffe(path, folded_bn), {"batch_statistics": "folded" if folded_bn else "unknown"}
    if any("score" in name for name in layers) or set(DECONVOLUTION_TYPES) & set(layers.values()):
        net, variables = fcn8s_from_caffe(path)
        return net, variables, {}
    raise CaffemodelError(
        f"{path} is neither a DeconvNet (it has no layer 'fc6-deconv') nor an FCN-8s (no 'score-fr'); a VGG-16 is "
        "only an encoder: give it as --vgg16 to experiments.import_weights, or as --config.init.vgg16 to voc_train"
    )


def deconvnet_from_caffe(path: str | Path, folded_bn: bool = True) -> tuple[DeconvNet, Variables]:
    """Reads a caffemodel of the authors' DeconvNet.

    The original has no running statistics. During training its BN layers hold a scale and a shift and use the batch
    statistics. After training, the authors' BN_make_INFERENCE_script.py folds averaged statistics into scale and shift.

    Args:
      path: a file such as DeconvNet_trainval_inference.caffemodel or stage_1_train_result.caffemodel. The number of
        classes and the widths of the layers may differ from the authors'.
      folded_bn: True for files with folded statistics (..._inference). Normalisation then applies only scale and
        shift, and the running mean and variance are set to 0 and 1. False for stage_*_train_result: the running
        statistics are unknown and also set to 0 and 1. Such a network can be trained further, but predicts only after
        `training.calibrate_batch_norm` has re-estimated them.

    Returns:
      The module, and its variables {"params", "batch_stats"}, float32.

    Raises:
      CaffemodelError: for a file that is no caffemodel or is damaged, and for a layer that is missing, unknown or of
        the wrong shape.

    Example:
      >>> from deconvnet_jax.weights import deconvnet_from_caffe
      >>> net, variables = deconvnet_from_caffe("DeconvNet_trainval_inference.caffemodel")
      >>> sorted(variables), net.num_classes
      (['batch_stats', 'params'], 21)
    """
    layers, source = load_caffemodel(path), str(path)
    scores = {DECONVNET_SCORES: (None, _kernel_shape(layers, "deconv1_2")[1], 1, 1)}
    layers = _original_names(layers, layer_names(TINY_DECONVNET), scores, source)
    encoder, fc6, decoder, score = _kernel_shapes(layers, ("conv5_3", "fc6", "deconv5_1", DECONVNET_SCORES), source)
    net = DeconvNet(
        num_classes=score[0],
        width=encoder[0] / 512,
        decoder_width=decoder[1] / encoder[0],
        fc_features=layers["bnfc6"][0].size,
        fc_window=fc6[2],
    )
    shapes = _variable_shapes(net)
    deconvolutions = [name for name in shapes["params"] if "deconv" in name and "bn" not in name]
    params = params_from_caffe(layers, shapes["params"], deconvolutions, source)
    # With this variance, a folded normalisation divides by exactly 1, the square root of variance plus epsilon.
    values = {"mean": 0.0, "var": 1 - net.bn_epsilon if folded_bn else 1.0}
    batch_stats = {
        name: {part: jnp.full(leaf.shape, values[part], leaf.dtype) for part, leaf in statistics.items()}
        for name, statistics in shapes["batch_stats"].items()
    }
    return net, {"params": params, "batch_stats": batch_stats}


def fcn8s_from_caffe(path: str | Path) -> tuple[FCN8s, Variables]:
    """Reads a caffemodel of Berkeley's FCN-8s.

    Args:
      path: fcn-8s-pascal.caffemodel, fcn8s-heavy-pascal.caffemodel, or a file with the same layers. The number of
        classes and the widths of the layers may differ.

    Returns:
      The module, and its variables {"params"}, float32.

    Raises:
      CaffemodelError: for a file that is no caffemodel or is damaged, and for a layer that is missing, unknown or of
        the wrong shape.

    Example:
      >>> from deconvnet_jax.weights import fcn8s_from_caffe
      >>> net, variables = fcn8s_from_caffe("fcn-8s-pascal.caffemodel")
      >>> type(net).__name__, net.num_classes
      ('FCN8s', 21)
    """
    layers, source = {HEAVY_NAMES.get(name, name): blobs for name, blobs in load_caffemodel(path).items()}, str(path)
    inputs = {"score-fr": "fc7", "score-pool4": "conv4_3", "score-pool3": "conv3_3"}
    deconvolutions = {"score2": (None, None, 4, 4), "score4": (None, None, 4, 4), "upsample": (None, None, 16, 16)}
    scores = {name: (None, _kernel_shape(layers, before)[0], 1, 1) for name, before in inputs.items()}
    layers = _original_names(layers, layer_names(TINY_FCN8S), scores | deconvolutions, source)
    encoder, fc6, score, _ = _kernel_shapes(layers, ("conv5_3", "fc6", "score-fr", "score2"), source)
    if len(layers["score2"]) == 1:
        layers["score2"].append(np.zeros(score[0], np.float32))
    net = FCN8s(num_classes=score[0], width=encoder[0] / 512, fc_features=fc6[0])
    return net, {"params": params_from_caffe(layers, _variable_shapes(net)["params"], deconvolutions, source)}


def _variable_shapes(net: Network) -> Variables:
    """Returns the variables of a network as shapes, without allocating them."""
    images = jax.ShapeDtypeStruct((1, net.min_input_size, net.min_input_size, 3), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), images)


def _kernel_shape(layers: Layers, name: str) -> KernelShape:
    """Returns the shape of a layer's kernel; (None, None, None, None) if the layer or a kernel of 4 axes is missing."""
    shape = layers[name][0].shape if layers.get(name) else ()
    return shape if len(shape) == 4 else (None,) * 4


def _kernel_shapes(layers: Layers, names: Iterable[str], source: str) -> list[tuple[int, ...]]:
    """Returns the kernel shapes of these layers; raises CaffemodelError for a kernel without 4 axes."""
    shapes = {name: layers[name][0].shape for name in names}
    for name, shape in shapes.items():
        if len(shape) != 4:
            raise CaffemodelError(
                f"{source}: kernel of layer {name!r} has the shape {shape}, expected 4 dimensions; give another file"
            )
    return list(shapes.values())


def _original_names(layers: Layers, names: Collection[str], scores: Mapping[str, KernelShape], source: str) -> Layers:
    """Returns the layers with the original's names for score layers that were renamed for fine-tuning.

    Caffe copies the parameters of layers with equal names. To train on other classes, users therefore rename the layers
    whose shapes depend on the classes. A renamed layer is recognised by its shape. If several have the same shape, a
    similar name decides, and then the order in the file if as many layers are left as are missing.

    Args:
      layers: from `load_caffemodel`.
      names: the names of all layers of the original.
      scores: the kernel shapes of the layers that may be renamed, in the network's order.
      source: the file, named in error messages.

    Raises:
      CaffemodelError: unless the result has exactly the layers of the original.
    """
    extra = [name for name in layers if name not in names]
    missing = {name: shape for name, shape in scores.items() if name not in layers}
    new_names: dict[str, str] = {}
    for shape in dict.fromkeys(missing.values()):
        wanted = [name for name in missing if missing[name] == shape]
        fitting = [name for name in extra if _fits(layers[name][0].shape, shape)]
        for name in wanted.copy():
            similar = [other for other in fitting if _plain(name) in _plain(other)]
            if len(similar) == 1:
                new_names[similar[0]] = name
                fitting.remove(similar[0])
                wanted.remove(name)
        if len(fitting) == len(wanted):
            new_names |= dict(zip(fitting, wanted, strict=True))
        elif wanted and len(fitting) > len(wanted):
            raise CaffemodelError(
                f"{source} has no layer {wanted[0]!r}, but {len(fitting)} layers that may be it under another name "
                f"({', '.join(map(repr, fitting[:5]))}); rename the right one to {wanted[0]!r} and save the file"
            )
    layers = {new_names.get(name, name): blobs for name, blobs in layers.items()}
    for expected, others, what in ((names, layers, "lacks"), (layers, names, "has, unlike this network,")):
        found = [name for name in expected if name not in others]
        if found:
            rest = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise CaffemodelError(
                f"{source} {what} the layer {found[0]!r}{rest}; it holds another network: give another file"
            )
    return layers


def _fits(found: tuple[int, ...], shape: KernelShape) -> bool:
    """Returns whether a shape is the expected one; None in the expected shape matches any size."""
    return len(found) == len(shape) and all(want in (None, n) for want, n in zip(shape, found, strict=True))


def _plain(name: str) -> str:
    """Returns a layer's name in lower case without separators, for comparing names."""
    return name.lower().replace("-", "").replace("_", "")


def params_from_caffe(
    layers: Layers, shapes: Mapping[str, Mapping[str, Array]], deconvolutions: Collection[str], source: str
) -> dict[str, dict[str, Array]]:
    """Converts the blobs of all layers to the parameters of a network.

    Convolutions [out, in, kh, kw] become [kh, kw, in, out]. Deconvolutions [in, out, kh, kw] become the kernel
    [kh, kw, in, out] of Flax's transposed convolution, flipped in both directions: Caffe's response to an impulse is
    the kernel, that of Flax the flipped kernel. With stride 1 this is also the kernel of the equivalent convolution.

    Args:
      layers: {layer: blobs} for exactly the layers of the network. They are removed one by one, which saves memory.
      shapes: the network's "params" as arrays or shapes: {layer: {"kernel", "bias"} or {"scale", "bias"}}.
      deconvolutions: the names of the layers that are deconvolutions.
      source: the file, named in error messages.

    Returns:
      The network's "params", float32.

    Raises:
      CaffemodelError: for a wrong number or shape of blobs, and for values that are not finite.
    """
    params: dict[str, dict[str, Array]] = {}
    for name, parts in shapes.items():
        blobs = layers.pop(name)
        order = [part for part in ("kernel", "scale", "bias") if part in parts]
        if len(blobs) != len(order):
            raise CaffemodelError(
                f"{source}: layer {name!r} has {len(blobs)} blob(s), expected {len(order)} ({', '.join(order)}); give "
                "another file"
            )
        params[name] = {}
        for part in order:
            what = f"{source}: {part} of layer {name!r}"
            params[name][part] = _flax_array(blobs.pop(0), parts[part].shape, name in deconvolutions, what)
    return params


def _flax_array(blob: np.ndarray, shape: tuple[int, ...], deconvolution: bool, what: str) -> Array:
    """Returns a blob in Flax's axes; `shape` is the expected result, and `what` names the array in error messages."""
    expected = shape
    if len(shape) == 4:
        kh, kw, fan_in, fan_out = shape
        expected = (fan_in, fan_out, kh, kw) if deconvolution else (fan_out, fan_in, kh, kw)
    elif shape[0] == blob.size == max(blob.shape, default=1):  # Older files have the shape [1, 1, 1, out].
        blob = blob.ravel()
    if blob.shape != expected:
        raise CaffemodelError(f"{what} has the shape {blob.shape}, expected {expected}; give another file")
    if not np.isfinite(blob).all():
        raise CaffemodelError(f"{what} has values that are no finite numbers; the file is damaged: download it again")
    if len(shape) == 4:
        blob = blob.transpose(2, 3, 0, 1)[::-1, ::-1] if deconvolution else blob.transpose(2, 3, 1, 0)
    return jnp.asarray(np.ascontiguousarray(blob, np.float32))
