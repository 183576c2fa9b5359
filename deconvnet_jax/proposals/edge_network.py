"""The edge map of the small network that this project trained and ships (edge_network.npz, edge_network.md)."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import cast

import jax
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.file_kinds import NPZ, file_kind, wrong_kind
from deconvnet_jax.models import EdgeNetwork, Layers, compiler_options
from deconvnet_jax.npz import read_npz, write_npz

WEIGHTS = Path(__file__).with_name("edge_network.npz")
BUCKET = 64  # Sides are padded to multiples of this, so that images of many sizes share few programs.
MARGIN = 16  # Smallest number of mirrored pixels around an image; they hide the effect of the padding.
BATCH = 8  # Images per batch.


def network_edges(image: np.ndarray) -> np.ndarray:
    """Returns, for every pixel, the expected share of people who would draw a boundary there.

    Args:
      image: uint8 RGB [H, W, 3].

    Returns:
      float32 [H, W] in 0..1.
    """
    return network_edges_batch([image])[0]


def network_edges_batch(images: Sequence[np.ndarray], params: Layers | None = None) -> list[np.ndarray]:
    """Returns the edge maps of many images, as `network_edges` does for one.

    It runs on JAX's default device, in batches of images that are padded to the same size.

    Args:
      images: uint8 RGB [H_i, W_i, 3].
      params: parameters of `EdgeNetwork`; None uses those shipped with this package.

    Returns:
      One float32 [H_i, W_i] in 0..1 per image, in the order of the images.
    """
    params = shipped_params() if params is None else params
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, image in enumerate(images):
        groups[tuple(-(-(side + 2 * MARGIN) // BUCKET) * BUCKET for side in image.shape[:2])].append(i)
    edges: list[np.ndarray] = [np.empty(0)] * len(images)
    for (height, width), members in groups.items():
        for chunk in _chunks(members):
            padded = np.stack([_padded(images[i], height, width) for i in chunk])
            maps = np.asarray(_program()(params, padded))
            for i, found in zip(chunk, maps, strict=True):
                rows, columns = images[i].shape[:2]
                edges[i] = found[MARGIN : MARGIN + rows, MARGIN : MARGIN + columns]
    return edges


@cache
def shipped_params() -> Layers:
    """Returns the parameters in edge_network.npz."""
    return read_edge_network(WEIGHTS)


def read_edge_network(path: str | Path) -> Layers:
    """Reads parameters that `write_edge_network` wrote, and returns them as float32.

    Raises:
      InputError: if the file is missing, damaged, of another kind, or belongs to another network.
    """
    path = Path(path)
    kind = file_kind(path)
    if kind != NPZ:
        raise InputError(f"edge network {wrong_kind(path, kind, 'an .npz file of experiments.train_edges')}")
    flat = {name: value.astype(np.float32) for name, value in read_npz(path).items() if value.dtype.kind == "f"}
    params: Layers = defaultdict(dict)
    for name, value in flat.items():
        layer, _, kind = name.partition("/")
        params[layer][kind] = value  # pyright: ignore[reportArgumentType]  JAX accepts NumPy arrays
    image = jax.ShapeDtypeStruct((1, BUCKET, BUCKET, 3), np.uint8)
    wanted = jax.eval_shape(EdgeNetwork().init, jax.random.key(0), image)["params"]
    shapes = {f"{layer}/{kind}": leaf.shape for layer, kinds in wanted.items() for kind, leaf in kinds.items()}
    if {name: value.shape for name, value in flat.items()} != shapes:
        raise InputError(f"{path} is not an edge network of this version; train it again with experiments.train_edges")
    return dict(params)


def write_edge_network(path: str | Path, params: Layers) -> None:
    """Writes the parameters of an edge network as a float16 .npz file of 0.3 MB.

    Args:
      path: file to write.
      params: parameters of `EdgeNetwork`, from `train_edge_network`.
    """
    flat = {
        f"{layer}/{kind}": np.asarray(leaf, np.float16)
        for layer, kinds in params.items()
        for kind, leaf in kinds.items()
    }
    write_npz(Path(path), flat)


@cache
def _program() -> jax.stages.Wrapped:
    def run(params: Layers, images: jax.Array) -> jax.Array:
        logits = EdgeNetwork().apply({"params": params}, images)
        return jax.nn.sigmoid(cast(jax.Array, logits))

    return jax.jit(run, compiler_options=compiler_options(jax.default_backend()))


def _chunks(members: list[int]) -> list[list[int]]:
    """Returns groups of BATCH members, then single members, so that each image size needs only two programs."""
    full = len(members) // BATCH * BATCH
    return [members[i : i + BATCH] for i in range(0, full, BATCH)] + [[i] for i in members[full:]]


def _padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    below, right = height - MARGIN - image.shape[0], width - MARGIN - image.shape[1]
    return np.pad(image, ((MARGIN, below), (MARGIN, right), (0, 0)), mode="symmetric")
