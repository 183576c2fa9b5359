"""Checks the Segmenter with networks whose answer is known: linear classifiers of a pixel's colour."""

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caffe_networks import random_deconvnet, random_fcn8s
from caffemodel_writer import encode
from known_networks import ColorNet
from numpy_proposals import aggregate
from PIL import Image
from scipy.special import log_softmax, softmax

from deconvnet_jax.data import crop_window, propose_boxes
from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import (
    MODES,
    InferenceSettings,
    Member,
    Segmenter,
    crop_windows,
    default_class_names,
    member,
    paper_windows,
    sample_scores,
)
from deconvnet_jax.inference import segmenter as segmenter_module
from deconvnet_jax.models import FCN8s
from deconvnet_jax.ops import CRF_PRESETS, dense_crf, normalize_images
from deconvnet_jax.weights import fcn8s_from_caffe

NAMES = ("blue", "green", "red")
VARIABLES = {"params": {"kernel": jnp.eye(3)}}


def segmenter(net=None, size=224, names=NAMES, variables=VARIABLES, mode="whole_image", **settings):
    """Returns a Segmenter on one device; test_devices.py tests several."""
    chosen = InferenceSettings(mode=mode, **settings)
    return Segmenter(net or ColorNet(), variables, names, size, chosen, devices=jax.local_devices()[:1])


def random_images(rng, sizes):
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


def halves(height, width, row, column):
    """Returns an image, red above `row`, below it blue left of `column` and green right of it, and its labels."""
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
    blur = max(1.0, max(size) / 224)  # the side of a cell of the score map, in pixels
    assert np.flatnonzero(wrong_rows[: row - 5]).size == 0
    assert abs(edge(result.labels[:, 0] != 2) - row) <= blur / 2 + 0.5
    assert abs(edge(result.labels[-1] == 1) - column) <= blur / 2 + 0.5
    assert (wrong_columns > 0).sum() <= blur / 2 + 0.5


def edge(after):
    return int(np.argmax(after))


@pytest.mark.parametrize("size", [(150, 211), (211, 150), (77, 77)])
def test_linear_colors_come_back_at_their_place(size):
    """A shift by half a pixel would change a ramp everywhere by half its slope, in the same direction."""
    height, width = size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    image = np.stack([x, y, 0 * x + 50], -1).round().astype(np.uint8)
    scores = segmenter()(image).scores[8:-8, 8:-8]
    expected = image[8:-8, 8:-8, ::-1].astype(float)
    difference = scores - expected
    assert np.abs(difference.mean((0, 1))).max() < 0.1
    assert np.abs(difference).max() < 1.01  # from the rounding of the image and of its crop


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

    for image in random_images(rng, ((60, 80), (80, 61), (300, 200))):
        segmenter(CountedNet())(image)
    other = segmenter(CountedNet(), variables=jax.tree.map(lambda leaf: -leaf, VARIABLES))
    other(np.zeros((40, 40, 3), np.uint8))  # other variables do not compile either
    with pytest.raises(AssertionError, match="traced > 1 times"):
        segmenter(CountedNet(), size=64)(np.zeros((40, 40, 3), np.uint8))  # this shows that the counter works


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9])
@pytest.mark.parametrize("mode", ["whole_image", "paper"])
def test_many_images_equal_single_ones(rng, batch_size, mode):
    images = random_images(rng, rng.integers(24, 90, (5, 2)))
    settings = {"size": 64, "mode": mode, "num_proposals": 6, "proposals": "grid"}
    results = list(segmenter(batch_size=batch_size, **settings).segment(iter(images)))
    assert len(results) == 5
    for image, result in zip(images, results, strict=True):
        alone = segmenter(**settings)(image)
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-3)
        np.testing.assert_array_equal(result.boxes, alone.boxes)


def test_paper_mode_is_the_loop_over_proposals(rng, smooth_net):
    net, variables, network = smooth_net
    image = rng.integers(0, 256, (90, 120, 3)).astype(np.uint8)
    found = segmenter(net, 32, variables=variables, mode="paper", num_proposals=7, proposals="gradient")(image)
    boxes = paper_windows(propose_boxes(image, 7, method="gradient")[0], 7)
    np.testing.assert_array_equal(found.boxes, boxes)
    expected, _ = aggregate(image, boxes, network, 32, "max")
    np.testing.assert_allclose(found.scores, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found.labels, found.scores.argmax(-1))


