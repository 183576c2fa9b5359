"""Places of crops, and mirroring that image and label share."""

import numpy as np

from deconvnet_jax.data import crop_place, random_mirror
from deconvnet_jax.data.augment import zoomed_size


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


def test_zoomed_sizes_are_spread_evenly_about_their_geometric_mean(rng):
    sizes = np.array([zoomed_size(400, (0.5, 2.0), rng) for _ in range(1000)])
    assert 200 <= sizes.min() < 220
    assert 760 < sizes.max() <= 800
    assert 400 < (sizes < 400).sum() < 600  # six standard deviations
    state = rng.bit_generator.state
    assert zoomed_size(400, (1.0, 1.0), rng) == 400
    assert rng.bit_generator.state == state  # a run without zoom has the crops that it had before there was one


def test_a_crop_larger_than_the_square_shows_all_of_it(rng):
    places = {crop_place(5, 7, rng) for _ in range(300)}
    assert places == {(top, left) for top in range(-2, 1) for left in range(-2, 1)}


def test_crops_inside_show_the_image_alone_or_all_of_it(rng):
    """Of a square of 20 whose rows 4 to 16 show the image."""
    whole = (0.0, 20.0)
    tops, lefts = zip(*(crop_place(20, 8, rng, ((4.0, 16.0), whole)) for _ in range(600)), strict=True)
    assert set(tops) == set(range(4, 9))
    assert set(lefts) == set(range(13))
    tops = {crop_place(20, 15, rng, ((4.0, 16.0), whole))[0] for _ in range(300)}
    assert tops == {1, 2, 3, 4}
    tops = {crop_place(20, 8, rng, ((4.5, 15.5), whole))[0] for _ in range(300)}
    assert tops == {4, 5, 6, 7}  # rows 4 to 14 have their centres in the image
