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


def rename_layers(
    layers: dict[str, list[np.ndarray]],
    names: Collection[str],
    shapes: Mapping[str, tuple[int | None, ...]],
    source: str,
) -> dict[str, list[np.ndarray]]:
    """Gives layers that were renamed for fine-tuning the names of the original.

    Caffe copies the parameters of layers whose names are equal. Who trains on other classes gives the layers whose
    shapes depend on the classes other names, so that they start afresh. Such a layer is known by its shape; of several
    with the same shape, by its name, or else by the order in the file if there are as many as are missing.

    Args:
      layers: from `load_caffemodel`.
      names: of all layers of the original.
      shapes: of the kernels of the layers that may be renamed, as Caffe stores them; None for any size.
      source: the file, for messages.

    Returns:
      The layers by their names in the original; those that fit none keep theirs.

    Raises:
      CaffemodelError: if several layers could be one that is missing.
    """
    extra = [name for name in layers if name not in names and layers[name]]
    new_names: dict[str, str] = {}
    missing = {name: shape for name, shape in shapes.items() if name not in layers}
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
                f"{source} has no layer {wanted[0]!r}, but {len(fitting)} that may be it under another name "
                f"({', '.join(map(repr, fitting[:5]))}); give that layer its name in the original and save the file"
            )
    return {new_names.get(name, name): blobs for name, blobs in layers.items()}


def kernel_shape(layers: Mapping[str, list[np.ndarray]], name: str) -> tuple[int | None, ...]:
    """Returns the shape of a layer's kernel; four times None if there is no such layer with a kernel of 4 axes."""
    shape = layers[name][0].shape if layers.get(name) else ()
    return shape if len(shape) == 4 else (None,) * 4


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(found) == len(shape) and all(want in (None, n) for want, n in zip(shape, found, strict=True))


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


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