def test_proposals_may_be_given(rng):
    image = np.full((60, 80, 3), (0, 0, 200), np.uint8)
    boxes = np.array([[10, 10, 40, 40], [200, 200, 260, 230]])
    result = segmenter(mode="paper", enlarge=1.0)(image, boxes)
    np.testing.assert_array_equal(result.boxes, [[10, 10, 40, 40], [200, 185, 260, 245]])
    covered = np.zeros((60, 80), bool)
    covered[10:40, 10:40] = True
    np.testing.assert_array_equal((result.scores != 0).any(-1), covered)
    nothing = segmenter(mode="paper")(image, [])
    assert nothing.boxes.shape == (0, 4)
    assert (nothing.labels == 0).all()  # background


def test_large_photographs_are_reduced(rng):
    image, labels = halves(300, 1300, 100, 700)
    result = segmenter(mode="sliding_window", max_side=400)(image)
    assert result.scores.shape == (300, 1300, 3)
    assert (result.labels == labels).mean() > 0.98
    assert result.boxes[:, 2:].max() >= 1300
    np.testing.assert_allclose(result.boxes[:, 2] - result.boxes[:, 0], 224 * 1300 / 400, rtol=1e-5)
    given = segmenter(mode="paper", max_side=400, enlarge=1.0)(image, np.array([[650, 130, 750, 230]]))
    np.testing.assert_allclose(given.boxes, [[650, 130, 750, 230]], atol=0.2)
    scored = np.flatnonzero((given.scores != 0).any((0, 2)))
    assert abs(scored[0] - 650) <= 4  # a pixel of the reduced image is 3.25 pixels of the photograph
    assert abs(scored[-1] + 1 - 750) <= 4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (2, 20_000), (40_000, 3), (9, 5)])
def test_any_size_works(mode, size):
    image = np.full((*size, 3), (9, 8, 250), np.uint8)
    result = segmenter(size=32, mode=mode, num_proposals=3)(image)
    assert result.labels.shape == size
    assert np.isfinite(result.scores).all()
    if MODES[mode].of_proposals is None:
        assert (result.labels == 0).all()  # blue


def test_flip_is_symmetric(rng, smooth_net):
    net, variables, _ = smooth_net
    image = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    flipped = segmenter(net, 32, variables=variables, flip=True)
    scores, mirrored = flipped(image).scores, flipped(np.ascontiguousarray(image[:, ::-1])).scores[:, ::-1]
    np.testing.assert_allclose(scores, mirrored, atol=1e-4 * np.abs(scores).max())
    plain = segmenter(net, 32, variables=variables)(image).scores
    assert np.abs(plain - scores).max() > 0.01 * np.abs(scores).max()


def ensemble(first, second, mode="whole_image", **settings):
    """Returns a Segmenter with two networks, and one with each network alone."""
    both = replace(segmenter(variables=first, mode=mode, **settings), partner=Member(ColorNet("partner"), second, 224))
    return both, both.alone(), both.alone(both.partner)


def test_ensembles(rng):
    image = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    matrices = [{"params": {"kernel": jnp.asarray(rng.normal(0, 0.03, (3, 3)), jnp.float32)}} for _ in range(2)]
    both, one, two = (found(image).scores for found in ensemble(*matrices))
    expected = np.log((softmax(one, -1) + softmax(two, -1)) / 2)
    np.testing.assert_allclose(log_softmax(both, -1), expected, atol=1e-3)
    box = np.array([[-20, -20, 130, 130]])
    both, one, two = (found(image, box).scores for found in ensemble(*matrices, "released"))
    assert (one >= 0).all()  # the maximum starts with 0
    np.testing.assert_allclose(both, one * np.maximum(two, 0), rtol=1e-3, atol=1e-3)


