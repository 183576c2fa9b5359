"""Compares networks from caffemodels with PyTorch on the same arrays, and with results of Caffe itself."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caffe_networks import random_deconvnet, random_fcn8s, torch_deconvnet, torch_fcn8s
from caffemodel_writer import encode

from deconvnet_jax.models import DeconvNet, FCN8s, batch_norm_name, compiler_options, count_parameters
from deconvnet_jax.ops import MEAN_BGR
from deconvnet_jax.training import segmentation_loss
from deconvnet_jax.weights import CaffemodelError, deconvnet_from_caffe, fcn8s_from_caffe, network_from_caffe
from deconvnet_jax.weights.from_caffe import HEAVY_NAMES

NARROW = {"width": 1 / 32, "decoder_width": 0.5, "fc": 24, "classes": 6}
NARROW_FCN8S = {"width": 1 / 32, "fc": 24, "classes": 5}
OLD_NAMES = tuple(HEAVY_NAMES.values())


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is the reference: launch/test.sh --reference")


def write(path, layers, **options):
    path.write_bytes(encode(layers, **options))
    return path


def renamed(layers, names):
    return [(names.get(name, name), kind, blobs) for name, kind, blobs in layers]


def random_images(rng, n=1, size=224):
    return (rng.integers(0, 256, (n, size, size, 3)) - np.array(MEAN_BGR)).astype(np.float32)


def forward(net, variables, images):
    """Returns the logits and the switches of the five poolings."""
    apply = jax.jit(partial(net.apply, train=False, mutable=["intermediates"]))
    logits, state = apply(variables, images)
    return np.asarray(logits), [np.asarray(state["intermediates"][f"pool{b}_mask"][0]) for b in range(1, 6)]


def assert_same_network(torch, net, variables, layers, images):
    """Asserts that logits agree to 1e-4 of the largest one, and that all clear switches are equal.

    The reference computes in float64. Where the two largest values of a window are equal up to rounding, either may be
    the switch. The reference therefore unpools with the switches of the tested network.
    """
    logits, switches = forward(net, variables, images)
    _, expected_switches, gaps = torch_deconvnet(torch, layers, images)
    for found, expected, gap in zip(switches, expected_switches, gaps, strict=True):
        differ = found != expected
        assert differ.sum() <= 2 + 1e-4 * differ.size
        assert (gap[differ] < 1e-5).all()
    expected, _, _ = torch_deconvnet(torch, layers, images, switches)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    # The error must also be small compared with the variation of the scores, which a large constant would hide.
    assert np.abs(logits - expected).max() < 1e-3 * expected.std((0, 1, 2)).max()


def test_narrow_network_equals_pytorch(torch, tmp_path, rng):
    layers = random_deconvnet(rng, **NARROW)
    net, variables = deconvnet_from_caffe(write(tmp_path / "net.caffemodel", layers))
    assert net == DeconvNet(num_classes=6, width=1 / 32, decoder_width=0.5, fc_features=24)
    assert_same_network(torch, net, variables, layers, random_images(rng, 2))


def test_another_window_of_fc6(torch, tmp_path, rng):
    layers = random_deconvnet(rng, **NARROW, fc_window=3)
    net, variables = deconvnet_from_caffe(write(tmp_path / "net.caffemodel", layers, v1=False, doubles=True))
    assert net.fc_window == 3
    assert_same_network(torch, net, variables, layers, random_images(rng, size=96))


@pytest.mark.slow
def test_full_network_equals_pytorch(torch, tmp_path, rng):
    layers = random_deconvnet(rng)
    net, variables = deconvnet_from_caffe(write(tmp_path / "net.caffemodel", layers))
    assert net == DeconvNet(num_classes=21)
    assert count_parameters(variables) == 251_805_653
    assert_same_network(torch, net, variables, layers, random_images(rng))


def test_learned_form_equals_pytorchs_batch_normalisation(torch, tmp_path, rng):
    """The scale and shift of a training snapshot give the same as PyTorch with the batch statistics."""
    layers = random_deconvnet(rng, **NARROW)
    net, variables = deconvnet_from_caffe(write(tmp_path / "net.caffemodel", layers), folded_bn=False)
    blobs = {name: blobs for name, _, blobs in layers}
    images = random_images(rng, 2)
    apply = partial(net.clone(bn_momentum=0.0).apply, train=True, mutable=["batch_stats", "intermediates"])
    apply = jax.jit(partial(apply, capture_intermediates=lambda module, _: module.name == "bn1_1"))
    _, state = apply(variables, images)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2))
    x = torch.nn.functional.conv2d(x, torch.from_numpy(blobs["conv1_1"][0]), padding=1)  # The bias would cancel.
    scale, shift = (torch.from_numpy(blob.ravel()) for blob in blobs["bn1_1"])
    expected = torch.nn.functional.batch_norm(x, None, None, scale, shift, training=True, eps=1e-9).relu().numpy()
    found = state["intermediates"]["bn1_1"]["__call__"][0]
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), atol=1e-4)
    assert all((s["mean"] == 0).all() and (s["var"] == 1).all() for s in variables["batch_stats"].values())


def test_equals_the_authors_caffe(real_data):
    """Compares with outputs that the authors' fork of Caffe computed for a narrow network."""
    folder = real_data / "caffe_reference"
    net, variables = deconvnet_from_caffe(folder / "narrow.caffemodel")
    assert net == DeconvNet(num_classes=21, width=1 / 16, fc_features=64)
    assert count_parameters(variables) == 322_049
    with np.load(folder / "inputs_synth.npz") as inputs:
        images = inputs[next(key for key in inputs if inputs[key].ndim == 4 and inputs[key].shape[-1] == 3)][:2]
    images = images.astype(np.float32) - np.asarray(MEAN_BGR, np.float32)
    logits, switches = forward(net, variables, images)
    with np.load(folder / "narrow_forward.npz") as expected:
        for i in range(2):
            scores = expected[f"img{i}/seg_score_s3"].squeeze()
            ours = logits[i].transpose(2, 0, 1)
            assert np.abs(ours[:, ::3, ::3] - scores).max() < 1e-4 * np.abs(scores).max()
            np.testing.assert_array_equal(ours.argmax(0), expected[f"img{i}/argmax"].squeeze())
            for block, indices in enumerate(switches, 1):
                np.testing.assert_array_equal(two_bits(indices[i]), unpack(expected, i, block))


