"""The permutohedral lattice of permutohedral.py in NumPy, for known points on a CPU: equal arrays in less time.

XLA sorts and searches with one comparison at a time. NumPy sorts with vector instructions, and searches for sorted
numbers in order. Here arrays are as large as their content and are padded at the end.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from deconvnet_jax.ops.permutohedral import FIRST_SHARES, MORE_SHARES, Entries, Lattice, more_rows, point_bits


class HostVertices(NamedTuple):
    """V vertices, numbered in the order in which they first appear along the points, and E entries sorted by vertex.

    Attributes:
      keys: uint64 [V], sorted.
      names: int32 [V], the number of the vertex of each key.
      steps: uint64 [d + 2], as in `Entries`.
      points: int32 [E], the point of each entry; one colour after the other, each with as many entries as points.
      weights: float32 [d + 1, n], as in `Entries`.
      begins: int32 [V], the first entry of every vertex, by the vertex's number.
      ends: int32 [V], one after the last entry of every vertex.
      counted: the number of vertices, and the number of extra rows (`more_rows`) of all vertices.
    """

    keys: np.ndarray
    names: np.ndarray
    steps: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    counted: tuple[int, int]


def find_vertices(entries: Entries) -> HostVertices:
    """Returns the vertices of the entries: sorted, numbered and counted."""
    packed, steps, weights, points = (np.asarray(array) for array in entries)
    colours, n, _ = packed.shape
    bits = point_bits(n)
    ordered = np.sort(packed.view(np.uint64)[..., 0], axis=1)[:, : int(points)].ravel()  # Padding is at the end.
    points, keys = (ordered & np.uint64(2**bits - 1)).astype(np.int32), ordered >> np.uint64(bits)
    firsts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])).astype(np.int32)
    colour = firsts // np.int32(len(points) // colours)
    appearance = np.argsort(points[firsts] * np.int64(colours) + colour)
    names = np.empty(len(firsts), np.int32)
    names[appearance] = np.arange(len(firsts), dtype=np.int32)
    ends = np.append(firsts[1:], np.int32(len(points)))
    begins, ends = firsts[appearance], ends[appearance]
    count = len(firsts), int(more_rows(ends - begins).sum())
    return HostVertices(keys[firsts], names, steps.view(np.uint64)[:, 0], points, weights, begins, ends, count)


def build_lattice(found: HostVertices, capacity: int, rows: int) -> Lattice:
    """Returns the lattice of the vertices found, padded to the given sizes.

    Args:
      found: result of `find_vertices`.
      capacity: C, room for vertices; more than there are vertices.
      rows: R, room for extra rows, at least as many as counted.

    Returns:
      A lattice of NumPy arrays for `permutohedral.lattice_filter`.
    """
    colours, n = found.weights.shape
    last = capacity - 1
    points = found.points.reshape(colours, -1)
    of_entry = np.repeat(found.names, (found.ends - found.begins)[found.names])
    vertices = np.full((colours, n), last, np.int32)
    np.put_along_axis(vertices, points, of_entry.reshape(colours, -1), axis=1)
    weights = np.take_along_axis(found.weights, points, axis=1).ravel()

    def gathered(begins: np.ndarray, ends: np.ndarray, count: int, padded: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns `count` points per vertex, from the entries begins to ends, and their weights: [padded, count]."""
        entries = begins[:, None] + np.arange(count, dtype=np.int32)
        inside = entries < ends[:, None]
        some_points, some_weights = np.zeros((padded, count), np.int32), np.zeros((padded, count), np.float32)
        np.take(found.points, entries, mode="clip", out=some_points[: len(begins)])
        some_weights[: len(begins)] = weights.take(entries, mode="clip") * inside
        return some_points, some_weights

    further = more_rows(found.ends - found.begins)
    of_row = np.repeat(np.arange(len(further), dtype=np.int32), further)
    row = np.arange(len(of_row), dtype=np.int32) - np.repeat(np.cumsum(further, dtype=np.int32) - further, further)
    more = found.begins[of_row] + FIRST_SHARES + row * MORE_SHARES
    return Lattice(
        vertices,
        found.weights,
        _neighbours(found, capacity),
        *gathered(found.begins, found.ends, FIRST_SHARES, capacity),
        *gathered(more, found.ends[of_row], MORE_SHARES, rows),
        np.pad(of_row, (0, rows - len(of_row)), constant_values=last),
        np.full(2, last, np.int32),
    )


def _neighbours(found: HostVertices, capacity: int) -> np.ndarray:
    """Returns the numbers of the two neighbours of every vertex along every direction: int32 [d + 1, 2, capacity]."""
    keys, names, steps, colours = found.keys, found.names, found.steps, len(found.weights)
    neighbours = np.full((colours, 2, capacity), capacity - 1, np.int32)
    # 64-bit arithmetic wraps around. Below colour 0 comes colour d, one step back along all coordinates.
    down = np.where(keys < steps[-1], (colours - 1) * steps[-1:] - steps[:-1].sum(), -steps[-1:])

    def search(direction: int) -> None:
        wanted = keys + (down + steps[direction])
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        exists = keys[places] == wanted
        ahead, own = names[places[exists]], names[exists]
        neighbours[direction, 0, own] = ahead
        neighbours[direction, 1, ahead] = own  # The neighbour ahead has this vertex behind it.

    with ThreadPoolExecutor(colours) as pool:
        list(pool.map(search, range(colours)))
    return neighbours
