"""The Segmenter with networks whose right answer is known: linear classifiers of a pixel's colour."""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caffe_networks import random_deconvnet, random_fcn8s
from caffemodel_writer import encode

from deconvnet_jax.data import crop_window
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import Segmenter, default_class_names, sample_scores
from deconvnet_jax.ops import MEAN_BGR, normalize_images
from deconvnet_jax.weights import fcn8s_from_caffe

NAMES = ("blue", "green", "red")
VARIABLES = {"params": {"kernel": jnp.eye(3)}}


@dataclass(frozen=True)
class ColorNet:
    """Scores are the input's colours, blue, green, red, times a matrix."""

    name: str = "net"

    def apply(self, variables, images, train):
        assert not train
        assert images.dtype == jnp.float32
        return (images + jnp.asarray(MEAN_BGR)) @ variables["params"]["kernel"]


def segmenter(net=None, size=224, names=NAMES):
    return Segmenter(net or ColorNet(), VARIABLES, names, input_size=size)


def halves(height, width, row, column):
    """Red above `row`, below it blue left of `column` and green right of it."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:row, :, 0], image[row:, :column, 2], image[row:, column:, 1] = 255, 255, 255
    labels = np.full((height, width), 1, np.uint8)
    labels[:row], labels[row:, :column] = 2, 0
    return image, labels


@pytest.mark.parametrize("size", [(375, 500), (501, 333), (224, 224), (223, 224), (97, 61), (768, 1023), (30, 400)])
def test_labels_lie_on_the_image(size):
    height, width = size
    row, column = height // 3, width // 2
    image, labels = halves(height, width, row, column)
    result = segmenter()(image)
    assert result.labels.shape == size
    assert result.labels.dtype == np.uint8
    wrong_rows = (result.labels != labels).mean(1)
    wrong_columns = (result.labels[row + 5 :] != labels[row + 5 :]).mean(0)
    blur = max(1.0, max(size) / 224)  # a cell of the score map in pixels
    assert np.flatnonzero(wrong_rows[: row - 5]).size == 0
    assert abs(edge(result.labels[:, 0] != 2) - row) <= blur / 2 + 0.5
    assert abs(edge(result.labels[-1] == 1) - column) <= blur / 2 + 0.5
    assert (wrong_columns > 0).sum() <= blur / 2 + 0.5


def edge(after):
    return int(np.argmax(after))


@pytest.mark.parametrize("size", [(150, 211), (211, 150), (77, 77)])
def test_linear_colors_come_back_at_their_place(size):
    """A shift by half a pixel would change a ramp by half its slope, everywhere and in the same direction."""
    height, width = size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    image = np.stack([x, y, 0 * x + 50], -1).round().astype(np.uint8)
    scores = segmenter()(image).scores[8:-8, 8:-8]
    expected = image[8:-8, 8:-8, ::-1].astype(float)
    difference = scores - expected
    assert np.abs(difference.mean((0, 1))).max() < 0.1
    assert np.abs(difference).max() < 1.01  # rounding of the image and of its crop


def test_result_describes_itself(rng):
    image = rng.integers(0, 256, (75, 100, 3)).astype(np.uint8)
    result = segmenter()(image)
    assert result.scores.shape == (75, 100, 3)
    assert result.scores.dtype == np.float32
    np.testing.assert_array_equal(result.labels, result.scores.argmax(-1))
    np.testing.assert_array_equal(result.boxes, np.array([[0, -12.5, 100, 87.5]], np.float32))
    assert result.boxes.dtype == np.float32


def test_another_size_does_not_compile_again(rng):
    chex.clear_trace_counter()

    @dataclass(frozen=True)
    class CountedNet(ColorNet):
        @chex.assert_max_traces(1)
        def apply(self, variables, images, train):
            return super().apply(variables, images, train)

    for size in ((60, 80), (80, 61), (300, 200)):
        segmenter(CountedNet())(rng.integers(0, 256, (*size, 3)).astype(np.uint8))
    other = Segmenter(CountedNet(), jax.tree.map(lambda leaf: -leaf, VARIABLES), NAMES)
    other(np.zeros((40, 40, 3), np.uint8))  # nor do other variables
    with pytest.raises(AssertionError, match="traced > 1 times"):
        segmenter(CountedNet(), size=64)(np.zeros((40, 40, 3), np.uint8))  # the counter counts


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9])
def test_batches_equal_single_images(rng, batch_size):
    images = [rng.integers(0, 256, (*rng.integers(20, 90, 2), 3)).astype(np.uint8) for _ in range(5)]
    results = list(segmenter(size=64).segment(iter(images), batch_size))
    assert len(results) == 5
    for image, result in zip(images, results, strict=True):
        alone = segmenter(size=64)(image)
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-3)
        np.testing.assert_array_equal(result.boxes, alone.boxes)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((40, 50), np.uint8), r"\[40, 50\]; convert grey"),
        (np.zeros((40, 50, 4), np.uint8), r"\[40, 50, 4\]; convert grey or transparent"),
        (np.zeros((40, 50, 3), np.float32), "expected uint8 values 0 to 255, got float32"),
        (np.zeros((3, 50, 3), np.uint8), "the image is 50x3 pixels; expected sides of 8 to 32766"),
        (np.zeros((8, 32767, 3), np.uint8), "the image is 32767x8 pixels"),
        ("cat.jpg", "expected a colour image.*got str"),
    ],
)
def test_bad_images(image, message):
    with pytest.raises(InputError, match=message):
        segmenter()(image)


def test_class_names_must_fit():
    with pytest.raises(InputError, match="scores 3 classes, but there are 2 class names"):
        segmenter(names=("a", "b"))(np.zeros((40, 50, 3), np.uint8))


@pytest.mark.parametrize(("config", "size"), [({"data": {"crop_size": 64}}, 64), ({"model": {}}, 224)])
def test_from_checkpoint(monkeypatch, config, size):
    def load_checkpoint(path, step):
        assert (path, step) == ("runs/colors", 7)
        return ColorNet(), VARIABLES, {"config": config, "class_names": list(NAMES), "step": 7}

    monkeypatch.setattr("deconvnet_jax.inference.segmenter.load_checkpoint", load_checkpoint)
    restored = Segmenter.from_checkpoint("runs/colors", step=7)
    assert restored.class_names == NAMES
    assert restored.input_size == size
    assert (restored(np.full((50, 70, 3), (0, 0, 200), np.uint8)).labels == 0).all()


NARROW = {"width": 1 / 64, "fc": 8, "classes": 3}


def test_fcn8s_sees_the_images_own_pixels_and_the_mean_beyond(tmp_path, rng):
    """As the original: normalised, then padded with zeros at the bottom and on the right to 500x500."""
    path = tmp_path / "fcn.caffemodel"
    path.write_bytes(encode(random_fcn8s(rng, **NARROW)))
    segmenter = Segmenter.from_caffe(path)
    assert segmenter.class_names == ("class 0", "class 1", "class 2")
    images = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((70, 90), (300, 40))]
    net, variables = fcn8s_from_caffe(path)
    for image, result in zip(images, segmenter.segment(images, batch_size=2), strict=True):
        height, width = image.shape[:2]
        padded = np.zeros((1, 500, 500, 3), np.float32)
        padded[0, :height, :width] = normalize_images(jnp.asarray(image))
        expected = np.asarray(net.apply(variables, padded))[0, :height, :width]
        np.testing.assert_allclose(result.scores, expected, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_array_equal(result.boxes, [[0, 0, 500, 500]])


def test_fcn8s_reduces_larger_images(tmp_path, rng):
    path = tmp_path / "fcn.caffemodel"
    path.write_bytes(encode(random_fcn8s(rng, **NARROW)))
    image = rng.integers(0, 256, (300, 1000, 3)).astype(np.uint8).repeat(2, 0)
    result = Segmenter.from_caffe(path)(image)
    assert result.labels.shape == (600, 1000)
    np.testing.assert_array_equal(result.boxes, [[0, 0, 1000, 1000]])
    net, variables = fcn8s_from_caffe(path)
    padded = np.zeros((1, 500, 500, 3), np.float32)
    padded[0, :300] = normalize_images(jnp.asarray(crop_window(image, None, result.boxes[0], 500)[0]))[:300]
    scores = np.asarray(net.apply(variables, padded))[0]
    expected = sample_scores(scores, result.boxes[0], 600, 1000)
    np.testing.assert_allclose(result.scores, expected, atol=1e-4 * np.abs(expected).max())


def test_deconvnet_from_caffe(tmp_path, rng):
    path = tmp_path / "net.caffemodel"
    layers = random_deconvnet(rng, **NARROW, fc_window=1)
    path.write_bytes(encode(layers))
    segmenter = Segmenter.from_caffe(path, class_names=("sky", "sea", "land"))
    assert segmenter.class_names == ("sky", "sea", "land")
    assert segmenter.input_size == 32
    assert segmenter(np.zeros((40, 50, 3), np.uint8)).scores.shape == (40, 50, 3)
    path.write_bytes(encode([*layers, ("loss", "SoftmaxWithLoss", [])]))
    with pytest.raises(InputError, match=r"batch normalisation are not known: .* experiments\.calibrate_bn"):
        Segmenter.from_caffe(path)


def test_names_for_vocs_number_of_classes():
    assert default_class_names(21)[15] == "person"
