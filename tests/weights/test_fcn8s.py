"""FCN-8s and its import, against PyTorch from the same arrays."""

import jax
import numpy as np
import pytest
from caffe_networks import random_fcn8s, torch_fcn8s
from caffemodel_writer import encode

from deconvnet_jax.models import FCN8s
from deconvnet_jax.ops import MEAN_BGR
from deconvnet_jax.weights import CaffemodelError, fcn8s_from_caffe
from deconvnet_jax.weights.from_caffe import HEAVY_NAMES

NARROW = {"width": 1 / 32, "fc": 24, "classes": 5}


def write(path, layers, **options):
    path.write_bytes(encode(layers, **options))
    return path


def assert_same_network(net, variables, layers, size, rng):
    torch = pytest.importorskip("torch", reason="PyTorch is the reference: launch/test.sh --reference")
    images = (rng.integers(0, 256, (1, *size, 3)) - np.array(MEAN_BGR)).astype(np.float32)
    logits = np.asarray(jax.jit(net.apply)(variables, images))
    expected = torch_fcn8s(torch, layers, images)
    assert logits.shape == expected.shape == (1, *size, net.num_classes)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(logits - expected).max() < 1e-3 * expected.std((0, 1, 2)).max()  # not just of a large constant


@pytest.mark.parametrize("size", [(75, 131), (190, 101), (1, 1)])
def test_narrow_network_equals_pytorch(tmp_path, rng, size):
    layers = random_fcn8s(rng, **NARROW)
    net, variables = fcn8s_from_caffe(write(tmp_path / "fcn.caffemodel", layers))
    assert net == FCN8s(num_classes=5, width=1 / 32, fc_features=24)
    if size == (1, 1):
        assert net.apply(variables, np.zeros((1, 1, 1, 3), np.float32)).shape == (1, 1, 1, 5)
    else:
        assert_same_network(net, variables, layers, size, rng)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(375, 500), (333, 250)])
def test_full_network_equals_pytorch(tmp_path, rng, size):
    layers = random_fcn8s(rng)
    net, variables = fcn8s_from_caffe(write(tmp_path / "fcn.caffemodel", layers, v1=False))
    assert net == FCN8s()
    assert_same_network(net, variables, layers, size, rng)


def test_the_later_release_has_other_names_and_one_bias_less(tmp_path, rng):
    layers = random_fcn8s(rng, **NARROW)
    score2 = next(blobs for name, _, blobs in layers if name == "score2")
    score2[1][:] = 0
    old = fcn8s_from_caffe(write(tmp_path / "old.caffemodel", layers))
    score2.pop()
    names = {ours: theirs for theirs, ours in HEAVY_NAMES.items()}
    renamed = [(names.get(name, name), kind, blobs) for name, kind, blobs in layers]
    new = fcn8s_from_caffe(write(tmp_path / "heavy.caffemodel", renamed, v1=False))
    assert new[0] == old[0]
    jax.tree.map(np.testing.assert_array_equal, new[1], old[1])


def test_errors_name_the_layer(tmp_path, rng):
    layers = random_fcn8s(rng, **NARROW)
    path = write(tmp_path / "a.caffemodel", [layer for layer in layers if layer[0] != "score-pool4"])
    with pytest.raises(CaffemodelError, match=r"a\.caffemodel lacks the layer 'score-pool4'; it is a model of another"):
        fcn8s_from_caffe(path)
    wrong = [(n, k, [b[0][:, :, :8], *b[1:]] if n == "upsample" else b) for n, k, b in layers]
    with pytest.raises(CaffemodelError, match=r"'upsample' has the shape \(5, 5, 8, 16\), expected \(5, 5, 16, 16\)"):
        fcn8s_from_caffe(write(tmp_path / "b.caffemodel", wrong))