def test_gradients_as_exact_as_the_authors_caffe(real_data):
    """Our float32 gradients of 8 crops are at most twice as far from float64 as those of Caffe.

    Caffe's relative errors are 6.6e-4 (median of the parameters) and 1.6e-3 (largest). Batch normalisation over few
    values and changed switches amplify the errors of sums about a thousand times.
    """
    folder = real_data / "caffe_reference"
    net, variables = deconvnet_from_caffe(folder / "narrow.caffemodel")
    net = net.clone(bn_epsilon=1e-9)
    with np.load(folder / "inputs_synth.npz") as inputs:
        images, labels = (inputs[key][:8] for key in ("image_bgr_u8", "label_u8"))
    images = images.astype(np.float32) - np.asarray(MEAN_BGR, np.float32)

    def gradients(dtype):
        def loss(params, images):
            network = net.clone(dtype=dtype)
            logits, _ = network.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return segmentation_loss(logits, labels)

        arguments = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (variables["params"], images))
        found = jax.jit(jax.grad(loss), compiler_options=compiler_options(jax.default_backend()))(*arguments)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)

    found = gradients(jnp.float32)
    with jax.enable_x64(True):
        expected = gradients(jnp.float64)
    errors = [
        np.linalg.norm(found[layer][part] - leaf) / np.linalg.norm(leaf)
        for layer, parts in expected.items()
        for part, leaf in parts.items()
        if part != "bias" or "bn" in layer or layer == "seg-score-voc"  # normalisation cancels the other biases
    ]
    assert np.median(errors) < 2 * 6.6e-4
    assert max(errors) < 2 * 1.6e-3


def two_bits(indices):
    """Converts switches from positions in the plane [h, w, C] to places in the 2x2 windows, 0 to 3, [C, h, w]."""
    h, w, _ = indices.shape
    rows, columns = indices // (2 * w), indices % (2 * w)
    places = 2 * (rows - 2 * np.arange(h)[:, None, None]) + columns - 2 * np.arange(w)[:, None]
    return places.transpose(2, 0, 1)


def unpack(expected, image, block):
    packed = expected[f"img{image}/pool{block}_switch2bit"]
    shape = expected[f"img{image}/pool{block}_switch_shape"]
    codes = np.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], -1).ravel()
    return codes[: np.prod(shape)].reshape(shape[-3:])


def test_a_training_snapshot_that_caffe_wrote(real_data):
    """Data layers and loss layers are ignored."""
    folder = real_data / "caffe_reference"
    net, variables = deconvnet_from_caffe(folder / "narrow_written_by_caffe.caffemodel", folded_bn=False)
    assert (net.width, net.fc_features, net.num_classes) == (1 / 16, 64, 21)
    logits, updates = net.apply(variables, jnp.zeros((1, 224, 224, 3)), train=True, mutable=["batch_stats"])
    assert np.isfinite(logits).all()
    assert set(updates["batch_stats"]) == {
        batch_norm_name(n) for n in variables["params"] if "conv" in n or "fc" in n if "bn" not in n
    }


