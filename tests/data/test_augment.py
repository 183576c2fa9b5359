"""Image and label share every crop and flip."""

import numpy as np

from deconvnet_jax.data import center_crop, random_crop, random_mirror


def pair(height, width):
    """A label that numbers the pixels, and an image that repeats it."""
    label = np.arange(height * width).reshape(height, width)
    return np.repeat(label[..., None], 3, -1), label


def test_random_crop_is_shared_and_reaches_every_place(rng):
    image, label = pair(7, 9)
    places = set()
    for _ in range(400):
        crop, crop_label = random_crop(image, label, 6, rng)
        assert crop.shape == (6, 6, 3)
        np.testing.assert_array_equal(crop[..., 1], crop_label)
        np.testing.assert_array_equal(crop_label - crop_label[0, 0], label[:6, :6])
        places.add(int(crop_label[0, 0]))
    assert places == {y * 9 + x for y in range(2) for x in range(4)}


def test_center_crop():
    image, label = pair(10, 8)
    crop, crop_label = center_crop(image, label, 6)
    np.testing.assert_array_equal(crop_label, label[2:8, 1:7])
    np.testing.assert_array_equal(crop, image[2:8, 1:7])


def test_random_mirror_is_shared_and_even(rng):
    image, label = pair(2, 5)
    flips = 0
    for _ in range(400):
        mirrored, mirrored_label = random_mirror(image, label, rng)
        np.testing.assert_array_equal(mirrored[..., 0], mirrored_label)
        assert sorted(mirrored_label[0]) == sorted(label[0])
        flips += mirrored_label[0, 0] == 4
    assert 140 < flips < 260  # six standard deviations
