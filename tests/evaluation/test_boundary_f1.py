"""Tests boundary F1 on hand-computed cases, and against distances between all pairs of contour pixels."""

import cv2
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import boundary_f1, mean_boundary_f1


def brute_force(labels, predictions, class_id, reach):
    """Computes the F1 from its definition, pixel by pixel, for images without ignored pixels."""

    def contour(array):
        found = []
        for row, column in np.argwhere(array == class_id):
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                inside = 0 <= r < array.shape[0] and 0 <= c < array.shape[1]
                if inside and array[r, c] != class_id:
                    found.append((row, column))
                    break
        return np.array(found).reshape(-1, 2)

    if not (predictions == class_id).any():
        return 0.0
    true, found = contour(labels), contour(predictions)
    if not (len(true) and len(found)):
        return float(len(true) == len(found))
    distances = np.sqrt(((true[:, None] - found[None]) ** 2).sum(-1))
    precision, recall = (distances.min(0) <= reach).mean(), (distances.min(1) <= reach).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("shape", [(30, 40), (1, 40), (33, 1), (2, 2)])
def test_equals_brute_force_where_nothing_is_ignored(rng, shape):
    for _ in range(10):
        labels = np.kron(rng.integers(0, 3, (7, 8)), np.ones((5, 5), int))[: shape[0], : shape[1]]
        predictions = np.roll(labels, rng.integers(-3, 4, 2), (0, 1))
        predictions[rng.random(labels.shape) < 0.02] = 1
        tolerance = 0.04
        scores = boundary_f1(labels, predictions, 4, tolerance=tolerance)
        reach = tolerance * np.hypot(*labels.shape)
        for class_id in np.unique(labels):
            assert scores[class_id] == pytest.approx(brute_force(labels, predictions, class_id, reach))
        assert np.isnan(scores[3])


def test_by_hand():
    """A 10x10 square is shifted by two pixels; the tolerance is one pixel, then two."""
    labels, predictions = np.zeros((2, 60, 80), np.uint8)
    labels[20:30, 20:30] = predictions[20:30, 22:32] = 1
    # Each contour has 36 pixels. In both the upper and the lower row, 8 predicted pixels lie on true ones and one lies
    # beside a true one. The columns are two pixels off, but the ends of the left column lie beside the rows.
    near = boundary_f1(labels, predictions, 2, tolerance=1.0 / 100)[1]
    assert near == pytest.approx((2 * (8 + 1) + 2) / 36)
    assert boundary_f1(labels, predictions, 2, tolerance=2.0 / 100)[1] == 1.0
    assert boundary_f1(labels, labels, 2, tolerance=0)[1] == 1.0


def test_classes_without_a_contour():
    everywhere = np.zeros((4, 4), np.uint8)
    half = everywhere.copy()
    half[:2] = 1
    np.testing.assert_array_equal(boundary_f1(everywhere, everywhere, 2), [1.0, np.nan])
    np.testing.assert_array_equal(boundary_f1(everywhere, everywhere + 1, 2), [0.0, np.nan])
    np.testing.assert_array_equal(boundary_f1(everywhere, half, 2), [0.0, np.nan])
    np.testing.assert_array_equal(boundary_f1(half, everywhere, 2), [0.0, 0.0])
    assert mean_boundary_f1(np.array([0.5, np.nan, 1.0])) == 0.75


def test_images_without_a_pixel_that_counts():
    for shape in ((4, 4), (0, 4)):
        scores = boundary_f1(np.full(shape, 255), np.zeros(shape, int), 2)
        assert np.isnan(scores).all()
        assert np.isnan(mean_boundary_f1(scores))


def test_one_image_at_a_time():
    with pytest.raises(InputError, match=r"shape \(2, 4, 4\); expected one image"):
        boundary_f1(np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int), 2)


# The following tests cover the ignored ring of VOC.


@pytest.fixture
def ringed():
    """Returns a 20x20 square in a ring of 5 ignored pixels, in an image whose tolerance is 2.3 pixels."""
    labels = np.zeros((240, 200), np.uint8)
    labels[95:125, 85:115] = 255
    labels[100:120, 90:110] = 1
    return labels


def dilated(mask, pixels):
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=pixels) > 0