def test_a_single_window_stays_as_it_is_whatever_the_aggregation():
    """Negative scores are kept too."""
    image = np.full((40, 50, 3), (250, 30, 90), np.uint8)
    negative = {"params": {"kernel": -jnp.eye(3)}}
    found = segmenter(variables=negative, aggregation="mean")(image)
    np.testing.assert_array_equal(found.scores, segmenter(variables=negative)(image).scores)
    assert (found.labels == 1).all()


def test_a_crf_at_the_end(rng):
    image, _ = halves(40, 50, 20, 25)
    noisy = np.clip(image + rng.normal(0, 25, image.shape), 0, 255).astype(np.uint8)
    variables = {"params": {"kernel": jnp.eye(3) / 100}}
    plain = segmenter(variables=variables)(noisy)
    refined = segmenter(variables=variables, crf="usual")(noisy)
    np.testing.assert_allclose(np.exp(refined.scores).sum(-1), 1, atol=1e-4)  # log probabilities
    assert softmax(refined.scores, -1).max(-1).mean() > softmax(plain.scores, -1).max(-1).mean()
    np.testing.assert_array_equal(refined.labels, refined.scores.argmax(-1))


def test_a_product_of_scores_and_an_fcn8s_are_not_sharpened():
    both, one, _ = ensemble(VARIABLES, VARIABLES, "released", crf="usual")
    assert (both._sharpness, one._sharpness) == (1, 4)
    paper = both.changed(mode="paper")
    assert (paper._sharpness, paper.changed(crf_sharpness=2.0)._sharpness) == (4, 2)
    fcn8s = Member(FCN8s(num_classes=3), {}, 224)
    assert paper.alone(fcn8s)._sharpness == 1
    assert replace(paper.alone(fcn8s), partner=fcn8s)._sharpness == 1


def flat_and_alike(boxes):
    """Returns a blue image with a green patch, its labels and boxes; colours and scores differ by four units."""
    image = np.full((96, 120, 3), (98, 98, 102), np.uint8)
    image[40:56, 50:70] = (98, 102, 98)
    labels = np.zeros((96, 120), np.uint8)
    labels[40:56, 50:70] = 1
    return image, labels, np.array(boxes)


@pytest.mark.parametrize("boxes", [[[0, -12, 120, 108]], [[0, -12, 120, 108], [20, 0, 116, 96], [0, 0, 96, 96]]])
def test_the_usual_crf_after_proposals_keeps_an_object_of_flat_scores(boxes):
    image, labels, boxes = flat_and_alike(boxes)
    paper = {"mode": "paper", "enlarge": 1.0, "variables": {"params": {"kernel": jnp.eye(3)}}}
    plain = segmenter(**paper)(image, boxes)
    assert (plain.labels == labels).mean() > 0.98
    kept = segmenter(crf="usual", **paper)(image, boxes)
    assert (kept.labels == labels).mean() > 0.98
    raw = segmenter(crf="usual", crf_sharpness=1.0, **paper)(image, boxes)
    assert (raw.labels == 0).all()  # with the softmax of the raw maxima, the object is lost


@pytest.mark.parametrize(
    ("settings", "sharpness"),
    [
        ({"mode": "paper", "crf": "usual"}, 4),
        ({"mode": "paper", "crf": "usual", "aggregation": "mean"}, 4),
        ({"mode": "paper", "crf": "usual", "crf_sharpness": 2.5}, 2.5),
        ({"mode": "paper", "crf": "released"}, 1),
        ({"mode": "released", "crf": "released"}, 1),
        ({"mode": "released", "crf": "usual"}, 4),
        ({"mode": "whole_image", "crf": "usual"}, 1),
        ({"mode": "whole_image", "crf": "usual", "crf_sharpness": 3.0}, 3),
    ],
)
def test_unaries_of_the_crf(rng, settings, sharpness):
    image = rng.integers(0, 256, (130, 140, 3)).astype(np.uint8)
    boxes = np.array([[0, 0, 130, 130], [10, 5, 140, 130]]) if MODES[settings["mode"]].of_proposals else None
    own = segmenter(size=64, variables={"params": {"kernel": jnp.eye(3) / 20}}, **settings)
    scores = own.changed(crf="none")(image, boxes).scores
    found = own(image, boxes)
    expected = dense_crf(-log_softmax(sharpness * scores, axis=-1), image, **CRF_PRESETS[settings["crf"]])
    np.testing.assert_allclose(np.exp(found.scores), expected, atol=1e-3)


