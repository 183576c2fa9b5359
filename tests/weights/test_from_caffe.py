"""Which network a caffemodel holds."""

import pytest
from caffe_networks import random_deconvnet, random_fcn8s
from caffemodel_writer import encode

from deconvnet_jax.models import DeconvNet, FCN8s
from deconvnet_jax.weights import CaffemodelError, network_from_caffe

NARROW = {"width": 1 / 64, "fc": 8, "classes": 3}


@pytest.mark.parametrize("v1", [True, False])
def test_networks_are_told_by_their_layers(tmp_path, rng, v1):
    path = tmp_path / "net.caffemodel"
    layers = random_deconvnet(rng, **NARROW)
    for extra, found in ([], "folded"), ([("seg-loss", "SoftmaxWithLoss", [])], "unknown"):
        path.write_bytes(encode([*layers, *extra], v1=v1))
        net, variables, known = network_from_caffe(path)
        assert isinstance(net, DeconvNet)
        assert known == {"batch_statistics": found}
        variance = variables["batch_stats"]["bn1_1"]["var"][0]
        assert variance == (1 if found == "unknown" else pytest.approx(1 - net.bn_epsilon))
        assert network_from_caffe(path, folded_bn=True)[2] == {"batch_statistics": "folded"}
    path.write_bytes(encode(random_fcn8s(rng, **NARROW), v1=v1))
    net, variables, known = network_from_caffe(path)
    assert isinstance(net, FCN8s)
    assert known == {}


def test_another_network_is_refused(tmp_path, rng):
    path = tmp_path / "vgg.caffemodel"
    path.write_bytes(encode([layer for layer in random_fcn8s(rng, **NARROW) if layer[0].startswith("conv")]))
    with pytest.raises(CaffemodelError, match=r"neither a DeconvNet .* nor an FCN-8s .*; a VGG-16 is only an encoder"):
        network_from_caffe(path)
