"""Places of crops, and mirroring that image and label share."""

import numpy as np

from deconvnet_jax.data import crop_place, random_mirror


def test_crops_reach_every_place_evenly(rng):
    places = [crop_place(7, 5, rng) for _ in range(1800)]
    assert set(places) == {(top, left) for top in range(3) for left in range(3)}
    assert all(120 < places.count(place) < 280 for place in set(places))  # six standard deviations
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
    assert 140 < flips < 260  # six standard deviations
