"""Tests narrow VGG-16 in each kind of file, written by the libraries that users' files come from."""

import builtins
import sys
from itertools import pairwise

import numpy as np
import pytest
from caffemodel_writer import encode
from jax import lax

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops import normalize_images
from deconvnet_jax.weights.caffemodel import CaffemodelError
from deconvnet_jax.weights.vgg16_files import read_vgg16
from deconvnet_jax.weights.vgg16_layers import CONVOLUTIONS, TORCH_INDICES

FC = ("fc6", "fc7")
LAST = 2  # channels of conv5_3


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch writes the files: pip install deconvnet_jax[reference]")


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="h5py writes the files")


@pytest.fixture
def save_safetensors():
    pytest.importorskip("safetensors", reason="safetensors writes the files")
    from safetensors.numpy import save_file

    return save_file


def narrow_vgg(rng):
    """Returns {layer: {"kernel": [h, w, in, out], "bias"}} with different widths, so that a wrong order shows."""
    widths = [3, *rng.integers(1, 6, 12).tolist(), LAST]
    shapes = {name: (3, 3, *widths[i : i + 2]) for i, name in enumerate(CONVOLUTIONS)}
    shapes |= {"fc6": (7, 7, LAST, 5), "fc7": (1, 1, 5, 4)}
    return {
        name: {
            "kernel": rng.standard_normal(shape).astype(np.float32),
            "bias": rng.standard_normal(shape[-1]).astype(np.float32),
        }
        for name, shape in shapes.items()
    }


def without_fc(layers):
    return {name: layers[name] for name in CONVOLUTIONS}


def keras_name(name):
    return {"fc6": "fc1", "fc7": "fc2"}.get(name) or f"block{name[4]}_conv{name[6]}"


def keras_kernel(name, kernel):
    return kernel.reshape(-1, kernel.shape[-1]) if name in FC else kernel


def keras_arrays(layers):
    arrays = {}
    for name, parts in layers.items():
        arrays[f"{keras_name(name)}/kernel"] = keras_kernel(name, parts["kernel"])
        arrays[f"{keras_name(name)}/bias"] = parts["bias"]
    return arrays


def oihw(kernel):
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))


def dense(kernel):
    return oihw(kernel).reshape(kernel.shape[-1], -1)


def torch_arrays(layers, fc=("classifier.0", "classifier.3"), fc_weight=dense):
    names = dict(zip((*CONVOLUTIONS, *FC), (*(f"features.{i}" for i in TORCH_INDICES), *fc), strict=True))
    arrays = {}
    for name, parts in layers.items():
        arrays[f"{names[name]}.weight"] = (fc_weight if name in FC else oihw)(parts["kernel"])
        arrays[f"{names[name]}.bias"] = parts["bias"]
    return {**arrays, "head.fc.weight": np.zeros((2, 4), np.float32)}