def changed(layers, name, change):
    return [(n, kind, change(blobs) if n == name else blobs) for n, kind, blobs in layers]


def nan_at_end(blobs):
    return [np.where(np.arange(blobs[0].size).reshape(blobs[0].shape) == blobs[0].size - 1, np.nan, blobs[0])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda layers: [x for x in layers if x[0] != "deconv4_3"],
            "lacks the layer 'deconv4_3'; it holds another network",
        ),
        (lambda layers: layers[:9], "lacks the layer .conv2_2. and 52 more"),
        (
            lambda layers: [*layers, ("fc8", "InnerProduct", [np.zeros((1, 1, 5, 5), np.float32)])],
            "has, unlike this network, the layer 'fc8'",
        ),
        (
            lambda layers: changed(layers, "conv3_2", lambda b: [b[0][:, :, :2], b[1]]),
            r"kernel of layer 'conv3_2' has the shape \(8, 8, 2, 3\), expected \(8, 8, 3, 3\)",
        ),
        (
            lambda layers: changed(layers, "deconv4_3", lambda b: [b[0].swapaxes(0, 1), b[1]]),
            r"kernel of layer 'deconv4_3' has the shape \(8, 16, 3, 3\), expected \(16, 8, 3, 3\)",
        ),
        (
            lambda layers: changed(layers, "bn2_1", lambda b: [b[0][:, :3], b[1]]),
            r"scale of layer 'bn2_1' has the shape \(1, 3, 1, 1\), expected \(4,\)",
        ),
        (lambda layers: changed(layers, "conv2_1", lambda b: b[:1]), r"'conv2_1' has 1 blob\(s\), expected 2 \(kernel"),
        (
            lambda layers: changed(layers, "fc7", lambda b: nan_at_end(b) + b[1:]),
            "kernel of layer 'fc7' has values that are no finite numbers",
        ),
        (
            lambda layers: changed(layers, "fc6", lambda b: [b[0].reshape(24, -1), b[1]]),
            "kernel of layer 'fc6' has the shape .*, expected",
        ),
    ],
)
def test_one_error_names_the_layer(tmp_path, change, message):
    layers = random_deconvnet(np.random.default_rng(0), **{**NARROW, "decoder_width": 1.0})
    path = write(tmp_path / "net.caffemodel", change(layers))
    with pytest.raises(CaffemodelError, match=message) as error:
        deconvnet_from_caffe(path)
    assert re.match(re.escape(str(path)), str(error.value))
    assert "\n" not in str(error.value)


# Tests of FCN-8s.


def assert_same_fcn8s(torch, net, variables, layers, size, rng):
    images = (rng.integers(0, 256, (1, *size, 3)) - np.array(MEAN_BGR)).astype(np.float32)
    logits = np.asarray(jax.jit(net.apply)(variables, images))
    expected = torch_fcn8s(torch, layers, images)
    assert logits.shape == expected.shape == (1, *size, net.num_classes)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    # The error must also be small compared with the variation of the scores, which a large constant would hide.
    assert np.abs(logits - expected).max() < 1e-3 * expected.std((0, 1, 2)).max()


@pytest.mark.parametrize("size", [(75, 131), (190, 101), (1, 1)])
def test_narrow_fcn8s_equals_pytorch(torch, tmp_path, rng, size):
    layers = random_fcn8s(rng, **NARROW_FCN8S)
    net, variables = fcn8s_from_caffe(write(tmp_path / "fcn.caffemodel", layers))
    assert net == FCN8s(num_classes=5, width=1 / 32, fc_features=24)
    if size == (1, 1):
        assert net.apply(variables, np.zeros((1, 1, 1, 3), np.float32)).shape == (1, 1, 1, 5)
    else:
        assert_same_fcn8s(torch, net, variables, layers, size, rng)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(375, 500), (333, 250)])
def test_full_fcn8s_equals_pytorch(torch, tmp_path, rng, size):
    layers = random_fcn8s(rng)
    net, variables = fcn8s_from_caffe(write(tmp_path / "fcn.caffemodel", layers, v1=False))
    assert net == FCN8s()
    assert_same_fcn8s(torch, net, variables, layers, size, rng)


