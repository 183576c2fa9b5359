"""From a layer's blobs as Caffe stores them to its Flax parameters."""

from collections.abc import Collection, Mapping

import chex
import jax.numpy as jnp
import numpy as np
from jax import Array

from deconvnet_jax.weights.caffemodel import CaffemodelError


def params_from_caffe(
    layers: dict[str, list[np.ndarray]],
    shapes: Mapping[str, chex.ArrayTree],
    *,
    deconvolutions: Collection[str],
    source: str,
) -> dict[str, dict[str, Array]]:
    """Parameters of a network, every layer by its name; the layers are taken out of `layers`, to save memory.

    Convolutions (out, in, kh, kw) become [kh, kw, in, out]. Deconvolutions (in, out, kh, kw) become the kernel of
    flax's transposed convolution, [kh, kw, in, out], flipped in both directions: Caffe's answer to an impulse is the
    kernel, flax's is the flipped kernel. With stride 1 that is also the kernel of the equivalent convolution.

    Args:
      layers: from `load_caffemodel`.
      shapes: the network's "params", arrays or shapes: {layer: {"kernel", "bias"} or {"scale", "bias"}}, the parts in
        the order of the blobs.
      deconvolutions: names of the layers that are such.
      source: the file, for messages.

    Raises:
      CaffemodelError: for a layer that is missing or that the network does not have, a wrong shape or number of
        blobs, and values that are not finite.
    """
    check_names(layers, shapes, source)
    params = {}
    for name, parts in shapes.items():
        blobs = layers.pop(name)
        order = [part for part in ("kernel", "scale", "bias") if part in parts]
        if len(blobs) != len(order):
            raise CaffemodelError(
                f"{source}: layer {name!r} has {len(blobs)} blob(s), expected {len(order)} ({', '.join(order)})"
            )
        params[name] = {}
        while order:
            part, blob = order.pop(0), blobs.pop(0)
            what = f"{source}: {part} of layer {name!r}"
            params[name][part] = _convert(blob, parts[part].shape, name in deconvolutions, what)
    return params


def check_names(layers: Collection[str], expected: Collection[str], source: str) -> None:
    """Raises CaffemodelError unless the names are the same."""
    for names, others, what in ((expected, layers, "lacks"), (layers, expected, "has, unlike this network,")):
        found = [name for name in names if name not in others]
        if found:
            rest = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise CaffemodelError(f"{source} {what} the layer {found[0]!r}{rest}; it is a model of another network")


def _convert(blob: np.ndarray, shape: tuple[int, ...], deconvolution: bool, what: str) -> Array:
    if len(shape) == 1:
        fits = blob.size == shape[0] == max(blob.shape, default=1)
    else:
        kh, kw, fan_in, fan_out = shape
        expected = (fan_in, fan_out, kh, kw) if deconvolution else (fan_out, fan_in, kh, kw)
        fits = blob.shape == expected
    if not fits:
        wanted = f"({shape[0]},)" if len(shape) == 1 else expected
        raise CaffemodelError(f"{what} has the shape {blob.shape}, expected {wanted}")
    if not np.isfinite(blob).all():
        raise CaffemodelError(f"{what} has values that are no finite numbers; the file is damaged: fetch it again")
    if len(shape) == 1:
        blob = blob.reshape(shape)
    elif deconvolution:
        blob = blob.transpose(2, 3, 0, 1)[::-1, ::-1]
    else:
        blob = blob.transpose(2, 3, 1, 0)
    return jnp.asarray(np.ascontiguousarray(blob, np.float32))
