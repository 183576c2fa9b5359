"""Tests the cost of the network that benchmarks measure."""

import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet
from experiments.benchmarks import network


def test_cost_of_the_layers():
    """The paper's network has 251.8 M parameters and 32.75 G multiply-adds per image, 15.47 of them in the encoder."""
    net = network.make_net("float32", 1.0)
    layers = network.layer_costs(net)
    assert [layer.name for layer in layers[13:16]] == ["fc6", "fc7", "fc6-deconv"]
    assert sum(layer.parameters for layer in layers) == 251_805_653
    assert sum(layer.macs for layer in layers[:15]) == pytest.approx(15.47e9, rel=1e-3)
    assert network.gflop(net) == pytest.approx(2 * 32.75, rel=1e-3)
    assert layers[1].macs == 224 * 224 * 3 * 3 * 64 * 64  # conv1_2
    assert layers[15].macs == 4096 * 7 * 7 * 512  # fc6-deconv, one matrix product


def test_another_size_of_images():
    layers, smaller = (
        {layer.name: layer.macs for layer in network.layer_costs(DeconvNet(21, width=1 / 16), size)}
        for size in (320, 224)
    )
    assert layers["conv3_2"] == pytest.approx(smaller["conv3_2"] * (320 / 224) ** 2)
    assert layers["fc6"] == smaller["fc6"] * 16  # at 4x4 places


@pytest.mark.parametrize("width", [0, -1, 1.5])
def test_a_width_out_of_range(width):
    with pytest.raises(InputError, match=r"^--width=.*: expected more than 0 and at most 1"):
        network.check_width(width)
