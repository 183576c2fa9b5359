"""Tests both edge maps: what they find, and that batches, padding and files do not change them."""

import cv2
import jax
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.proposals import edge_network as network
from deconvnet_jax.proposals.edge_boxes import gradient_edges
from deconvnet_jax.proposals.edge_network import (
    network_edges,
    network_edges_batch,
    read_edge_network,
    shipped_params,
    write_edge_network,
)


@pytest.fixture
def square(rng):
    """Returns an image of a square on a background of another colour, with little noise."""
    image = np.full((150, 200, 3), (60, 110, 50)) + rng.integers(-6, 7, (150, 200, 3))
    image[40:110, 50:150] = np.array([200, 120, 60]) + rng.integers(-6, 7, (70, 100, 3))
    return image.astype(np.uint8)


def outline(width):
    """Returns the pixels within `width` of the square's outline."""
    inner, outer = np.zeros((2, 150, 200), bool)
    outer[40 - width : 110 + width, 50 - width : 150 + width] = True
    inner[40 + width : 110 - width, 50 + width : 150 - width] = True
    return outer & ~inner


@pytest.mark.parametrize("edges_of", [network_edges, gradient_edges])
def test_the_outline_of_an_object(square, edges_of):
    edges = edges_of(square)
    assert edges.shape == (150, 200)
    assert edges.dtype == np.float32
    assert edges.min() >= 0
    assert edges.max() <= 1
    on, off = edges[outline(1)], edges[~outline(12)]
    assert on.mean() > 4 * off.mean()
    assert on.mean() > 0.25


@pytest.mark.parametrize("edges_of", [network_edges, gradient_edges])
def test_flat_and_tiny_images(edges_of):
    flat = edges_of(np.full((70, 90, 3), 128, np.uint8))
    assert flat.max() < 0.3
    assert edges_of(np.zeros((1, 1, 3), np.uint8)).shape == (1, 1)


def test_batches_do_not_change_the_maps(rng):
    sizes = [(60, 80), (61, 80), (60, 80), (150, 40), *[(60, 80)] * 8]
    images = [cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), size) for size in sizes]
    for image, edges in zip(images, network_edges_batch(images), strict=True):
        assert edges.shape == image.shape[:2]
        np.testing.assert_allclose(edges, network_edges(image), atol=1e-5)


def test_few_programs(rng):
    images = [rng.integers(0, 256, (height, 200, 3), np.uint8) for height in range(170, 220, 2)]
    network._program.cache_clear()
    network_edges_batch(images)
    assert network._program()._cache_size() <= 4  # Two padded sizes, each with batches of 8 and of 1.


def test_files(tmp_path, rng):
    params = jax.tree.map(lambda leaf: np.float16(rng.normal(size=leaf.shape)), shipped_params())
    write_edge_network(tmp_path / "a.npz", params)
    jax.tree.map(np.testing.assert_array_equal, read_edge_network(tmp_path / "a.npz"), params)
    assert network.WEIGHTS.stat().st_size < 400_000
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.npz").write_text("404: Not Found")
    np.savez(tmp_path / "other.npz", **{"logit/kernel": np.zeros((3, 3, 8, 1))})
    np.savez(tmp_path / "pickle.npz", a=np.array([{}]))
    for name, message in (
        ("none.npz", r"no file .*none\.npz; correct the name"),
        ("cut.npz", "edge network .* is an incomplete zip file .*: download it again"),
        ("text.npz", "edge network .* is a text file; expected an .npz file of experiments.train_edges"),
        ("pickle.npz", "is not a complete .npz file .Object arrays cannot be loaded"),
        ("other.npz", "is not an edge network of this version"),
    ):
        with pytest.raises(InputError, match=message):
            read_edge_network(tmp_path / name)


def test_photographs(real_data):
    """On held-out photographs the shipped weights find what people drew better than gradients do."""
    from experiments.tasks.train_edges import read_bsds500, score

    examples = read_bsds500(real_data / "bsds500", "test")[::20]
    assert score(examples, shipped_params()).ods > score(examples, None).ods + 0.01
