"""Tests that VGG-16 is found under the names in users' files, with narrow random layers."""

import io
import zipfile

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.weights.vgg16_files import read_vgg16
from deconvnet_jax.weights.vgg16_layers import CONVOLUTIONS, TORCH_INDICES, find_vgg16, stored_layers

pytestmark = pytest.mark.filterwarnings("ignore:VGG-16 weights. the first layer")
WIDTHS = (4, 4, 6, 6, 5, 5, 5, 3, 3, 3, 3, 3, 2)


@pytest.fixture
def layers(rng):
    """Returns {name: (kernel [h, w, in, out], bias)}."""
    channels = (3, *WIDTHS)
    return {
        name: (
            rng.standard_normal((3, 3, *channels[i : i + 2])).astype(np.float32),
            rng.standard_normal(channels[i + 1]).astype(np.float32),
        )
        for i, name in enumerate(CONVOLUTIONS)
    }


def torch_arrays(layers, names):
    """Returns {"NAME.weight": [out, in, h, w], "NAME.bias": [out]} under the given names."""
    arrays = {}
    for name, (kernel, bias) in zip(names, layers.values(), strict=True):
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias
    return arrays


def assert_same(found, layers):
    """Compares all layers but the first, which depends on the assumed input."""
    for name, (kernel, bias) in list(layers.items())[1:]:
        np.testing.assert_array_equal(found[name]["kernel"], kernel)
        np.testing.assert_array_equal(found[name]["bias"], bias)


def write_npz(path, arrays):
    np.savez(path, **arrays)
    return path


PREFIXES = ["", "module.", "model.", "backbone.", "encoder.", "net.module.backbone.", "state_dict.model."]
FEATURES = [f"features.{i}" for i in TORCH_INDICES]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "names", [FEATURES, list(map(str, TORCH_INDICES)), CONVOLUTIONS], ids=["features", "0", "conv"]
)
def test_prefixes(tmp_path, layers, prefix, names):
    arrays = torch_arrays(layers, [prefix + name for name in names])
    arrays[f"{prefix}classifier.7.weight"] = np.zeros((2, 4), np.float32)
    arrays["decoder.0.weight"], arrays["decoder.0.bias"] = np.zeros((2, 9, 3, 3), np.float32), np.zeros(2, np.float32)
    found = read_vgg16(write_npz(tmp_path / "a.npz", arrays))
    assert_same(found, layers)
    assert set(found) == set(CONVOLUTIONS)


def test_dense_layers_behind_a_prefix(tmp_path, rng, layers):
    dense = {"fc6": (WIDTHS[-1] * 49, 7), "fc7": (7, 6)}
    in_parallel = [name.replace("features.", "features.module.") for name in FEATURES]
    for first, second, names in (("0", "3", FEATURES), ("1", "4", FEATURES), ("0", "3", in_parallel)):
        arrays = torch_arrays(layers, [f"module.{name}" for name in names])
        for index, shape in zip((first, second), dense.values(), strict=True):
            arrays[f"module.classifier.{index}.weight"] = rng.standard_normal(shape[::-1]).astype(np.float32)
            arrays[f"module.classifier.{index}.bias"] = rng.standard_normal(shape[1]).astype(np.float32)
        found = read_vgg16(write_npz(tmp_path / "a.npz", arrays))
        assert found["fc6"]["kernel"].shape == (7, 7, WIDTHS[-1], 7)
        weight = arrays[f"module.classifier.{second}.weight"]
        np.testing.assert_array_equal(found["fc7"]["kernel"][0, 0], weight.T)


def test_two_networks_in_a_file(tmp_path, layers):
    arrays = torch_arrays(layers, [f"left.{name}" for name in FEATURES])
    arrays |= torch_arrays(layers, [f"right.{name}" for name in FEATURES])
    with pytest.raises(InputError, match=r"holds 2 of them, at 'left\.features\.0' and 'right\.features\.0'; give a"):
        read_vgg16(write_npz(tmp_path / "a.npz", arrays))


# Tests of Keras's names.


def write_keras_3(file, layers, form="layers/conv2d{i}/vars/{part}", dense=()):
    """Writes weights like Keras 3: named by class and number, in no order."""
    h5py = pytest.importorskip("h5py", reason="h5py writes the files")
    with h5py.File(file, "w") as opened:
        for i, parts in enumerate(layers.values()):
            for part, array in enumerate(parts):
                opened[form.format(i=f"_{i}" if i else "", part=part)] = array
        for i, (kernel, bias) in enumerate(dense):
            group = opened.require_group(f"layers/dense{f'_{i}' if i else ''}/vars")
            group["0"], group["1"] = kernel, bias
        opened.require_group("layers/max_pooling2d/vars")
        opened["optimizer/vars/0"] = np.array(3)
        opened["optimizer/vars/1"] = np.zeros((3, 3, 3, 4), np.float32)


