"""The permutohedral lattice of permutohedral.py in NumPy, for known points on a CPU: the same arrays, sooner.

XLA sorts and searches numbers one comparison at a time; NumPy sorts in vectors, and sorted numbers are searched for in
order. Arrays are as large as what is in them, and padded at the end.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from deconvnet_jax.ops.permutohedral import FIRST_SHARES, MORE_SHARES, Entries, Lattice, more_rows, point_bits


class HostVertices(NamedTuple):
    """V vertices, numbered in the order in which they appear along the points, and E entries sorted by vertex.

    Attributes:
      keys: uint64 [V], in their order.
      names: int32 [V], the number of the vertex of each key.
      steps: uint64 [d + 2], as in `Entries`.
      points: int32 [E], colours one after the other, each as many as there are points.
      weights: float32 [d + 1, n], as in `Entries`.
      begins: int32 [V], the first entry of every vertex, by number.
      ends: int32 [V], one after its last.
      counted: number of vertices; of rows that points beyond the first few of a vertex need.
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
    """Sorts the entries, numbers their vertices and counts."""
    packed, steps, weights, points = (np.asarray(array) for array in entries)
    colours, n, _ = packed.shape
    bits = point_bits(n)
    ordered = np.sort(packed.view(np.uint64)[..., 0], axis=1)[:, : int(points)].ravel()  # padding is at the end
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
    """Makes the lattice, with room for so many vertices and further rows: more than there are, at least as many."""
    colours, n = found.weights.shape
    last = capacity - 1
    points = found.points.reshape(colours, -1)
    of_entry = np.repeat(found.names, (found.ends - found.begins)[found.names])
    vertices = np.full((colours, n), last, np.int32)
    np.put_along_axis(vertices, points, of_entry.reshape(colours, -1), axis=1)
    weights = np.take_along_axis(found.weights, points, axis=1).ravel()

    def gathered(begins: np.ndarray, ends: np.ndarray, count: int, padded: int) -> tuple[np.ndarray, np.ndarray]:
        """The points of entries begins, begins + 1, ..., up to ends, and their weights: [padded, count]."""
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
    """Numbers of the two neighbours of every vertex along every direction: int32 [d + 1, 2, capacity]."""
    keys, names, steps, colours = found.keys, found.names, found.steps, len(found.weights)
    neighbours = np.full((colours, 2, capacity), capacity - 1, np.int32)
    # Numbers of 64 bits that wrap around. Below colour 0 is colour d, one step back along all coordinates.
    down = np.where(keys < steps[-1], (colours - 1) * steps[-1:] - steps[:-1].sum(), -steps[-1:])

    def search(direction: int) -> None:
        wanted = keys + (down + steps[direction])
        places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        exists = keys[places] == wanted
        ahead, own = names[places[exists]], names[exists]
        neighbours[direction, 0, own] = ahead
        neighbours[direction, 1, ahead] = own  # it has me behind

    with ThreadPoolExecutor(colours) as pool:
        list(pool.map(search, range(colours)))
    return neighbours
