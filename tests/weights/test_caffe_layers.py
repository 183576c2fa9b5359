"""Score layers that were renamed for fine-tuning, as Caffe asks for when the classes are others."""

import jax
import numpy as np
import pytest
from caffe_networks import random_deconvnet, random_fcn8s
from caffemodel_writer import encode

from deconvnet_jax.models import DeconvNet, FCN8s
from deconvnet_jax.weights import CaffemodelError, network_from_caffe
from deconvnet_jax.weights.from_caffe import HEAVY_NAMES

NARROW = {"width": 1 / 32, "fc": 24, "classes": 4}
OLD_NAMES = tuple(HEAVY_NAMES.values())


def write(path, layers, **options):
    path.write_bytes(encode(layers, **options))
    return path


def renamed(layers, names):
    return [(names.get(name, name), kind, blobs) for name, kind, blobs in layers]


@pytest.mark.parametrize("name", ["seg-score-mine", "score", "seg_score_voc_ft", "fc8"])
@pytest.mark.parametrize("v1", [True, False])
def test_deconvnet(tmp_path, rng, name, v1):
    layers = random_deconvnet(rng, **NARROW)
    expected = network_from_caffe(write(tmp_path / "a.caffemodel", layers))
    layers = [*renamed(layers, {"seg-score-voc": name}), ("loss", "SoftmaxWithLoss", [])]
    net, variables, known = network_from_caffe(write(tmp_path / "b.caffemodel", layers, v1=v1), folded_bn=True)
    assert isinstance(net, DeconvNet)
    assert known == {"batch_statistics": "folded"}
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])


def test_deconvnet_with_several_layers_left(tmp_path, rng):
    layers = renamed(random_deconvnet(rng, **NARROW), {"seg-score-voc": "score_a"})
    two = [*layers, ("score_b", *layers[-1][1:])]
    with pytest.raises(
        CaffemodelError, match=r"has no layer 'seg-score-voc', but 2 that may be .*'score_a', 'score_b'"
    ):
        network_from_caffe(write(tmp_path / "a.caffemodel", two))
    similar = [*renamed(layers, {"score_a": "seg-score-voc2"}), ("other", *layers[-1][1:])]
    with pytest.raises(CaffemodelError, match=r"has, unlike this network, the layer 'other'"):
        network_from_caffe(write(tmp_path / "b.caffemodel", similar))
    (name, kind, (kernel, bias)) = layers[-1]
    other = [*layers[:-1], (name, kind, [np.repeat(kernel, 2, axis=1), bias])]  # takes other channels than there are
    with pytest.raises(CaffemodelError, match="lacks the layer 'seg-score-voc'"):
        network_from_caffe(write(tmp_path / "c.caffemodel", other))


@pytest.mark.parametrize("fc", [24, 16])  # with 16, score-fr and score-pool4 have the same shape
@pytest.mark.parametrize(
    "names",
    [
        {"score-fr": "score-fr-mine"},
        {name: f"{name}_mine" for name in OLD_NAMES},
        {name: name.replace("-", "_") + "-10" for name in OLD_NAMES},
        {ours: f"my_{theirs}" for theirs, ours in HEAVY_NAMES.items()},
        {name: f"score_{i}" for i, name in enumerate("acdbfe")} | dict(zip(OLD_NAMES, "abcdef", strict=True)),
    ],
)
def test_fcn8s(tmp_path, rng, names, fc):
    layers = random_fcn8s(rng, **{**NARROW, "fc": fc})
    expected = network_from_caffe(write(tmp_path / "a.caffemodel", layers))
    net, variables, _ = network_from_caffe(write(tmp_path / "b.caffemodel", renamed(layers, names)))
    assert isinstance(net, FCN8s)
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])


def test_fcn8s_with_several_layers_left(tmp_path, rng):
    layers = renamed(random_fcn8s(rng, **NARROW), {"score2": "up_a", "score4": "up_b"})
    up = next(layer for layer in layers if layer[0] == "up_b")
    path = write(tmp_path / "a.caffemodel", [*layers, ("up_c", *up[1:])])
    with pytest.raises(CaffemodelError, match=r"has no layer 'score2', but 3 that may be .*'up_a', 'up_b', 'up_c'"):
        network_from_caffe(path)
    path = write(tmp_path / "b.caffemodel", [layer for layer in layers if layer[0] != "up_b"])
    with pytest.raises(CaffemodelError, match="lacks the layer 'score2' and 1 more"):
        network_from_caffe(path)


def test_hdf5_tells_a_snapshot_by_its_loss_layer(tmp_path, rng):
    h5py = pytest.importorskip("h5py", reason="h5py writes the files")
    layers = renamed(random_deconvnet(rng, **NARROW), {"seg-score-voc": "seg-score-mine"})
    expected = network_from_caffe(write(tmp_path / "a.caffemodel", layers))
    for extra, found in ("relu7", "folded"), ("seg-loss", "unknown"):
        path = tmp_path / f"{extra}.caffemodel.h5"
        with h5py.File(path, "w") as file:
            for name, _, blobs in [*layers, (extra, "", [])]:
                group = file.require_group(f"data/{name}")
                for i, blob in enumerate(blobs):
                    group[str(i)] = blob
        _, variables, known = network_from_caffe(path)
        assert known == {"batch_statistics": found}
        jax.tree.map(np.testing.assert_array_equal, variables["params"], expected[1]["params"])
