"""Tests edge maps: known edge directions, and thinning against a plain loop."""

import cv2
import numpy as np
import pytest

from deconvnet_jax.ops import edge_normals, thin_edges
from deconvnet_jax.ops.edge_maps import triangle_blur


def line(angle, size=65, width=2.0):
    """Returns an image of a soft line through the centre whose normal has this angle."""
    y, x = np.mgrid[:size, :size] - size // 2
    return np.exp(-0.5 * ((x * np.cos(angle) + y * np.sin(angle)) / width) ** 2).astype(np.float32)


@pytest.mark.parametrize("degrees", range(0, 180, 15))
def test_normals_of_lines(degrees):
    angle = np.deg2rad(degrees)
    normals = edge_normals(line(angle))
    assert normals.dtype == np.float32
    y, x = np.mgrid[:65, :65] - 32
    near = (np.abs(x * np.cos(angle) + y * np.sin(angle)) < 2) & (np.hypot(x, y) < 24)
    difference = np.abs(normals[near] - angle)
    assert np.minimum(difference, np.pi - difference).max() < np.deg2rad(3)


def test_normals_stay_within_half_a_turn(rng):
    edges = rng.random((40, 50)).astype(np.float32)
    normals = edge_normals(edges)
    assert normals.min() >= 0
    assert normals.max() < np.pi
    turned = edge_normals(np.ascontiguousarray(np.rot90(edges)))  # The angle falls by 90 degrees because y points down.
    difference = np.abs(np.rot90(normals) - turned)
    np.testing.assert_allclose(difference, np.pi / 2, atol=2e-3)
    assert edge_normals(np.zeros((30, 30), np.float32)).shape == (30, 30)


def test_blur_is_a_convolution_with_a_triangle(rng):
    picture = rng.random((12, 17)).astype(np.float32)
    for radius in (1, 4):
        triangle = np.float64([*range(1, radius + 2), *range(radius, 0, -1)])
        kernel = np.outer(triangle, triangle) / triangle.sum() ** 2
        padded = np.pad(picture.astype(np.float64), radius, mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
        np.testing.assert_allclose(triangle_blur(picture, radius), (windows * kernel).sum(axis=(2, 3)), atol=1e-6)


def bilinear(picture, y, x):
    height, width = picture.shape
    top, left = int(np.floor(y)), int(np.floor(x))
    value = 0.0
    for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, right in ((left, 1 - (x - left)), (left + 1, x - left)):
            value += down * right * picture[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return value


def test_suppression_against_a_loop(rng):
    edges = cv2.GaussianBlur(rng.random((30, 41)).astype(np.float32), (0, 0), 1.5)
    normals = edge_normals(edges)
    smooth = triangle_blur(edges, 1)
    thin = thin_edges(edges, normals)
    fades = [np.minimum(np.minimum(np.arange(n), n - 1 - np.arange(n)) / 5, 1) for n in edges.shape]
    decided = 0
    for y in range(30):
        for x in range(41):
            dx, dy = np.cos(normals[y, x]), np.sin(normals[y, x])
            largest = max(bilinear(smooth, y + sign * dy, x + sign * dx) for sign in (-1, 1))
            if abs(smooth[y, x] * 1.01 - largest) < 2e-3 * largest:
                continue  # OpenCV interpolates with 5-bit weights, so near ties may differ.
            wanted = edges[y, x] * fades[0][y] * fades[1][x] if smooth[y, x] * 1.01 >= largest else 0
            np.testing.assert_allclose(thin[y, x], wanted, atol=1e-6)
            decided += 1
    assert decided > 0.8 * edges.size
    assert 0.1 < (thin > 0).mean() < 0.7


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_lines_become_one_pixel_wide(degrees):
    edges = line(np.deg2rad(degrees), width=3.0)
    thin = thin_edges(edges, edge_normals(edges))
    inside = thin[15:50, 15:50]
    assert np.count_nonzero(inside > 0.5) < 2 * 35  # The line itself covers about 35 x 6 pixels.
    assert inside.max() == edges.max()