@pytest.mark.parametrize("crf", ["none", "usual"])
@pytest.mark.parametrize("width", [60, 256])  # a width of 256 is not padded
def test_results_are_the_callers_own(rng, width, crf):
    """The caller may write into them, whatever the size."""
    image = rng.integers(0, 256, (40, width, 3)).astype(np.uint8)
    result = segmenter(variables={"params": {"kernel": jnp.eye(3) / 100}}, crf=crf)(image)
    assert result.labels.shape == (40, width)
    assert result.scores.shape[:2] == (40, width)
    for array in (result.labels, result.scores):
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_proposals_are_found_while_the_device_computes(monkeypatch, rng):
    """Another thread finds the proposals of later images, and images are read only a few ahead."""
    read, threads = [], set()

    def propose(image, count, method):
        threads.add(threading.current_thread())
        return np.array([[0, 0, *image.shape[1::-1]]], float), np.ones(1)

    def images():
        for i in range(12):
            read.append(i)
            yield np.full((30, 30, 3), i, np.uint8)

    monkeypatch.setattr(segmenter_module, "propose_boxes", propose)
    results = segmenter(mode="paper", enlarge=1.0, size=32).segment(images())
    assert read == []
    first = next(results)
    assert 1 < len(read) <= segmenter_module.AHEAD + 3
    assert [first.scores[0, 0, 0], *(result.scores[0, 0, 0] for result in results)] == pytest.approx(
        range(12), abs=1e-3
    )
    assert threading.main_thread() not in threads


def test_an_abandoned_stream_stops(rng):
    before = threading.active_count()
    results = segmenter(mode="paper", num_proposals=2, size=32).segment(random_images(rng, [(30, 40)] * 9))
    next(results)
    results.close()
    time.sleep(0.2)
    assert threading.active_count() <= before


def test_progress_is_shown(rng, capsys):
    assert len(list(segmenter(size=32).segment(random_images(rng, [(30, 40)] * 3), progress=True))) == 3
    assert "segmenting" in capsys.readouterr().err


def test_bad_images():
    for image, message in [
        (np.zeros((40, 50, 3), np.float32), "expected uint8 values 0 to 255, got float32"),
        (np.zeros((0, 50, 3), np.uint8), r"the image has the shape \[0, 50, 3\]"),
        ("cat.jpg", "no image cat.jpg in "),
    ]:
        with pytest.raises(InputError, match=message):
            segmenter()(image)


def test_several_photographs_of_any_kind(tmp_path):
    """All kinds of the same photograph have the same result; a list gives a list, an iterator is read as needed."""
    image, labels = halves(40, 60, 20, 30)
    Image.fromarray(image).save(tmp_path / "a.png")
    one = segmenter()
    kinds = [
        image,
        str(tmp_path / "a.png"),
        Image.fromarray(image),
        np.dstack([image, np.full((40, 60), 255, np.uint8)]),
    ]
    found = one(kinds)
    assert isinstance(found, list)
    for result in found:
        np.testing.assert_array_equal(result.labels, found[0].labels)
        np.testing.assert_array_equal(result.image, image)
        assert result.class_names == NAMES
    assert (found[0].labels == labels).mean() > 0.9
    assert [result.labels.shape for result in one(iter(kinds[:2]))] == [(40, 60)] * 2
    assert one([]) == []
    boxes = [np.array([[0, 0, 20, 20]]), None]
    given = segmenter(mode="paper", proposals="grid", num_proposals=2)(kinds[:2], boxes)
    assert [len(result.boxes) for result in given] == [1, 2]


def test_files_are_read_only_when_they_are_needed(tmp_path, rng):
    """A list of paths takes no memory for the photographs that wait, and an error leaves the results before it."""
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for path, image in zip(paths, random_images(rng, [(30, 40)] * 20), strict=True):
        Image.fromarray(image).save(path)
    results = segmenter(size=32, batch_size=1).segment(paths)
    next(results)
    paths[-1].write_text("no image")
    assert len([next(results) for _ in range(18)]) == 18
    with pytest.raises(InputError, match=r"19\.png is not a complete image file"):
        next(results)