@pytest.mark.parametrize("pixels", range(6))
def test_a_contour_may_be_anywhere_in_the_ring(ringed, pixels):
    np.testing.assert_array_equal(boundary_f1(ringed, dilated(ringed == 1, pixels).astype(int), 2, tolerance=0), [1, 1])


def test_what_is_said_in_the_ring_does_not_matter(ringed, rng):
    noise = rng.integers(0, 256, ringed.shape)
    np.testing.assert_array_equal(boundary_f1(ringed, np.where(ringed == 255, noise, ringed), 2, tolerance=0), [1, 1])


@pytest.mark.parametrize("predicted", [0, 1])
def test_one_class_everywhere_has_no_contour(ringed, predicted):
    np.testing.assert_array_equal(boundary_f1(ringed, np.full_like(ringed, predicted), 2), [0, 0])


def test_near_the_ring_is_right_and_far_is_wrong(ringed):
    outer = ringed > 0
    scores = [boundary_f1(ringed, dilated(outer, pixels).astype(int), 2)[1] for pixels in (1, 2, 12)]
    assert scores[0] > 0.95
    assert 0.8 < scores[1] < 1.0  # Corners are farther away than sides.
    assert scores[2] == 0.0
    smaller = ~dilated(ringed != 1, 1)
    assert boundary_f1(ringed, smaller.astype(int), 2)[1] == 1.0
    half = np.where(np.arange(200) < 100, ringed == 1, 0)
    # The halves of three sides are found; of the predicted contour, the cut of 20 pixels is wrong.
    assert 0.55 < boundary_f1(ringed, half, 2)[1] < 0.8


def test_two_objects_of_which_one_is_taken_for_the_other(ringed):
    """Each ring holds the contour of one class; a contour in the other ring must not count as right."""
    labels = np.concatenate([ringed, np.where(ringed == 1, 2, ringed)])
    scores = boundary_f1(labels, np.where(labels == 2, 1, labels), 3)
    assert scores[1] == pytest.approx(2 / 3, abs=0.05)  # The precision is one half.
    assert scores[2] == 0
    np.testing.assert_array_equal(boundary_f1(labels, np.where(labels == 255, 0, labels), 3), [1, 1, 1])


def test_ring_at_the_image_s_edge(ringed):
    """Nothing is known beyond ignored pixels at the border, so neither ground truth nor prediction has a contour."""
    for labels in (ringed[:, 100:], ringed[100:, 90:], ringed[:113, :103], ringed[95:125, 85:115]):
        truth = np.where(labels == 255, 0, labels)
        scores = boundary_f1(labels, truth, 2, tolerance=0)
        assert (scores[np.isfinite(scores)] == 1).all()
        assert boundary_f1(labels, truth * 0, 2)[1] == 0


def test_ignored_pixels_across_a_contour():
    """The prediction is right at every annotated pixel; at ignored pixels it does not matter."""
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    labels[10:20] = 255
    predictions = np.where(labels == 255, 1, labels)
    predictions[12:15] = 0
    np.testing.assert_array_equal(boundary_f1(labels, predictions, 2, tolerance=0), [1.0, 1.0])


def test_masks_of_voc(real_data):
    """Scores 97 masks of VOC 2012 val against nothing, the ground truth, and objects one pixel too large or small."""
    paths = sorted((real_data / "voc2012_val_masks/SegmentationClass").glob("*.png"))
    means = {"background": [], "truth": [], "larger": [], "beyond the ring": []}
    for i in np.linspace(0, len(paths) - 1, 97).astype(int):
        labels = np.array(Image.open(paths[i]))
        objects = np.where(labels == 255, 0, labels)
        predictions = {"background": objects * 0, "truth": objects, "larger": objects.copy()}
        for class_id in np.unique(objects[objects > 0]):
            predictions["larger"][dilated(objects == class_id, 1)] = class_id
        nearest = scipy.ndimage.distance_transform_edt(objects == 0, return_distances=False, return_indices=True)
        predictions["beyond the ring"] = np.where(dilated(labels > 0, 1), objects[tuple(nearest)], 0)
        for name, prediction in predictions.items():
            means[name].append(mean_boundary_f1(boundary_f1(labels, prediction, 21)[1:]))
    assert np.nanmax(means["background"]) == 0
    assert np.nanmin(means["truth"]) == 1
    assert np.nanmean(means["larger"]) > 0.99
    assert np.nanmean(means["beyond the ring"]) > 0.95
