"""Tests the edge network: its size, its outputs against PyTorch, and which pixels they depend on."""

import jax
import numpy as np
import pytest

from deconvnet_jax.models import EdgeNetwork, count_parameters


@pytest.fixture
def params(rng):
    """Returns initial parameters of the network, but with random biases."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)
    shapes = jax.eval_shape(EdgeNetwork().init, jax.random.key(0), image)["params"]
    scale = {4: lambda shape: np.sqrt(2 / np.prod(shape[:3])), 1: lambda shape: 0.1}
    return jax.tree.map(lambda leaf: rng.normal(0, scale[leaf.ndim](leaf.shape), leaf.shape).astype(np.float32), shapes)


def in_torch(params, images):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional

    def conv(x, name, stride=1):
        kernel = torch.from_numpy(params[name]["kernel"].transpose(3, 2, 0, 1))
        size = kernel.shape[-1]
        if stride == 2:  # JAX's "SAME" pads one more pixel below and at the right.
            x = functional.pad(x, (0, 1, 0, 1))
        return functional.conv2d(
            x, kernel, torch.from_numpy(params[name]["bias"]), stride, 0 if stride == 2 else size // 2
        )

    def doubled(x):
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    x = (torch.from_numpy(images.transpose(0, 3, 1, 2)).float() - torch.tensor([124.0, 117, 104])[:, None, None]) / 58
    levels = [torch.relu(conv(x, "down0"))]
    for level in range(1, 5):
        x = torch.relu(conv(levels[-1], f"down{level}", 2))
        levels.append(torch.relu(x + conv(x, f"same{level}")))
    x = conv(levels[4], "top")
    for level in (3, 2, 1):
        x = doubled(x) + conv(levels[level], f"lateral{level}")
        x = x + conv(torch.relu(x), f"up{level}")
    x = doubled(conv(torch.relu(x), "narrow"))
    x = torch.relu(x + conv(levels[0], "lateral0"))
    return conv(torch.relu(conv(x, "up0")), "logit")[:, 0].numpy()


def test_the_same_as_in_pytorch(rng, params):
    images = rng.integers(0, 256, (2, 48, 64, 3), np.uint8)
    found = np.asarray(jax.jit(EdgeNetwork().apply)({"params": params}, images))
    wanted = in_torch(params, images)
    assert found.shape == (2, 48, 64)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_size(params):
    assert count_parameters({"params": params}) == 169_113