@pytest.mark.parametrize("single", [np.zeros((4, 6, 3), np.uint8), "a.jpg", Path("a.jpg"), Image.new("RGB", (6, 4))])
def test_one_photograph_is_not_several(single):
    """The rows of an array, or the letters of a path, are no photographs; an array may hold several."""
    one = segmenter(size=32)
    with pytest.raises(
        InputError, match=r"a single \w+ instead of several photographs; give a list: segment\(\[image\]"
    ):
        one.segment(single)
    assert [result.labels.shape for result in one.segment(np.zeros((2, 4, 6, 3), np.uint8))] == [(4, 6)] * 2


@pytest.mark.parametrize("given", [None, 5])
def test_what_is_no_photograph(given):
    for call in (segmenter(size=32), segmenter(size=32).segment):
        with pytest.raises(InputError, match=r"(NoneType|int) is no photograph"):
            call(given)


def failing(images):
    yield from images
    raise RuntimeError("the camera is off")


def closed_image():
    picture = Image.new("RGB", (6, 4))
    picture.close()
    return picture


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("images", "boxes", "error"),
    [
        (failing, None, "the camera is off"),
        (lambda images: [*images, closed_image(), *images], None, "the Pillow image cannot be read"),
        (lambda images: [*images, images[0]], [None] * 6, "zip.* argument 2 is shorter"),
    ],
)
def test_results_before_any_error_come_first(batch_size, images, boxes, error):
    given = [np.full((4, 6, 3), i, np.uint8) for i in range(6)]
    results = segmenter(size=32, batch_size=batch_size).segment(images(given), boxes)
    found = []
    with pytest.raises((RuntimeError, ValueError), match=error):
        found.extend(result.image[0, 0, 0] for result in results)
    assert found == list(range(6))


def test_a_failing_device_leaves_no_gap(monkeypatch):
    """The results up to the failure come, none after it."""
    finish = Segmenter._finish

    def fails_at_2(self, launched):
        if launched.prepared[0][0, 0, 0] == 2:
            raise RuntimeError("out of memory")
        return finish(self, launched)

    monkeypatch.setattr(Segmenter, "_finish", fails_at_2)
    found = []
    results = segmenter(size=32, batch_size=4).segment([np.full((4, 6, 3), i, np.uint8) for i in range(9)])
    with pytest.raises(RuntimeError, match="out of memory"):
        found.extend(result.image[0, 0, 0] for result in results)
    assert found == [0, 1]


def test_proposals_without_effect_are_refused():
    with pytest.raises(InputError, match=r"proposals have no effect with inference\.mode='sliding_window'; leave them"):
        segmenter(mode="sliding_window", size=32)(np.zeros((40, 50, 3), np.uint8), [[0, 0, 20, 20]])


def test_the_text_of_a_segmenter(checkpoints):
    checkpoints["runs/colors"] = {"inference": {"mode": "sliding_window", "flip": True}}, NAMES
    one = Segmenter.from_checkpoint("runs/colors", step=7, devices=jax.local_devices()[:1])
    assert repr(one).splitlines() == [
        "Segmenter: ColorNet, 3 classes (blue, green, red), input 224x224 pixels",
        "  from runs/colors, step 7; on 1 device (cpu)",
        "  mode='sliding_window', flip=True",
    ]
    assert repr(one.changed(flip=False)).endswith("step 7; on 1 device (cpu)\n  mode='sliding_window'")
    many = segmenter(names=[f"class {i}" for i in range(459)])
    assert repr(many).splitlines()[:2] == [
        "Segmenter: ColorNet, 459 classes (class 0, class 1, class 2, class 3, ...), input 224x224 pixels",
        "  from variables in memory; on 1 device (cpu)",
    ]


def test_a_misspelt_keyword_is_named(checkpoints):
    checkpoints["runs/colors"] = {}, NAMES
    with pytest.raises(InputError, match=r"inference\.num_proposal: no such setting; .*; did you mean num_proposals\?"):
        Segmenter.from_checkpoint("runs/colors", num_proposal=7)