def test_the_later_release_has_other_names_and_one_bias_less(tmp_path, rng):
    layers = random_fcn8s(rng, **NARROW_FCN8S)
    score2 = next(blobs for name, _, blobs in layers if name == "score2")
    score2[1][:] = 0
    old = fcn8s_from_caffe(write(tmp_path / "old.caffemodel", layers))
    score2.pop()
    layers = renamed(layers, {ours: theirs for theirs, ours in HEAVY_NAMES.items()})
    new = fcn8s_from_caffe(write(tmp_path / "heavy.caffemodel", layers, v1=False))
    assert new[0] == old[0]
    jax.tree.map(np.testing.assert_array_equal, new[1], old[1])


def test_errors_of_an_fcn8s_name_the_layer(tmp_path, rng):
    layers = random_fcn8s(rng, **NARROW_FCN8S)
    path = write(tmp_path / "a.caffemodel", [layer for layer in layers if layer[0] != "score-pool4"])
    with pytest.raises(CaffemodelError, match=r"a\.caffemodel lacks the layer 'score-pool4'; it holds another network"):
        fcn8s_from_caffe(path)
    wrong = [(n, k, [b[0][:, :, :8], *b[1:]] if n == "upsample" else b) for n, k, b in layers]
    with pytest.raises(CaffemodelError, match=r"'upsample' has the shape \(5, 5, 8, 16\), expected \(5, 5, 16, 16\)"):
        fcn8s_from_caffe(write(tmp_path / "b.caffemodel", wrong))


# Tests of the decision which network a file holds.


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
    path.write_bytes(encode(random_fcn8s(rng, **NARROW_FCN8S), v1=v1))
    net, variables, known = network_from_caffe(path)
    assert isinstance(net, FCN8s)
    assert known == {}


def test_another_network_is_refused(tmp_path, rng):
    path = tmp_path / "vgg.caffemodel"
    path.write_bytes(encode([layer for layer in random_fcn8s(rng, **NARROW_FCN8S) if layer[0].startswith("conv")]))
    with pytest.raises(CaffemodelError, match=r"neither a DeconvNet .* nor an FCN-8s .*; a VGG-16 is only an encoder"):
        network_from_caffe(path)


# Tests of score layers that were renamed for fine-tuning on other classes.


@pytest.mark.parametrize("name", ["seg-score-mine", "score", "seg_score_voc_ft", "fc8"])
def test_renamed_scores_of_a_deconvnet(tmp_path, rng, name):
    layers = random_deconvnet(rng, **NARROW)
    expected = network_from_caffe(write(tmp_path / "a.caffemodel", layers))
    layers = [*renamed(layers, {"seg-score-voc": name}), ("loss", "SoftmaxWithLoss", [])]
    net, variables, known = network_from_caffe(write(tmp_path / "b.caffemodel", layers), folded_bn=True)
    assert isinstance(net, DeconvNet)
    assert known == {"batch_statistics": "folded"}
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])


def test_deconvnet_with_several_layers_left(tmp_path, rng):
    layers = renamed(random_deconvnet(rng, **NARROW), {"seg-score-voc": "score_a"})
    two = [*layers, ("score_b", *layers[-1][1:])]
    with pytest.raises(
        CaffemodelError, match=r"has no layer 'seg-score-voc', but 2 layers that may be .*'score_a', 'score_b'"
    ):
        network_from_caffe(write(tmp_path / "a.caffemodel", two))
    similar = [*renamed(layers, {"score_a": "seg-score-voc2"}), ("other", *layers[-1][1:])]
    with pytest.raises(CaffemodelError, match=r"has, unlike this network, the layer 'other'"):
        network_from_caffe(write(tmp_path / "b.caffemodel", similar))
    (name, kind, (kernel, bias)) = layers[-1]
    other = [*layers[:-1], (name, kind, [np.repeat(kernel, 2, axis=1), bias])]  # has too many input channels
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
def test_renamed_scores_of_an_fcn8s(tmp_path, rng, names, fc):
    layers = random_fcn8s(rng, **{**NARROW_FCN8S, "classes": 4, "fc": fc})
    expected = network_from_caffe(write(tmp_path / "a.caffemodel", layers))
    net, variables, _ = network_from_caffe(write(tmp_path / "b.caffemodel", renamed(layers, names)))
    assert isinstance(net, FCN8s)
    jax.tree.map(np.testing.assert_array_equal, variables, expected[1])


def test_fcn8s_with_several_layers_left(tmp_path, rng):
    layers = renamed(random_fcn8s(rng, **NARROW_FCN8S), {"score2": "up_a", "score4": "up_b"})
    up = next(layer for layer in layers if layer[0] == "up_b")
    path = write(tmp_path / "a.caffemodel", [*layers, ("up_c", *up[1:])])
    with pytest.raises(
        CaffemodelError, match=r"has no layer 'score2', but 3 layers that may be .*'up_a', 'up_b', 'up_c'"
    ):
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