def assert_equal(found, expected, skip=()):
    assert list(found) == list(expected)
    for name in expected:
        for part in ("kernel", "bias"):
            assert found[name][part].dtype == np.float32
            if name not in skip:
                np.testing.assert_array_equal(found[name][part], expected[name][part])


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_vgg16(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# Tests of Keras's files.


@pytest.mark.parametrize("top", [True, False])
def test_npz(tmp_path, rng, top):
    layers = narrow_vgg(rng) if top else without_fc(narrow_vgg(rng))
    layers = {n: {p: v.astype(np.float16).astype(np.float32) for p, v in parts.items()} for n, parts in layers.items()}
    path = tmp_path / "vgg.npz"
    for dtype in (np.float16, np.float32, np.float64):
        np.savez(path, **{name: value.astype(dtype) for name, value in keras_arrays(layers).items()})
        assert_equal(read_vgg16(path), layers)


def write_keras(h5py, path, layers, nested=False, root=""):
    """Writes weights or a whole model like Keras 1 (2016, the official files) or, nested, like Keras 2."""
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        top.attrs["layer_names"] = [keras_name(name).encode() for name in layers]
        for pool in ("block1_pool", "flatten"):
            top.create_group(pool)
        for name, parts in layers.items():
            name, kernel = keras_name(name), keras_kernel(name, parts["kernel"])
            group = top.create_group(name)
            group[f"{name}/kernel:0" if nested else f"{name}_W_1:0"] = kernel
            group[f"{name}/bias:0" if nested else f"{name}_b_1:0"] = parts["bias"]
    return path


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("form", [{}, {"nested": True}, {"nested": True, "root": "model_weights"}])
def test_keras_hdf5(h5py, tmp_path, rng, top, form):
    layers = narrow_vgg(rng) if top else without_fc(narrow_vgg(rng))
    for suffix in ("h5", "hdf5"):
        assert_equal(read_vgg16(write_keras(h5py, tmp_path / f"vgg.{suffix}", layers, **form)), layers)


def test_hdf5_that_does_not_fit(h5py, tmp_path, rng, monkeypatch):
    layers, path = narrow_vgg(rng), tmp_path / "vgg.h5"
    message = refusal(write_keras(h5py, path, {**layers, "conv3_4": layers["conv3_3"]}))
    assert "has a layer 'block3_conv4'; expected plain VGG-16" in message
    write_keras(h5py, path, {n: p for n, p in layers.items() if n not in ("conv2_2", "conv4_1")})
    assert "has no 'block2_conv2/kernel'" in refusal(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("block1_conv1/W", (2**20, 2**12), "f4", chunks=(1024, 1024))
    assert "claims 17,179,869,184 bytes" in refusal(path)
    with h5py.File(path, "w") as file:
        file["block1_conv1"] = np.zeros(3)
    assert "has other layers (none with weights); expected plain VGG-16" in refusal(path)
    content = write_keras(h5py, path, layers).read_bytes()
    for length in (100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "is not a complete HDF5 file" in refusal(path)
    path.write_bytes(content)
    hide(monkeypatch, "h5py")
    assert "pip install h5py" in refusal(path)


# Tests of PyTorch's files.


def narrow_torch_vgg(torch, rng):
    nn, widths = torch.nn, [3, *rng.integers(1, 6, 12).tolist(), LAST]
    model = nn.Module()
    model.features = nn.Sequential()
    for index, (fan_in, fan_out) in zip(TORCH_INDICES, pairwise(widths), strict=True):
        while len(model.features) < index:
            model.features.append(nn.ReLU())  # stands for a ReLU or a pooling, which have no weights
        model.features.append(nn.Conv2d(fan_in, fan_out, 3, padding=1))
    hidden = (nn.Linear(49 * LAST, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 4), nn.ReLU(), nn.Dropout())
    model.classifier = nn.Sequential(*hidden, nn.Linear(4, 3))
    return model


def test_a_state_dict_of_pytorch_gives_what_the_model_gives(torch, tmp_path, rng):
    """Compares the first convolution on images, except at the border, and all other layers on random maps."""
    model = narrow_torch_vgg(torch, rng)
    torch.save(model.state_dict(), tmp_path / "new.pth")
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.warns(UserWarning, match="of no published network and is assumed to expect torchvision's input"):
        layers = read_vgg16(tmp_path / "new.pth")
    assert list(layers) == [*CONVOLUTIONS, "fc6", "fc7"]
    with pytest.warns(UserWarning, match="of no published network"):
        assert_equal(read_vgg16(tmp_path / "old.pt"), layers)

    images = rng.integers(0, 256, (2, 9, 11, 3), np.uint8)
    scaled = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = run(torch, model.features[0], scaled)
    found = conv(np.asarray(normalize_images(images)), layers["conv1_1"], "SAME")
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-5)
    assert np.abs(found - expected).max() < 0.2  # The border differs slightly.

    for name, index in list(zip(CONVOLUTIONS, TORCH_INDICES, strict=True))[1:]:
        module = model.features[index]
        x = rng.standard_normal((1, 4, 5, module.in_channels))
        np.testing.assert_allclose(conv(x, layers[name], "SAME"), run(torch, module, x), atol=1e-5)
    x = rng.standard_normal((3, 7, 7, LAST))
    fc6 = run(torch, model.classifier[0], x, flatten=True)
    np.testing.assert_allclose(conv(x, layers["fc6"], "VALID")[:, 0, 0], fc6, atol=1e-5)
    fc7 = run(torch, model.classifier[3], fc6[:, None, None], flatten=True)
    np.testing.assert_allclose(conv(fc6[:, None, None], layers["fc7"], "VALID")[:, 0, 0], fc7, atol=1e-5)


def run(torch, module, x, flatten=False):
    """Returns the result of a PyTorch module for a map [N, H, W, C]."""
    x = torch.tensor(np.asarray(x, np.float32)).permute(0, 3, 1, 2)
    y = module(x.flatten(1) if flatten else x).detach()
    return (y if flatten else y.permute(0, 2, 3, 1)).numpy()


def conv(x, layer, padding):
    y = lax.conv_general_dilated(
        np.asarray(x, np.float32),
        layer["kernel"],
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    return np.asarray(y) + layer["bias"]


@pytest.mark.filterwarnings("ignore:VGG-16 weights. the first layer")
def test_safetensors_of_timm_and_torchvision(save_safetensors, tmp_path, rng):
    layers, path = narrow_vgg(rng), tmp_path / "model.safetensors"
    save_safetensors(torch_arrays(layers, ("pre_logits.fc1", "pre_logits.fc2"), oihw), path)
    timm = read_vgg16(path)
    save_safetensors(torch_arrays(layers), path)
    torchvision = read_vgg16(path)
    save_safetensors(torch_arrays(without_fc(layers)), path)
    assert_equal(read_vgg16(path), without_fc(timm))
    assert_equal(timm, layers, skip=["conv1_1"])
    assert_equal(torchvision, timm)


@pytest.mark.filterwarnings("ignore:VGG-16 weights. the first layer")
def test_halves_in_safetensors(torch, tmp_path, rng):
    save_file = pytest.importorskip("safetensors.torch", reason="safetensors writes the files").save_file
    tensors = {name: torch.tensor(array) for name, array in torch_arrays(narrow_vgg(rng)).items()}
    for dtype in (torch.float16, torch.bfloat16):
        save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, tmp_path / "half.safetensors")
        rounded = {name: tensor.to(dtype).float() for name, tensor in tensors.items()}
        save_file(rounded, tmp_path / "float.safetensors")
        assert_equal(read_vgg16(tmp_path / "half.safetensors"), read_vgg16(tmp_path / "float.safetensors"))


def test_safetensors_that_do_not_fit(save_safetensors, tmp_path, rng, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_safetensors(torch_arrays(narrow_vgg(rng)), path)
    content = path.read_bytes()
    for damaged in (content[:100], content[:-1], b"\xff" * 8 + content[8:]):
        path.write_bytes(damaged)
        assert "is not a complete .safetensors file" in refusal(path)
    path.write_bytes(content)
    hide(monkeypatch, "safetensors")
    assert "pip install safetensors" in refusal(path)


def hide(monkeypatch, library):
    """Makes imports fail as if the library was not installed."""
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == library:
            raise ModuleNotFoundError(f"No module named '{library}'")
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)


# Indices in torchvision's networks, where a ReLU follows each convolution; the _bn networks also have normalisations.
OTHERS = {
    "vgg11": (0, 3, 6, 8, 11, 13, 16, 18),
    "vgg13": (0, 2, 5, 7, 10, 12, 15, 17, 20, 22),
    "vgg16_bn": (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40),
    "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}


@pytest.mark.parametrize(("network", "missing"), [("vgg11", 2), ("vgg13", 14), ("vgg16_bn", 2), ("vgg19", 17)])
def test_other_networks_of_torchvision(torch, tmp_path, network, missing):
    state = {}
    for index in OTHERS[network]:
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = torch.zeros(4, 3, 3, 3), torch.zeros(4)
        if network == "vgg16_bn":
            state[f"features.{index + 1}.weight"] = torch.zeros(4)
    torch.save(state, tmp_path / f"{network}.pth")
    message = refusal(tmp_path / f"{network}.pth")
    assert f"has no 'features.{missing}.weight'; expected plain VGG-16 (13 convolutions, no batch norm" in message


def test_state_dicts_with_other_values(torch, tmp_path, rng):
    path, arrays = tmp_path / "vgg.pth", torch_arrays(narrow_vgg(rng))

    def message(**changed):
        changed = {name.replace("_", "."): value for name, value in changed.items()}
        torch.save({name: torch.tensor(value) for name, value in {**arrays, **changed}.items()}, path)
        return refusal(path)

    assert "kernel of conv1_1 in" in message(features_0_weight=np.zeros((8, 1, 3, 3), np.float32))  # for grey images
    assert "has the shape (5, 5, 3, 8)" in message(features_0_weight=np.zeros((8, 3, 5, 5), np.float32))
    assert "kernel of conv4_1 in" in message(features_17_weight=np.zeros((8, 99, 3, 3), np.float32))
    assert "bias of conv4_1 in" in message(features_17_bias=np.zeros(99, np.float32))
    assert "has no 'features.17.weight'" in message(features_17_weight=np.float32(1))
    assert "type int64" in message(features_0_bias=np.zeros(arrays["features.0.bias"].shape, int))
    assert "kernel of fc6 in" in message(classifier_0_weight=np.zeros((5, 50), np.float32))
    assert "kernel of fc6 in" in message(classifier_0_weight=np.zeros((5, 49), np.float32))
    # torchvision's VGG16_Weights.IMAGENET1K_FEATURES expects another input and has no classifier.
    nan = message(classifier_0_weight=arrays["classifier.0.weight"] * np.float32(np.nan))
    assert "kernel of fc6 in" in nan
    assert "IMAGENET1K_V1, not IMAGENET1K_FEATURES" in nan
    del arrays["classifier.3.bias"]
    assert "has no 'classifier.3.bias'" in message()


# Tests of Caffe's files.


@pytest.mark.parametrize("form", ["released", "new", "convolutions", "without fc"])
def test_caffemodel(tmp_path, rng, form):
    layers = narrow_vgg(rng) if form != "without fc" else without_fc(narrow_vgg(rng))
    written = []
    for name, parts in layers.items():
        weight = (oihw if name in CONVOLUTIONS or form == "convolutions" else dense)(parts["kernel"])
        written.append((name, "Convolution" if weight.ndim == 4 else "InnerProduct", [weight, parts["bias"]]))
        written.append((f"relu{name[4:]}", "ReLU", []))
    written.append(("fc8", "InnerProduct", [np.zeros((3, 4), np.float32), np.zeros(3, np.float32)]))
    path = tmp_path / "vgg.caffemodel"
    path.write_bytes(encode(written, v1=form == "released", shape=form != "released"))
    assert_equal(read_vgg16(path), layers)


def test_caffemodels_that_do_not_fit(tmp_path, rng):
    path, layers = tmp_path / "vgg.caffemodel", narrow_vgg(rng)

    def message(changed):
        blobs = {name: [oihw(parts["kernel"]), parts["bias"]] for name, parts in layers.items()} | changed
        path.write_bytes(encode([(name, "Convolution", values) for name, values in blobs.items()]))
        return refusal(path)

    assert "has a layer 'conv3_4'; expected plain VGG-16" in message({"conv3_4": [np.zeros(3, np.float32)]})
    assert "conv2_1 in" in message({"conv2_1": [oihw(layers["conv2_1"]["kernel"])]})
    assert "bias of conv2_1 in" in message({"conv2_1": [oihw(layers["conv2_1"]["kernel"]), np.zeros((99, 1))]})
    assert "has no 'conv5_3'" in message({"conv5_3": []})
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(CaffemodelError):
        read_vgg16(path)


# Tests of all kinds of files.


def test_an_fc6_with_another_window(tmp_path, rng):
    layers, path = narrow_vgg(rng), tmp_path / "vgg.npz"
    layers["fc6"]["kernel"] = layers["fc6"]["kernel"][2:5, 2:5]  # the window of DeepLab's VGG-16
    np.savez(path, **{**keras_arrays(layers), "fc1/kernel": layers["fc6"]["kernel"]})
    assert_equal(read_vgg16(path), layers)


def test_one_dense_layer_alone(tmp_path, rng):
    layers, path = narrow_vgg(rng), tmp_path / "vgg.npz"
    for left in FC:
        some = {**without_fc(layers), left: layers[left]}
        np.savez(path, **keras_arrays(some))
        assert_equal(read_vgg16(path), some)


def test_missing_and_unknown_files(tmp_path):
    assert "no file" in refusal(tmp_path / "vgg.npz")
    with pytest.raises(
        InputError, match=r"give an \.npz, .*, or download torchvision's: curl -LO https://.*/vgg16-397923af\.pth"
    ):
        read_vgg16(tmp_path / "vgg.xyz")
    for name in ("vgg.ckpt", "vgg"):
        (tmp_path / name).write_bytes(b"\1")
        message = refusal(tmp_path / name)
        assert "expected a VGG-16 as .npz, .h5, .hdf5, .keras, .pth, .pt, .safetensors or .caffemodel" in message
    for name in ("vgg.npz", "vgg.NPZ"):
        with (tmp_path / name).open("wb") as stream:
            np.save(stream, np.zeros(3))
        assert "is an .npy file of NumPy" in refusal(tmp_path / name)
