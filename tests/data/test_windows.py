"""Boxes are checked by hand and by brute force, crops against OpenCV and against their own labels."""

import cv2
import numpy as np
import pytest

from deconvnet_jax.data import (
    crop_place,
    crop_window,
    enlarge,
    image_box,
    instance_boxes,
    keep_class,
    random_mirror,
    square,
)
from deconvnet_jax.data.windows import zoomed_size
from deconvnet_jax.errors import InputError


def test_boxes_by_hand():
    label, instances = np.zeros((2, 8, 10), np.uint8)
    label[2:5, 3:7], instances[2:5, 3:7] = 4, 1
    label[7, 9], instances[7, 9] = 2, 6
    instances[0, 0] = 3  # This object covers only background.
    instances[0, 5], label[0, 5] = 255, 1  # Both pixels are ignored.
    boxes, class_ids, numbers = instance_boxes(label, instances)
    np.testing.assert_array_equal(boxes, [[3, 2, 7, 5], [9, 7, 10, 8]])
    assert (class_ids.tolist(), numbers.tolist()) == ([4, 2], [1, 6])


def test_class_is_that_of_most_pixels_but_background():
    label = np.array([[0, 0, 0, 0, 255, 255, 255, 3, 3, 7]], np.uint8)
    boxes, class_ids, _ = instance_boxes(label, np.ones((1, 10), np.uint8))
    assert (boxes.tolist(), class_ids.tolist()) == ([[0, 0, 10, 1]], [3])


def test_no_objects():
    boxes, class_ids, numbers = instance_boxes(np.zeros((5, 5), np.uint8), np.full((5, 5), 255, np.uint8))
    assert boxes.shape == (0, 4)
    assert len(class_ids) == len(numbers) == 0
    assert square(enlarge(boxes)).shape == (0, 4)


def test_boxes_against_brute_force(rng):
    label = rng.choice([0, 1, 2, 255], (12, 15)).astype(np.uint8)
    instances = rng.integers(0, 6, (12, 15), np.uint8)
    found = {int(n): (b.tolist(), int(c)) for b, c, n in zip(*instance_boxes(label, instances), strict=True)}
    for number in range(1, 6):
        places = [(x, y) for y in range(12) for x in range(15) if instances[y, x] == number]
        votes = [int(label[y, x]) for x, y in places]
        xs, ys = zip(*places, strict=True)
        assert found[number][0] == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
        assert votes.count(found[number][1]) == max(votes.count(1), votes.count(2))


def test_without_instances_components_of_each_class():
    label = np.zeros((40, 60), np.uint8)
    label[2:12, 2:12] = 1
    label[12:22, 12:22] = 1  # Touches the first by a corner, so it is the same object.
    label[2:12, 40:50] = 1
    label[30:33, 30:33] = 2  # Too few pixels to be an object.
    label[25:39, 1:20] = 2
    boxes, class_ids, numbers = instance_boxes(label, None)
    assert boxes.tolist() == [[2, 2, 22, 22], [40, 2, 50, 12], [1, 25, 20, 39]]
    assert (class_ids.tolist(), numbers.tolist()) == ([1, 1, 2], [1, 2, 3])
    kept = keep_class(label, None, 2, 1)
    np.testing.assert_array_equal(kept[2:12, 40:50], 1)
    assert kept.sum() == 100


def test_keep_class_keeps_one_object_and_the_ignored():
    label = np.array([[1, 1, 1, 2, 255, 0, 255]], np.uint8)
    instances = np.array([[1, 1, 2, 1, 1, 0, 255]], np.uint8)
    np.testing.assert_array_equal(keep_class(label, instances, 1, 1), [[1, 1, 0, 0, 255, 0, 255]])
    np.testing.assert_array_equal(keep_class(label, instances, 2, 1), [[0, 0, 1, 0, 255, 0, 255]])


def test_enlarge_and_square():
    boxes = np.array([[10, 20, 30, 60], [0, 0, 5, 5]])
    np.testing.assert_allclose(enlarge(boxes), [[8, 16, 32, 64], [-0.5, -0.5, 5.5, 5.5]])
    np.testing.assert_allclose(square(boxes), [[0, 20, 40, 60], [0, 0, 5, 5]])
    np.testing.assert_allclose(image_box(30, 40, 1.5), [-10, -15, 50, 45])


def test_crop_is_opencv_s_resize_inside_the_image(rng):
    image = rng.integers(0, 256, (90, 120, 3), np.uint8)
    crop, _ = crop_window(image, image[..., 0], np.array([0, 0, 120, 90]), 64)
    wanted = cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR)
    difference = np.abs(crop.astype(int) - wanted)
    assert difference.max() <= 10  # Older versions of OpenCV round coordinates to 1/32 pixel.
    assert difference.mean() < 1


def test_identity_crop_and_outside(rng):
    image, label = rng.integers(1, 256, (10, 12, 3), np.uint8), rng.integers(0, 9, (10, 12), np.uint8)
    crop, crop_label = crop_window(image, label, np.array([-4, -3, 16, 17]), 20)
    np.testing.assert_array_equal(crop[3:13, 4:16], image)
    np.testing.assert_array_equal(crop_label[3:13, 4:16], label)
    inside = np.zeros((20, 20), bool)
    inside[3:13, 4:16] = True
    assert (crop[~inside] == 0).all()
    assert (crop_label[~inside] == 255).all()


