"""Tests the XLA and NumPy lattices against one of dictionaries in float64, and their transpose and limits."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax.ops import permutohedral_host
from deconvnet_jax.ops.permutohedral import (
    FIRST_SHARES,
    MORE_SHARES,
    build_lattice,
    find_entries,
    find_vertices,
    fits_lattice,
    lattice_filter,
    most_vertices,
)

POINTS, CAPACITY, ROWS = 128, 1024, 160
ROOM = {"capacity": CAPACITY, "rows": ROWS}
entries_of, apply = jax.jit(find_entries), jax.jit(lattice_filter)
FORMS = {
    "xla": (jax.jit(find_vertices), jax.jit(partial(build_lattice, **ROOM))),
    "host": (permutohedral_host.find_vertices, partial(permutohedral_host.build_lattice, **ROOM)),
}


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def make_lattice(features, form):
    """Returns the lattice of features [n, d], which are padded first."""
    padded = np.full((POINTS, features.shape[1]), 7.0, np.float32)
    padded[: len(features)] = features
    find, build = FORMS[form]
    found = find(entries_of(padded, np.arange(POINTS) < len(features)))
    return build(found), found


def embed(point):
    """Maps a point to the plane of d + 1 coordinates whose sum is 0."""
    d = len(point)
    elevated = np.zeros(d + 1)
    for i, value in enumerate(np.float64(point), start=1):
        axis = np.zeros(d + 1)
        axis[:i], axis[i] = 1, -i
        elevated += value * axis / np.sqrt(i * (i + 1)) * np.sqrt(2 / 3) * (d + 1)
    return elevated


def enclosing(point):
    """Returns the vertices around a point and their weights, starting from the nearest vertex of colour 0."""
    y, d = embed(point), len(point)
    base = np.round(y / (d + 1)).astype(int)
    rest = y / (d + 1) - base
    while base.sum():  # Back onto the plane: change the coordinate that was closest to rounding the other way.
        i = rest.argmax() if base.sum() < 0 else rest.argmin()
        step = -np.sign(base.sum())
        base[i] += step
        rest[i] -= step
    order = np.argsort(-rest)
    falling = rest[order]
    for colour in range(d + 1):
        vertex = (d + 1) * base + colour
        vertex[order[d + 1 - colour :]] -= d + 1
        weight = falling[d - colour] - falling[d - colour + 1] if colour else 1 + falling[d] - falling[0]
        yield tuple(vertex), weight


def dictionary_matrix(features):
    """Returns the filter as a matrix, and the number of vertices."""
    d, n = features.shape[1], len(features)
    shares = [list(enclosing(point)) for point in features]
    names = {vertex: i for i, vertex in enumerate({vertex for point in shares for vertex, _ in point})}
    splat = np.zeros((len(names), n))
    for i, point in enumerate(shares):
        for vertex, weight in point:
            splat[names[vertex], i] = weight
    result = splat
    for direction in range(d + 1):
        step = np.full(d + 1, -1)
        step[direction] = d
        blurred = result.copy()
        for vertex, sign in itertools.product(names, (1, -1)):
            neighbour = names.get(tuple(vertex + sign * step))
            if neighbour is not None:
                blurred[names[vertex]] += 0.5 * result[neighbour]
        result = blurred
    return splat.T @ result / (1 + 2.0**-d), len(names)


@pytest.mark.parametrize(("d", "spread"), [(2, 3.0), (5, 0.8)])
def test_filter_equals_dictionaries(rng, form, d, spread):
    features = (spread * rng.standard_normal((90, d))).astype(np.float32)
    features[50:80] = features[50]  # Many points at one place.
    lattice, found = make_lattice(features, form)
    matrix, count = dictionary_matrix(features)
    assert int(found.counted[0]) == count < CAPACITY
    assert FIRST_SHARES + 2 * MORE_SHARES < 30
    assert 2 <= int(found.counted[1]) <= ROWS
    values = np.zeros((POINTS, 4), np.float32)
    values[:90] = rng.standard_normal((90, 4))
    values[90:] = 1e3  # Padding must have no influence.
    np.testing.assert_allclose(apply(lattice, values)[:90], matrix @ values[:90], rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(apply(lattice, values)[90:], 0)


@pytest.mark.accelerator
@pytest.mark.parametrize(("n", "d", "spread"), [(90, 2, 3.0), (POINTS, 5, 0.8), (90, 5, 0.01), (1, 5, 1.0)])
def test_the_forms_are_equal(rng, n, d, spread):
    """Compares all arrays except where weights are 0, also with a gap between the points."""
    features = (spread * rng.standard_normal((n, d))).astype(np.float32)
    features[: n // 3] = features[0]
    features[n // 2 :] += 20
    (lattice, found), (on_host, found_on_host) = (make_lattice(features, form) for form in FORMS)
    np.testing.assert_array_equal(found_on_host.counted, found.counted)
    arrays, host_arrays = lattice._asdict(), on_host._asdict()
    for name, weights in (("vertices", "weights"), ("first", "first_weights"), ("more", "more_weights")):
        for form in (arrays, host_arrays):
            form[name] = np.where(form[weights] == 0, 0, form[name])
    for name, array in arrays.items():
        assert array.dtype == host_arrays[name].dtype
        np.testing.assert_array_equal(host_arrays[name], array, err_msg=name)


def test_the_gradient_is_the_transpose(rng, form):
    """Where vertices are missing the blur directions do not commute, so the matrix is not symmetric."""
    lattice, _ = make_lattice((0.8 * rng.standard_normal((90, 5))).astype(np.float32), form)
    matrix, vjp = jax.vjp(partial(apply, lattice), jnp.eye(POINTS))
    assert np.abs(matrix - matrix.T).max() > 1e-3
    np.testing.assert_allclose(vjp(jnp.eye(POINTS))[0], matrix.T, atol=1e-5)
    _, tangent = jax.jvp(partial(lattice_filter, lattice), (jnp.eye(POINTS),), (jnp.eye(POINTS),))
    np.testing.assert_allclose(tangent, matrix, atol=1e-5)


def test_limits_of_counts(rng, form):
    """Points far apart share no vertices; five points at every place need one extra row per vertex."""
    far = rng.permutation(POINTS)[:, None] * 50.0 + rng.uniform(0, 1, (POINTS, 2))
    assert int(make_lattice(far.astype(np.float32), form)[1].counted[0]) + 1 == most_vertices(POINTS, 2)[0]
    places = np.repeat(far[: POINTS // 5], 5, axis=0)
    assert int(make_lattice(places.astype(np.float32), form)[1].counted[1]) == 3 * (POINTS // 5)
    assert most_vertices(POINTS, 2)[1] > 3 * (POINTS // 5)


def test_what_fits():
    assert fits_lattice((512 / 20, 512 / 20, 85, 85, 85), 512 * 512)
    assert fits_lattice((1024 / 5, 1024 / 5, 255, 255, 255), 1024 * 1024)
    assert not fits_lattice((512 / 0.01, 512 / 0.01, 25500, 25500, 25500), 512 * 512)
    assert not fits_lattice((1e7, 1.0), 64)
