"""Tests the JSON descriptions of networks."""

import json

import jax.numpy as jnp
import pytest

from deconvnet_jax.models import DeconvNet, FCN8s, config_from_network, layer_names, network_from_config
from experiments.configs import default


@pytest.mark.parametrize(
    "net",
    [
        DeconvNet(num_classes=5, width=1 / 16, fc_window=3, batch_norm=False, dtype=jnp.dtype("bfloat16")),
        FCN8s(num_classes=3, fc_features=8, dtype=jnp.dtype("float32")),
    ],
)
def test_round_trip(net):
    config = json.loads(json.dumps(config_from_network(net)))
    assert network_from_config(config) == net


def test_layers_come_in_the_order_of_the_network():
    names = layer_names(DeconvNet(num_classes=2, width=1 / 32, fc_features=4))
    assert names[:4] == ["conv1_1", "bn1_1", "conv1_2", "bn1_2"]
    assert names[-3:] == ["deconv1_2", "debn1_2", "seg-score-voc"]
    assert layer_names(FCN8s())[-5:] == ["score2", "score-pool4", "score4", "score-pool3", "upsample"]


def test_how_a_network_is_used_is_not_part_of_it():
    assert config_from_network(DeconvNet(3, bn_axis_name="devices")) == config_from_network(DeconvNet(3))


def test_configs_of_training_describe_deconvnets():
    config = default.get_config().model.to_dict() | {"num_classes": 4}
    assert network_from_config(config) == DeconvNet(num_classes=4, dtype=jnp.dtype("float32"))
    with pytest.raises(KeyError, match="unet"):
        network_from_config(config | {"architecture": "unet"})
    with pytest.raises(TypeError, match="depth"):
        network_from_config(config | {"depth": 4})