@pytest.mark.parametrize("angle", [0.0, 10.0])
def test_labels_of_any_integers_become_uint8(rng, angle):
    image, label = rng.integers(1, 256, (10, 12, 3), np.uint8), rng.integers(0, 9, (10, 12), np.uint8)
    box = np.array([-4, -3, 16, 17])
    _, expected = crop_window(image, label, box, 8, angle=angle)
    _, found = crop_window(image, label.astype(np.int64), box, 8, angle=angle)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("angle", [float("nan"), float("inf")])
def test_an_angle_that_is_no_number(angle):
    with pytest.raises(InputError, match=rf"crop_window: angle={angle}; expected a finite number of degrees"):
        crop_window(np.zeros((4, 4, 3), np.uint8), None, np.array([0, 0, 4, 4]), 8, angle=angle)


def test_crop_far_outside(rng):
    image = rng.integers(1, 256, (10, 12, 3), np.uint8)
    crop, crop_label = crop_window(image, image[..., 0], np.array([100, 100, 120, 120]), 8)
    assert (crop == 0).all()
    assert (crop_label == 255).all()


@pytest.mark.parametrize("size", [50, 250])
def test_image_and_label_agree_to_half_a_pixel(size, rng):
    """Checks that an edge in the image and in the label lies at the same place for every box and scale."""
    for _ in range(10):
        label = np.zeros((100, 100), np.uint8)
        edge_x, edge_y = rng.integers(30, 70, 2)
        label[edge_y:, edge_x:] = 1
        image = np.repeat(label[..., None] * np.uint8(200), 3, -1)
        x0, y0 = rng.uniform(0, 20, 2)
        x1, y1 = rng.uniform(80, 100, 2)
        crop, crop_label = crop_window(image, label, np.array([x0, y0, x1, y1]), size)
        for axis, edge, low, high in ((1, edge_x, x0, x1), (0, edge_y, y0, y1)):
            scale = (high - low) / size
            wanted = (edge - low) / scale
            by_label = size - (crop_label.max(1 - axis)).sum()
            by_image = size - (crop[..., 0].max(1 - axis) / 200).sum()
            assert abs(by_label - wanted) <= 0.5 + 1e-9
            assert abs(by_image - wanted) <= 0.5 + 0.02


def test_input_is_not_changed(rng):
    image, label = rng.integers(0, 256, (9, 9, 3), np.uint8), rng.integers(0, 9, (9, 9), np.uint8)
    instances = np.ones_like(label)
    before = image.copy(), label.copy()
    crop_window(image, label, np.array([-5, -5, 20, 20]), 9)
    instance_boxes(label, instances)
    keep_class(label, instances, 1, 1)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])


# Random places and mirroring.


def test_crops_reach_every_place_evenly(rng):
    places = [crop_place(7, 5, rng) for _ in range(1800)]
    assert set(places) == {(top, left) for top in range(3) for left in range(3)}
    assert all(120 < places.count(place) < 280 for place in set(places))  # Six standard deviations.
    assert crop_place(250, 224, None) == (13, 13)
    assert crop_place(6, 6, rng) == (0, 0)


def test_random_mirror_is_shared_and_even(rng):
    label = np.arange(10).reshape(2, 5)
    image = np.repeat(label[..., None], 3, -1)
    flips = 0
    for _ in range(400):
        mirrored, mirrored_label = random_mirror(image, label, rng)
        np.testing.assert_array_equal(mirrored[..., 0], mirrored_label)
        assert sorted(mirrored_label[0]) == sorted(label[0])
        flips += mirrored_label[0, 0] == 4
    assert 140 < flips < 260  # Six standard deviations.


def test_zoomed_sizes_are_spread_evenly_about_their_geometric_mean(rng):
    sizes = np.array([zoomed_size(400, (0.5, 2.0), rng) for _ in range(1000)])
    assert 200 <= sizes.min() < 220
    assert 760 < sizes.max() <= 800
    assert 400 < (sizes < 400).sum() < 600  # Six standard deviations.
    state = rng.bit_generator.state
    assert zoomed_size(400, (1.0, 1.0), rng) == 400
    assert rng.bit_generator.state == state  # Without zoom no random number is drawn, so older runs keep their crops.


def test_a_crop_larger_than_the_square_shows_all_of_it(rng):
    places = {crop_place(5, 7, rng) for _ in range(300)}
    assert places == {(top, left) for top in range(-2, 1) for left in range(-2, 1)}


def test_crops_inside_show_the_image_alone_or_all_of_it(rng):
    """Uses a square of 20 pixels of which rows 4 to 16 show the image."""
    whole = (0.0, 20.0)
    tops, lefts = zip(*(crop_place(20, 8, rng, ((4.0, 16.0), whole)) for _ in range(600)), strict=True)
    assert set(tops) == set(range(4, 9))
    assert set(lefts) == set(range(13))
    tops = {crop_place(20, 15, rng, ((4.0, 16.0), whole))[0] for _ in range(300)}
    assert tops == {1, 2, 3, 4}
    tops = {crop_place(20, 8, rng, ((4.5, 15.5), whole))[0] for _ in range(300)}
    assert tops == {4, 5, 6, 7}  # The centres of rows 4 to 14 lie in the image.
