"""The permutohedral lattice: Gaussian filtering of points in a few dimensions, in time linear in the number of points.

Source: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010, as
densecrf uses it (Krähenbühl and Koltun, NIPS 2011). At the bandwidths of a CRF the lattice only roughly approximates a
Gaussian, and this error is part of the CRF's result. So rounding, the order of the blur and the scale follow densecrf.

A point has d features in standard deviations. It lies in a simplex with one vertex of each colour 0..d. Filtering has
three steps. Splat spreads values to these vertices by barycentric weights. Blur mixes every vertex with its existing
neighbours by 1/2, 1, 1/2 along each of d + 1 directions. Slice collects the values at the points.

Points that share a vertex are found by sorting integers. Vertices of one colour differ in d small integers, which are
packed with the number of the point into 64 bits. The key of a neighbour lies at a fixed distance and is found by binary
search. Only these keys are 64 bits wide; between programs they are stored as two halves of 32 bits.

XLA's arrays have fixed sizes, so two more programs turn the entries (`find_entries`) into a lattice. `find_vertices`
uses arrays for the worst case and counts; `build_lattice` allocates what was counted. permutohedral_host.py has both in
NumPy, which sorts and searches several times faster on a CPU.

A value [K] is one row, and every step gathers rows. Even the splat gathers instead of scattering for most vertices,
namely those with few points.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deconvnet_jax.ops.linear import linear_call

FIRST_SHARES = 4  # Points gathered for every vertex; in five dimensions, nine in ten vertices have no more.
MORE_SHARES = 8  # Points in every extra row of a vertex.


Numbers = TypeVar("Numbers", Array, np.ndarray)


class Entries(NamedTuple):
    """One entry for every vertex of every point: n points of d features, some of which may be padding.

    Attributes:
      packed: uint32 [d + 1, n, 2], by colour. Two halves, lower first, of 64 bits: the key of the vertex and, in the
        last `point_bits` bits, the number of the point. All ones for padding.
      steps: uint32 [d + 2, 2], halves of the distances between keys: along every direction, then from a colour to the
        next.
      weights: float32 [d + 1, n], barycentric weights by colour; 0 for padding.
      points: int32 [], number of points that are not padding.
    """

    packed: Array
    steps: Array
    weights: Array
    points: Array


class Vertices(NamedTuple):
    """The vertices of all points, as S = (d + 1) * n entries sorted by colour, vertex and point.

    Vertices are numbered in the order in which they first appear along the points.

    Attributes:
      keys: uint32 [S, 2], two halves of the key of each entry's vertex.
      steps: uint32 [d + 2, 2], as in `Entries`.
      points: int32 [S], the point of each entry.
      names: int32 [S], the number of each entry's vertex; S for padding.
      begins: int32 [S + 1], the first entry of every vertex; S for vertices that do not exist.
      ends: int32 [S], for every entry, the first entry after those of its vertex.
      weights: float32 [d + 1, n], barycentric weights by colour; 0 for padding.
      counted: int32 [2], the number of vertices, and the number of extra rows (`more_rows`) of all vertices.
    """

    keys: Array
    steps: Array
    points: Array
    names: Array
    begins: Array
    ends: Array
    weights: Array
    counted: Array


class Lattice(NamedTuple):
    """Lattice with room for C vertices, the last of which stands for all missing ones and has the value 0.

    Attributes:
      vertices: int32 [d + 1, n], the vertices of every point.
      weights: float32 [d + 1, n], the barycentric weights of `vertices`.
      neighbours: int32 [d + 1, 2, C], the two neighbours of every vertex along every direction.
      first: int32 [C, FIRST_SHARES], the first points of every vertex.
      first_weights: float32 [C, FIRST_SHARES], the barycentric weights of `first`; 0 where there is no point.
      more: int32 [R, MORE_SHARES], further points of vertices that have more.
      more_weights: float32 [R, MORE_SHARES], the barycentric weights of `more`; 0 where there is no point.
      targets: int32 [R], the vertex of each row of `more`.
      nothing: int32 [2], the index of the last vertex, twice.
    """

    vertices: Array | np.ndarray
    weights: Array | np.ndarray
    neighbours: Array | np.ndarray
    first: Array | np.ndarray
    first_weights: Array | np.ndarray
    more: Array | np.ndarray
    more_weights: Array | np.ndarray
    targets: Array | np.ndarray
    nothing: Array | np.ndarray


def fits_lattice(extents: Sequence[float], points: int) -> bool:
    """Returns whether points with features of these extents have keys that fit 64 bits.

    Args:
      extents: for each feature, the largest value in standard deviations; the smallest is 0.
      points: number of points.

    Returns:
      False also if float32 could not tell neighbouring places of the lattice apart.
    """
    d = len(extents)
    scaled = np.asarray(extents, np.float64) * _scales(d)
    ranges = [(scaled[i:].sum() + (i * scaled[i - 1] if i else 0)) / (d + 1) + 8 for i in range(d)]
    bits = sum(math.log2(size) for size in ranges) + math.log2(d + 3) + point_bits(points)
    return bits < 64 and max(ranges) * (d + 1) < 2**22  # In finer lattices float32 cannot tell places apart.


def most_vertices(points: int, dimensions: int) -> tuple[int, int]:
    """Returns upper limits for `Vertices.counted`, each plus one: sizes that always suffice.

    Args:
      points: number of points n.
      dimensions: number of features d.

    Returns:
      The largest number of vertices plus one, and the largest number of extra rows plus one.
    """
    entries = points * (dimensions + 1)
    return entries + 1, entries // (FIRST_SHARES + 1) + 1


def find_entries(features: Array, valid: Array) -> Entries:
    """Returns the simplex of every point, as one entry per vertex.

    Args:
      features: float32 [n, d], in standard deviations of the Gaussian; see `fits_lattice`.
      valid: bool [n]; False marks padding.

    Returns:
      Entries for d + 1 vertices of each point.
    """
    coordinates, order, weights = _simplices(features)
    packed, steps = _packed_keys(coordinates, order, valid)
    return Entries(packed, steps, jnp.where(valid, weights, 0), valid.sum(dtype=jnp.int32))


def find_vertices(entries: Entries) -> Vertices:
    """Returns the vertices of the entries: sorted, numbered and counted."""
    keys, points, first = _sorted_keys(entries.packed)
    colours, n = points.shape
    size = colours * n
    first, counts = first.ravel(), jnp.tile(jnp.arange(n) < entries.points, colours)  # Padding comes last.
    numbers = jnp.arange(size, dtype=jnp.int32)
    begins = lax.cummax(jnp.where(first, numbers, 0))
    ends = jnp.append(lax.cummin(jnp.where(first, numbers, size), reverse=True)[1:], size)
    places = (points * colours + jnp.arange(colours, dtype=jnp.int32)[:, None]).ravel()
    begins_vertex = first & counts
    appears = jnp.zeros(size, jnp.int32).at[jnp.where(begins_vertex, places, size)].set(1, mode="drop")
    names = (jnp.cumsum(appears, dtype=jnp.int32) - 1)[places[begins]]
    rows = jnp.where(begins_vertex, more_rows(ends - numbers), 0)
    return Vertices(
        keys=keys.reshape(size, 2),
        steps=entries.steps,
        points=points.ravel(),
        names=jnp.where(counts, names, size),
        begins=jnp.full(size + 1, size).at[jnp.where(begins_vertex, names, size + 1)].set(numbers, mode="drop"),
        ends=ends,
        weights=entries.weights,
        counted=jnp.stack([appears.sum(dtype=jnp.int32), rows.sum(dtype=jnp.int32)]),
    )


def more_rows(points: Numbers) -> Numbers:
    """Returns the number of extra rows that a vertex needs.

    Args:
      points: int32, any shape: the number of points of each vertex, at least one.

    Returns:
      int32 in the shape of `points`: rows of MORE_SHARES points beyond the first FIRST_SHARES.
    """
    return (points - FIRST_SHARES + MORE_SHARES - 1) // MORE_SHARES


def build_lattice(found: Vertices, capacity: int, rows: int) -> Lattice:
    """Returns the lattice of the vertices found.

    Args:
      found: result of `find_vertices`.
      capacity: C, room for vertices; more than there are vertices. A lattice that is too small filters wrongly.
      rows: R, room for extra rows, at least as many as counted.

    Returns:
      A lattice for `lattice_filter`.
    """
    colours, n = found.weights.shape
    last = jnp.int32(capacity - 1)
    colour = jnp.repeat(jnp.arange(colours, dtype=jnp.int32), n)
    vertices = jnp.full((colours, n), last).at[colour, found.points].set(jnp.minimum(found.names, last))

    size = colours * n
    numbers = jnp.arange(capacity, dtype=jnp.int32)
    begins = jnp.where(numbers < last, found.begins.at[numbers].get(mode="clip"), size)
    ends = jnp.where(begins < size, found.ends.at[begins].get(mode="clip"), size)

    def gathered(begins: Array, ends: Array, count: int) -> tuple[Array, Array]:
        """Returns `count` points per vertex, from the entries begins to ends, and their weights: [..., count]."""
        entries = begins[:, None] + jnp.arange(count, dtype=jnp.int32)
        points = found.points.at[entries].get(mode="clip")
        weights = found.weights.at[entries // n, points].get(mode="clip")
        return points, jnp.where(entries < ends[:, None], weights, 0)

    further = jnp.where(begins < size, more_rows(ends - begins), 0)
    following = jnp.cumsum(further, dtype=jnp.int32)
    before = following - further
    targets = jnp.zeros(rows, jnp.int32).at[jnp.where(further > 0, before, rows)].set(numbers, mode="drop")
    row = jnp.arange(rows, dtype=jnp.int32)
    targets = jnp.where(row < following[-1], lax.cummax(targets), last)
    more = begins[targets] + FIRST_SHARES + (row - before[targets]) * MORE_SHARES
    return Lattice(
        vertices,
        found.weights,
        _neighbours(found, capacity),
        *gathered(begins, ends, FIRST_SHARES),
        *gathered(more, ends[targets], MORE_SHARES),
        targets,
        jnp.stack([last, last]),
    )


def lattice_filter(lattice: Lattice, values: Array) -> Array:
    """Returns sums of values weighted by about exp(-|distance|^2 / 2) between points.

    Linear and differentiable in the values. The transpose blurs along the directions in reverse order and is as fast.

    Args:
      lattice: lattice of the n points.
      values: float32 [n, K], one row per point.

    Returns:
      float32 [n, K].
    """
    return linear_call(_filter, lambda lattice, values: _filter(lattice, values, reverse=True), lattice, values)


def _filter(lattice: Lattice, values: Array, reverse: bool = False) -> Array:
    directions = lattice.neighbours.shape[0]
    table = _gather_sum(lattice.first.T, lattice.first_weights.T, values)
    # The scatters also separate the steps: without them XLA would recompute each step inside the next one.
    table = table.at[lattice.targets].add(
        _gather_sum(lattice.more.T, lattice.more_weights.T, values), mode="promise_in_bounds"
    )
    for direction in range(directions)[:: -1 if reverse else 1]:
        ahead, behind = lattice.neighbours[direction]
        table += 0.5 * (_rows(table, ahead) + _rows(table, behind))
        table = table.at[lattice.nothing].set(0, mode="promise_in_bounds")
    scale = 1 / (1 + 2.0 ** (1 - directions))
    return _gather_sum(lattice.vertices, lattice.weights * scale, table)


def _rows(table: Array, index: Array) -> Array:
    return table.at[index].get(mode="promise_in_bounds")


def _gather_sum(index: Array | np.ndarray, weights: Array | np.ndarray, table: Array) -> Array:
    """Returns weighted sums [m, K] of rows of the table, from row numbers and weights [terms, m]."""
    terms = (weights[i][:, None] * _rows(table, index[i]) for i in range(len(index)))
    return sum(terms, start=next(terms))


def _scales(d: int) -> np.ndarray:
    """Returns the factors of the features with which the blur has a standard deviation of 1."""
    i = np.arange(1, d + 1)
    return math.sqrt(2 / 3) * (d + 1) / np.sqrt(i * (i + 1))


def _simplices(features: Array) -> tuple[Array, Array, Array]:
    """Returns the simplex of every point.

    Returns:
      int32 [d + 1, n], coordinates of the vertex of colour 0, in units of d + 1; int32 [d + 1, n], for every
      coordinate, how many coordinates have a larger remainder; float32 [d + 1, n], the barycentric weight of every
      colour.
    """
    d = features.shape[1]
    scaled = features.T * jnp.asarray(_scales(d), jnp.float32)[:, None]
    elevated, beyond = [], jnp.zeros_like(scaled[0])
    for i in range(d, 0, -1):  # In densecrf's order, so that the rounding is the same.
        elevated.append(beyond - i * scaled[i - 1])
        beyond += scaled[i - 1]
    elevated = jnp.stack([beyond, *elevated[::-1]])
    nearest = jnp.round(elevated * np.float32(1 / (d + 1)))
    rests = elevated - nearest * (d + 1)
    order = [jnp.zeros(rests.shape[1:], jnp.int32)] * (d + 1)
    for i in range(d):
        for j in range(i + 1, d + 1):
            less = (rests[i] < rests[j]).astype(jnp.int32)
            order[i], order[j] = order[i] + less, order[j] + 1 - less
    nearest = nearest.astype(jnp.int32)
    order = jnp.stack(order) + nearest.sum(0, dtype=jnp.int32)  # Not 0 where rounding left the plane.
    back = (order < 0).astype(jnp.int32) - (order > d).astype(jnp.int32)
    order, nearest = order + back * (d + 1), nearest + back
    rests = (elevated - (nearest * (d + 1)).astype(jnp.float32)) * np.float32(1 / (d + 1))
    falling = [jnp.where(order == place, rests, 0).sum(0) for place in range(d + 1)]
    weights = [1 + falling[d] - falling[0], *(falling[d - c] - falling[d - c + 1] for c in range(1, d + 1))]
    return nearest, order, jnp.stack(weights)


def point_bits(points: int) -> int:
    """Returns the number of bits that hold the number of a point, for `points` points."""
    return max(1, (points - 1).bit_length())


def _packed_keys(coordinates: Array, order: Array, valid: Array) -> tuple[Array, Array]:
    """Returns `Entries.packed` and `Entries.steps`."""
    colours, n = coordinates.shape
    d = colours - 1
    # A vertex of colour c is one step back along the last c coordinates in order. One spare step at either end keeps
    # the keys of missing neighbours different from all other keys.
    least = jnp.where(valid, coordinates, 2**24).min(1) - 2
    sizes = jnp.where(valid, coordinates, -(2**24)).max(1) + 2 - least
    back = order[None, :d] + jnp.arange(colours, dtype=jnp.int32)[:, None, None] > d  # [colour, coordinate, point]
    digits = coordinates[:d] - least[:d, None] - back
    with jax.enable_x64(True):
        sizes = sizes.astype(jnp.uint64)
        factors = [jnp.uint64(1)]
        for i in range(d):
            factors.append(factors[-1] * sizes[i])
        keys = sum(digits[:, i].astype(jnp.uint64) * factors[i] for i in range(d))
        keys += jnp.arange(colours, dtype=jnp.uint64)[:, None] * factors[d]
        packed = (keys << point_bits(n)) | jnp.arange(n, dtype=jnp.uint64)
        packed = jnp.where(valid, packed, jnp.uint64(2**64 - 1))
        steps = jnp.stack([*factors[:d], jnp.uint64(0), factors[d]])
        return lax.bitcast_convert_type(packed, jnp.uint32), lax.bitcast_convert_type(steps, jnp.uint32)


def _sorted_keys(packed: Array) -> tuple[Array, Array, Array]:
    """Sorts the entries by colour, vertex and point.

    Returns:
      keys uint32 [d + 1, n, 2]; points int32 [d + 1, n]; bool [d + 1, n], True at the first entry of each vertex.
    """
    colours, n, _ = packed.shape
    bits = point_bits(n)
    with jax.enable_x64(True):
        entries = lax.sort(lax.bitcast_convert_type(packed, jnp.uint64), dimension=1, is_stable=False)
        keys = entries >> bits
        points = (entries & jnp.uint64(2**bits - 1)).astype(jnp.int32)
        first = jnp.concatenate([jnp.ones((colours, 1), bool), keys[:, 1:] != keys[:, :-1]], axis=1)
        halves = lax.bitcast_convert_type(keys, jnp.uint32)
    return halves, jnp.minimum(points, n - 1), first


def _neighbours(found: Vertices, capacity: int) -> Array:
    """Returns the numbers of the two neighbours of every vertex along every direction: int32 [d + 1, 2, capacity]."""
    colours, last = found.weights.shape[0], capacity - 1
    size = found.names.size
    first = found.begins[found.names] == jnp.arange(size)  # No vertex begins at S.
    place = jnp.where(first, jnp.cumsum(first, dtype=jnp.int32) - 1, capacity)  # Among the sorted vertices.
    names = jnp.full(capacity, last, jnp.int32).at[place].set(jnp.minimum(found.names, last), mode="drop")
    entries = found.begins.at[names].get(mode="clip")
    halves = jnp.where((entries < size)[:, None], found.keys.at[entries].get(mode="clip"), jnp.uint32(2**32 - 1))
    neighbours = []
    with jax.enable_x64(True):
        keys, steps = (lax.bitcast_convert_type(array, jnp.uint64) for array in (halves, found.steps))
        lowest = keys < steps[-1]  # Below colour 0 comes colour d, one step back along all coordinates.
        down = jnp.where(lowest, jnp.uint64(colours - 1) * steps[-1] - steps[:-1].sum(), jnp.uint64(0) - steps[-1])
        for direction in range(colours):
            neighbours.append(_find(keys, keys + down + steps[direction]))
    ahead = jnp.stack(neighbours)
    ahead = jnp.where((ahead < capacity) & (names < last), names.at[ahead].get(mode="clip"), last)
    direction = jnp.arange(colours, dtype=jnp.int32)[:, None]
    table = jnp.full((colours, 2, capacity), last, jnp.int32)
    table = table.at[direction, 0, names].set(ahead)
    # The neighbour ahead has this vertex behind it.
    table = table.at[direction, 1, ahead].set(jnp.broadcast_to(names, ahead.shape))
    return table.at[:, :, last].set(last)


def _find(keys: Array, wanted: Array) -> Array:
    """Returns where the wanted keys stand among the sorted keys, int32; the number of keys where a key is missing."""
    size = keys.size

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) >> 1
        less = (low < high) & (keys.at[middle].get(mode="clip") < wanted)
        return jnp.where(less, middle + 1, low), jnp.where(less, high, middle)

    begin = jnp.zeros(wanted.shape, jnp.int32)
    low, _ = lax.fori_loop(0, size.bit_length(), halve, (begin, begin + jnp.int32(size)))
    return jnp.where(keys.at[low].get(mode="clip") == wanted, low, jnp.int32(size))