def test_proposals_for_every_image(rng):
    boxes = [np.array([[0, 0, 20, 20]])] * 2
    with pytest.raises(ValueError, match="shorter"):
        list(segmenter(size=32, mode="paper").segment(random_images(rng, [(30, 40)] * 3), boxes))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 9, 9], [30, 20, 15, 10]], r"proposals: box 1 is \[30.0, 20.0, 15.0, 10.0\]; expected x0 < x1"),
        ([[0.1, 0.1, 0.5, 0.9]], r"proposals: .* lie between 0 and 1; expected pixels of the 50x40 image"),
        ([[60, 0, 70, 9]], r"proposals: .* all boxes lie outside the image of 50x40"),
        ([[0, 0, 9]], r"proposals: expected boxes \[n, 4\]"),
    ],
)
def test_proposals_that_are_none(mode, boxes, message):
    with pytest.raises(InputError, match=message):
        segmenter(size=32, mode=mode)(np.zeros((40, 50, 3), np.uint8), boxes)


def test_class_names_must_fit():
    for mode in MODES:
        boxes = [[0, 0, 150, 150]] if MODES[mode].of_proposals else None
        with pytest.raises(InputError, match="scores 3 classes, but there are 2 class names"):
            segmenter(names=("a", "b"), mode=mode)(np.zeros((150, 150, 3), np.uint8), boxes)


def test_proposals_from_a_file_must_be_given(tmp_path):
    file = tmp_path / "proposals.npz"
    file.write_bytes(b"")
    with pytest.raises(InputError, match=r"proposals\.npz is a file: pass the boxes of every image to segment\(\)"):
        segmenter(mode="paper", proposals=str(file))(np.zeros((40, 50, 3), np.uint8))


@pytest.fixture
def checkpoints(monkeypatch):
    """A dict {path: (config, class names)} that replaces files."""
    known = {}

    def load_checkpoint(path, step, averages=True):
        config, names = known[str(path)]
        return ColorNet(), VARIABLES, {"config": config, "class_names": list(names), "step": step}

    for module in (segmenter_module, member):
        monkeypatch.setattr(module, "load_checkpoint", load_checkpoint)
    return known


@pytest.mark.parametrize(
    ("config", "size", "mode"),
    [
        ({"data": {"crop_size": 64}}, 64, "paper"),
        ({"model": {}, "inference": {"mode": "sliding_window", "later": 1}}, 224, "sliding_window"),
    ],
)
def test_from_checkpoint(checkpoints, config, size, mode):
    checkpoints["runs/colors"] = config, NAMES
    restored = Segmenter.from_checkpoint("runs/colors", step=7)
    assert restored.class_names == NAMES
    assert restored.input_size == size
    assert restored.settings.mode == mode
    assert (restored(np.full((50, 70, 3), (0, 0, 200), np.uint8)).labels == 0).all()


def test_settings_given_in_python(checkpoints):
    checkpoints["runs/colors"] = {"inference": {"mode": "sliding_window", "flip": True}}, NAMES
    restored = Segmenter.from_checkpoint("runs/colors", mode="released", num_proposals=7)
    assert (restored.settings.mode, restored.settings.num_proposals, restored.settings.flip) == ("released", 7, True)
    assert restored.changed(crf="usual").settings.crf == "usual"
    with pytest.raises(InputError, match=r"inference\.modes: no such setting; expected one of mode, num_proposals"):
        Segmenter.from_checkpoint("runs/colors", modes="released")
    with pytest.raises(InputError, match="load another Segmenter with it"):
        restored.changed(ensemble_checkpoint="runs/other")


