"""Tests proposals: the contract of every method, objects that must be found, and arguments that are refused."""

import gzip

import cv2
import numpy as np
import pytest

from deconvnet_jax.data import EdgeBoxes, propose_boxes
from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import box_recall
from deconvnet_jax.ops import box_iou
from deconvnet_jax.proposals import edge_boxes
from deconvnet_jax.proposals.edge_boxes import METHODS, edge_map, propose_from_edges

FREE = tuple(method for method in METHODS if method != "structured_forest")


@pytest.fixture
def photo(rng):
    """Returns an image of two objects on a rough background, and their boxes."""
    image = cv2.resize(rng.integers(80, 115, (12, 16, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    cv2.ellipse(image, (90, 120), (50, 70), 0, 0, 360, (220, 60, 40), -1)
    cv2.rectangle(image, (190, 70), (289, 179), (30, 60, 230), -1)
    noisy = image + rng.integers(-8, 9, image.shape)
    return np.uint8(np.clip(noisy, 0, 255)), np.array([[40, 50, 141, 191], [190, 70, 290, 180]])


@pytest.mark.parametrize("method", FREE)
def test_contract(photo, method):
    image, truth = photo
    before = image.copy()
    boxes, scores = propose_boxes(image, 2000, method=method)
    np.testing.assert_array_equal(image, before)
    assert boxes.dtype == scores.dtype == np.float32
    assert boxes.shape == (len(scores), 4)
    assert 20 < len(boxes) <= 2000
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (320, 240)).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (np.diff(scores) <= 0).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    for again in (propose_boxes(image, 2000, method=method), propose_boxes(image.copy(), 50, method=method)):
        np.testing.assert_array_equal(again[0], boxes[: len(again[0])])
        np.testing.assert_array_equal(again[1], scores[: len(again[1])])
    assert len(propose_boxes(image, 1, method=method)[0]) == 1
    assert box_recall([box_iou(boxes, truth)], (len(boxes),), (0.5,))[0, 0] == 1


@pytest.mark.parametrize("method", ["network", "gradient"])
def test_objects_are_among_the_first(photo, method):
    image, truth = photo
    boxes, _ = propose_boxes(image, method=method)
    assert 20 < len(boxes) <= 50
    assert box_iou(boxes, truth).max(axis=0).min() > 0.6


def test_settings_are_obeyed(photo):
    image, _ = photo
    many, _ = propose_boxes(image, 5000, settings=EdgeBoxes(max_boxes=5000, beta=0.9))
    few, _ = propose_boxes(image, 5000, settings=EdgeBoxes(max_boxes=5000, beta=0.3))
    assert len(few) < len(many)
    assert len(propose_boxes(image, 5000, settings=EdgeBoxes(max_boxes=7))[0]) == 7
    large, _ = propose_boxes(image, 5000, settings=EdgeBoxes(min_box_area=20_000))
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).min() for boxes in (large, many)]
    assert areas[0] > 5_000 > areas[1]  # The search starts with larger boxes and refines them.
    assert len(large) < len(many)


def test_boxes_follow_the_image(photo):
    """The best boxes of a mirrored image are the mirrored boxes, except for single pixels and ties."""
    image, _ = photo
    edges = edge_map(image)
    boxes, _ = propose_from_edges(edges, 20)
    mirrored, _ = propose_from_edges(np.ascontiguousarray(edges[:, ::-1]), 20)
    back = np.stack([320 - mirrored[:, 2], mirrored[:, 1], 320 - mirrored[:, 0], mirrored[:, 3]], axis=1)
    assert np.median(box_iou(boxes, back).max(axis=1)) > 0.8


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (23, 23), (24, 24), (30, 400), (700, 40)])
@pytest.mark.parametrize("method", FREE)
def test_images_of_any_size(rng, size, method):
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    boxes, _ = propose_boxes(image, 20, method=method)
    assert 1 <= len(boxes) <= 20
    assert (boxes[:, 2:] <= size[::-1]).all()