def test_keras_3(tmp_path, rng, layers):
    path = tmp_path / "vgg16.weights.h5"
    for form in ("layers/conv2d{i}/vars/{part}", "layers/functional/layers/conv2d{i}/vars/{part}"):
        write_keras_3(path, layers, form)
        found = read_vgg16(path)
        assert set(found) == set(CONVOLUTIONS)
        assert_same(found, layers)
        np.testing.assert_array_equal(found["conv1_1"]["kernel"], layers["conv1_1"][0])
    shapes = ((49 * WIDTHS[-1], 7), (7, 7), (7, 3))
    dense = [(rng.standard_normal(shape).astype(np.float32), np.zeros(shape[1], np.float32)) for shape in shapes]
    write_keras_3(path, layers, dense=dense)
    found = read_vgg16(path)
    np.testing.assert_array_equal(found["fc6"]["kernel"].reshape(-1, 7), dense[0][0])
    np.testing.assert_array_equal(found["fc7"]["kernel"][0, 0], dense[1][0])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_keras_archives(tmp_path, layers, compression):
    stream = io.BytesIO()
    write_keras_3(stream, layers)
    path = tmp_path / "vgg16.keras"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", stream.getvalue())
    assert_same(read_vgg16(path), layers)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model.weights.h5", stream.getvalue()[:3000])
    with pytest.raises(InputError, match=r"vgg16\.keras is not a complete HDF5 file"):
        read_vgg16(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(100_000_000))
    with pytest.raises(InputError, match=r"model\.weights\.h5 claims 100,000,000 bytes, but the file has"):
        read_vgg16(path)


# Tests of networks that are no plain VGG-16.


def other_networks(layers):
    arrays = torch_arrays(layers, [f"layer{i}" for i in range(13)])
    yield (
        "batch normalisation",
        {**arrays, "bn.weight": np.ones(4), "bn.bias": np.ones(4), "bn.running_mean": np.ones(4)},
    )
    yield "a layer less", {name: array for name, array in arrays.items() if not name.startswith("layer12.")}
    yield "a layer more", {**arrays, "last.weight": np.ones((2, 2, 3, 3)), "last.bias": np.ones(2)}
    yield "no bias", {name: array for name, array in arrays.items() if name != "layer5.bias"}
    yield "no chain", {**arrays, "layer5.weight": np.ones((5, 9, 3, 3))}
    yield "nothing", {"step": np.array(3)}


def test_other_networks_are_none(tmp_path, layers):
    assert_same(
        read_vgg16(write_npz(tmp_path / "a.npz", torch_arrays(layers, [f"layer{i}" for i in range(13)]))), layers
    )
    for what, arrays in other_networks(layers):
        with pytest.raises(InputError, match=r"a\.npz has other layers \(.*\); expected plain VGG-16") as caught:
            read_vgg16(write_npz(tmp_path / "a.npz", arrays))
        assert "\n" not in str(caught.value), what


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [
        ("{}/kernel", "{}/bias"),
        ("{0}/{0}/kernel:0", "{0}/{0}/bias:0"),
        ("{0}/{0}_W_1:0", "{0}/{0}_b_1:0"),
        ("vgg16/{}/kernel:0", "vgg16/{}/bias:0"),
        ("{}_W", "{}_b"),
        ("vgg_16/conv/{}/weights", "vgg_16/conv/{}/biases"),
    ],
)
@pytest.mark.parametrize(
    "names", [CONVOLUTIONS, [f"block{n[4]}_conv{n[6]}" for n in CONVOLUTIONS]], ids=["caffe", "keras"]
)
def test_names_of_arrays(tmp_path, layers, kernel, bias, names):
    arrays = {}
    for name, parts in zip(names, layers.values(), strict=True):
        arrays[kernel.format(name)], arrays[bias.format(name)] = parts
    found = find_vgg16(stored_layers(arrays), tmp_path)
    assert list(found.layers) == list(CONVOLUTIONS)
    for name, parts in layers.items():
        assert found.layers[name].kernel is parts[0]
        assert found.layers[name].bias is parts[1]
        assert not found.layers[name].channels_first