def test_an_ensemble_from_checkpoints(checkpoints):
    checkpoints["runs/colors"] = {"inference": {"mode": "whole_image", "ensemble_checkpoint": "runs/other"}}, NAMES
    checkpoints["runs/other"] = {"data": {"crop_size": 32}, "inference": {"ensemble_checkpoint": "runs/third"}}, NAMES
    both = Segmenter.from_checkpoint("runs/colors")
    assert both.partner.input_size == 32
    assert (both(np.full((50, 70, 3), (0, 0, 200), np.uint8)).labels == 0).all()
    checkpoints["runs/other"] = {}, ("sky", "sea", "land")
    with pytest.raises(InputError, match=r"runs/other has other classes \(sky, sea, land, \.\.\.\) than this network"):
        Segmenter.from_checkpoint("runs/colors")


NARROW = {"width": 1 / 64, "fc": 8, "classes": 3}


def test_fcn8s_sees_the_images_own_pixels_and_the_mean_beyond(tmp_path, rng):
    """As in the original, images are normalised and then padded with zeros at the bottom and right to 500x500."""
    path = tmp_path / "fcn.caffemodel"
    path.write_bytes(encode(random_fcn8s(rng, **NARROW)))
    segmenter = Segmenter.from_caffe(path)
    assert segmenter.class_names == ("class 0", "class 1", "class 2")
    images = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((70, 90), (300, 40))]
    net, variables = fcn8s_from_caffe(path)
    for image, result in zip(images, segmenter.segment(images), strict=True):
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
    window = crop_windows(image, np.array([600, 1000]), result.boxes, 500)
    padded[0, :300] = np.asarray(window)[0, :300]
    by_opencv = normalize_images(jnp.asarray(crop_window(image, None, result.boxes[0], 500)[0]))[:300]
    np.testing.assert_allclose(padded[0, :300], by_opencv, atol=255 / 32 + 1)
    scores = np.asarray(net.apply(variables, padded))[0]
    expected = sample_scores(scores, result.boxes[0], 600, 1000)
    np.testing.assert_allclose(result.scores, expected, atol=1e-4 * np.abs(expected).max())


def test_deconvnet_from_caffe(tmp_path, rng):
    path = tmp_path / "net.caffemodel"
    layers = random_deconvnet(rng, **NARROW, fc_window=1)
    path.write_bytes(encode(layers))
    segmenter = Segmenter.from_caffe(path, class_names=("sky", "sea", "land"), mode="whole_image")
    assert segmenter.class_names == ("sky", "sea", "land")
    assert segmenter.input_size == 32
    assert segmenter(np.zeros((40, 50, 3), np.uint8)).scores.shape == (40, 50, 3)
    path.write_bytes(encode([*layers, ("loss", "SoftmaxWithLoss", [])]))
    with pytest.raises(
        InputError, match=r"no running statistics for batch normalisation: .* experiments\.calibrate_bn"
    ):
        Segmenter.from_caffe(path)


def test_names_for_vocs_number_of_classes():
    assert default_class_names(21)[15] == "person"


def test_a_file_where_a_checkpoint_is_expected(tmp_path, rng):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(encode(random_deconvnet(rng, width=1 / 64, fc=8, classes=3)))
    with pytest.raises(
        InputError, match=r"is a caffemodel; expected the folder of a checkpoint: convert it with exper"
    ):
        Segmenter.from_checkpoint(path)
    path.write_text("<html>")
    with pytest.raises(InputError, match=r"is a web page .*; expected the folder of a checkpoint: download it again"):
        Segmenter.from_checkpoint(path)


@pytest.mark.parametrize("settings", [{}, {"max_side": 40}, {"crf": "usual"}, {"mode": "sliding_window"}])
@pytest.mark.parametrize(("classes", "dtype"), [(255, np.uint8), (256, np.uint16), (459, np.uint16)])
def test_labels_of_many_classes(settings, classes, dtype):
    kernel = np.zeros((3, classes), np.float32)
    ids = np.array([255, 130, 400]) * (classes - 1) // 458  # the ids of blue, green and red
    kernel[np.arange(3), ids] = 1
    names = [f"class {i}" for i in range(classes)]
    image, labels = halves(60, 80, 20, 40)
    variables = {"params": {"kernel": kernel}}
    result = segmenter(names=names, size=64, variables=variables, **settings)(image)
    assert result.labels.dtype == dtype
    assert (result.labels == ids[labels]).mean() > 0.9
    np.testing.assert_array_equal(result.labels, result.scores.argmax(-1))