@pytest.mark.parametrize("method", FREE)
def test_an_image_without_anything(method):
    boxes, _ = propose_boxes(np.zeros((100, 120, 3), np.uint8), method=method)
    assert len(boxes) >= 1


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((50, 50), np.uint8), {}, "expected a colour image"),
        (np.zeros((50, 50, 4), np.uint8), {}, r"expected a colour image .*\[50, 50, 4\]"),
        (np.zeros((50, 50, 3)), {}, "expected uint8 values 0 to 255, got float64"),
        ([[0]], {}, "got list"),
        (np.zeros((0, 50, 3), np.uint8), {}, r"the image has the shape \[0, 50, 3\]"),
        (np.zeros((50, 50, 3), np.uint8), {"count": 0}, "count=0: expected at least 1 box"),
        (np.zeros((50, 50, 3), np.uint8), {"method": "edges"}, "method='edges': expected one of network, gradient"),
        (np.zeros((50, 50, 3), np.uint8), {"method": "structured_forest"}, "the structured forest needs its model"),
        (np.zeros((50, 50, 3), np.uint8), {"forest": "model.yml.gz"}, "other methods take none"),
        (
            np.zeros((50, 50, 3), np.uint8),
            {"method": "structured_forest", "forest": "no/model.yml.gz"},
            r"no file no/model\.yml\.gz",
        ),
    ],
)
def test_refused(image, options, message):
    with pytest.raises(InputError, match=message) as caught:
        propose_boxes(image, **options)
    assert "\n" not in str(caught.value)


BINS = [256 * channel + pixel for channel in range(13) for pixel in (119, 120, 135, 136)]
FOREST = f"""%YAML:1.0
---
options:
   stride: 2
   shrinkNumber: 2
   patchSize: 32
   patchInnerSize: 16
   numberOfGradientOrientations: 4
   gradientSmoothingRadius: 0
   regFeatureSmoothingRadius: 2
   ssFeatureSmoothingRadius: 8
   gradientNormalizationRadius: 4
   selfsimilarityGridSize: 5
   numberOfTrees: 1
   numberOfTreesToEvaluate: 1
childs:
   - [ 2, 0, 0 ]
featureIds:
   - [ 904, 0, 0 ]
thresholds:
   - [ 0.9, 0., 0. ]
edgeBoundaries:
   - [ 0, 0, 0, {len(BINS)} ]
edgeBins:
   - {BINS}
"""


def test_a_structured_forest(photo, tmp_path):
    """Writes a forest of one tree in OpenCV's format: an edge in the middle of a patch with a large gradient."""
    image, truth = photo
    path = tmp_path / "model.yml.gz"
    path.write_bytes(gzip.compress(FOREST.encode()))
    edges = edge_map(image, "structured_forest", str(path))
    assert edges.shape == image.shape[:2]
    ring = edges[70:180, 185:195].max(axis=1), edges[100:150, 225:255]
    assert ring[0].mean() > 5 * ring[1].mean()
    boxes, _ = propose_boxes(image, method="structured_forest", forest=str(path))
    assert box_iou(boxes, truth).max(axis=0).min() > 0.5


@pytest.mark.parametrize(
    "text", ["%YAML:1.0\n---\na: 1\n", FOREST.replace("Trees: 1", "Trees: 0"), FOREST[:-80], "nothing", ""]
)
def test_a_forest_that_is_none(text, tmp_path):
    path = tmp_path / "model.yml.gz"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match=r"model\.yml\.gz is not a structured forest of OpenCV"):
        propose_boxes(np.zeros((50, 50, 3), np.uint8), method="structured_forest", forest=str(path))


def test_opencv_without_its_contributed_modules(monkeypatch, photo):
    monkeypatch.delattr(edge_boxes.cv2, "ximgproc")
    with pytest.raises(InputError, match="this OpenCV has no Edge Boxes; expected its contributed modules"):
        propose_boxes(photo[0])
    assert len(propose_boxes(photo[0], method="grid")[0]) == 50


def test_edge_maps_are_of_edge_methods():
    with pytest.raises(InputError, match="method='grid' has no edge map; expected one of network, gradient"):
        edge_map(np.zeros((50, 50, 3), np.uint8), "grid")
