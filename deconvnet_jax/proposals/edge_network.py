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
BUCKET = 64  # sides are padded to multiples of this: few programs for images of many sizes
MARGIN = 16  # at least so many mirrored pixels around an image, so that the padding hardly shows
BATCH = 8


def network_edges(image: np.ndarray) -> np.ndarray:
    """The expected share of people who would draw a boundary at every pixel.

    Args:
      image: uint8 RGB [H, W, 3].

    Returns:
      float32 [H, W] in 0..1.
    """
    return network_edges_batch([image])[0]


def network_edges_batch(images: Sequence[np.ndarray], params: Layers | None = None) -> list[np.ndarray]:
    """`network_edges` of many images, on JAX's default device, in batches of images of about the same size.

    Args:
      images: uint8 RGB [H_i, W_i, 3].
      params: of the network; by default those that come with this package.
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
    """The parameters in edge_network.npz."""
    return read_edge_network(WEIGHTS)


def read_edge_network(path: str | Path) -> Layers:
    """Parameters written by `write_edge_network`, as float32.

    Raises:
      InputError: if the file is missing, of another kind, damaged, or of another network.
    """
    path = Path(path)
    kind = file_kind(path)
    if kind != NPZ:
        raise InputError(f"edge network {wrong_kind(path, kind, 'an .npz file of experiments.train_edges')}")
    flat = {name: value.astype(np.float32) for name, value in read_npz(path).items() if value.dtype.kind == "f"}
    params: Layers = defaultdict(dict)
    for name, value in flat.items():
        layer, _, kind = name.partition("/")
        params[layer][kind] = value  # pyright: ignore[reportArgumentType]  JAX takes NumPy's arrays
    image = jax.ShapeDtypeStruct((1, BUCKET, BUCKET, 3), np.uint8)
    wanted = jax.eval_shape(EdgeNetwork().init, jax.random.key(0), image)["params"]
    shapes = {f"{layer}/{kind}": leaf.shape for layer, kinds in wanted.items() for kind, leaf in kinds.items()}
    if {name: value.shape for name, value in flat.items()} != shapes:
        raise InputError(f"{path} is no edge network of this version; train it again with experiments.train_edges")
    return dict(params)


def write_edge_network(path: str | Path, params: Layers) -> None:
    """Writes parameters as float16, 0.3 MB."""
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
    """Groups of BATCH, and the rest one by one: two programs for a size, not one for every rest."""
    full = len(members) // BATCH * BATCH
    return [members[i : i + BATCH] for i in range(0, full, BATCH)] + [[i] for i in members[full:]]


def _padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    below, right = height - MARGIN - image.shape[0], width - MARGIN - image.shape[1]
    return np.pad(image, ((MARGIN, below), (MARGIN, right), (0, 0)), mode="symmetric")
