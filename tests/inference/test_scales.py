"""Scores at several scales are the mean of the scores at each, which are compared with a loop in NumPy."""

import math
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_networks import ColorNet
from numpy_proposals import aggregate

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import (
    InferenceSettings,
    Member,
    Segmenter,
    corner_window,
    mean_of_probabilities,
    scaled_windows,
    settings_from,
    sliding_windows,
    whole_window,
)

SIZE = 32
NAMES = ("a", "b", "c")
SIZES = ((70, 93), (33, 31), (1, 1), (3, 50), (20, 20))  # odd, and smaller than a window


def segmenter(net, variables, devices=1, partner=None, **settings):
    chosen = InferenceSettings(batch_size=4, **settings)
    return Segmenter(net, variables, NAMES, SIZE, chosen, partner, devices=jax.local_devices()[:devices])


def random_image(rng, size):
    return rng.integers(0, 256, (*size, 3)).astype(np.uint8)


@pytest.mark.parametrize(("mode", "aggregation"), [("whole_image", "mean"), ("sliding_window", "max")])
def test_the_mean_of_all_scales(rng, smooth_net, mode, aggregation):
    net, variables, network = smooth_net
    scales = (0.5, 1.0, 1.3)
    settings = {"mode": mode, "aggregation": aggregation}
    together = segmenter(net, variables, scales=scales, **settings)
    alone = [segmenter(net, variables, scales=(scale,), **settings) for scale in scales]
    images = [random_image(rng, size) for size in SIZES]
    for image, found in zip(images, together.segment(images), strict=True):
        results = [one(image) for one in alone]
        expected = np.mean([result.scores for result in results], axis=0)
        np.testing.assert_allclose(found.scores, expected, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_array_equal(found.labels, found.scores.argmax(-1))
        np.testing.assert_array_equal(found.boxes, np.concatenate([result.boxes for result in results]))
        side = max(image.shape) if mode == "whole_image" else SIZE
        for scale, result in zip(scales, results, strict=True):
            boxes = sliding_windows(*image.shape[:2], math.ceil(side / scale))
            loop, shown = aggregate(image, boxes, network, SIZE, aggregation)
            assert shown.min() >= 1
            np.testing.assert_allclose(result.scores, loop, atol=1e-4 * np.abs(loop).max())


def test_scale_one_is_as_before(rng, smooth_net):
    net, variables, _ = smooth_net
    image = random_image(rng, (45, 61))
    for mode in ("whole_image", "sliding_window"):
        plain = segmenter(net, variables, mode=mode)(image)
        np.testing.assert_array_equal(segmenter(net, variables, mode=mode, scales=(1,))(image).scores, plain.scores)


@pytest.mark.parametrize("windows", [whole_window, sliding_windows, corner_window])
def test_windows_of_every_scale_cover_the_image(rng, windows):
    for height, width in [*rng.integers(1, 120, (40, 2)).tolist(), (1, 1), (1, 999)]:
        own = windows(height, width, SIZE)
        for scale in (0.25, 0.77, 1.0, 1.01, 1.5, 4.0):
            boxes = scaled_windows(own, height, width, scale)
            sides = boxes[:, 2:] - boxes[:, :2]
            assert (sides == sides[0, 0]).all()
            assert 0 <= sides[0, 0] - (own[0, 2] - own[0, 0]) / scale < 1
            if windows is whole_window and scale > 1:
                assert len(boxes) <= (math.ceil(2 * (scale - 1)) + 1) ** 2  # as the batches hold
            for axis, length in enumerate((width, height)):
                centres = np.arange(length)[:, None] + 0.5
                assert ((centres >= boxes[:, axis]) & (centres < boxes[:, axis + 2])).any(1).all()


def test_an_ensemble_on_several_devices(rng, smooth_net):
    net, variables, _ = smooth_net
    partner = Member(ColorNet(), {"params": {"kernel": jnp.eye(3) / 50}}, SIZE)
    settings = {"mode": "sliding_window", "scales": (0.7, 1.5)}
    images = [random_image(rng, size) for size in SIZES[:2]]
    one, four = (segmenter(net, variables, count, partner, **settings) for count in (1, 4))
    for ours, theirs, image in zip(four.segment(images), one.segment(images), images, strict=True):
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
        expected = mean_of_probabilities(*(one.alone(member)(image).scores for member in (None, partner)))
        np.testing.assert_allclose(theirs.scores, expected, atol=1e-4)


def test_scales_compile_one_program_more(rng):
    chex.clear_trace_counter()

    @dataclass(frozen=True)
    class CountedNet(ColorNet):
        @chex.assert_max_traces(2)  # one window around the image; several windows above scale 1
        def apply(self, variables, images, train):
            return super().apply(variables, images, train)

    own = segmenter(
        CountedNet(), {"params": {"kernel": jnp.eye(3)}}, mode="whole_image", scales=(0.5, 0.8, 1, 1.25, 1.5)
    )
    for size in ((60, 80), (80, 61), (30, 20), (7, 90)):
        own(random_image(rng, size))


def test_large_photographs_and_a_crf():
    """A photograph above `max_side` is reduced first; the CRF starts from the mean."""
    net, variables = ColorNet(), {"params": {"kernel": jnp.eye(3)}}
    image = np.zeros((90, 120, 3), np.uint8)
    image[:, :60, 0], image[:, 60:, 2] = 255, 255
    settings = {"mode": "whole_image", "scales": (0.8, 1.2), "max_side": 64}
    for crf in ("none", "usual"):
        result = segmenter(net, variables, crf=crf, **settings)(image)
        assert result.scores.shape == (90, 120, 3)
        assert (result.labels[:, :55] == 2).all()
        assert (result.labels[:, 65:] == 0).all()


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ((), "inference.scales=(): expected a tuple of 1 or more values, each a number from 0.25 to 4"),
        ((1.0, 1.0), "inference.scales=(1.0, 1.0): expected"),
        ((0.1,), "inference.scales=(0.1,): expected"),
        ((float("nan"),), "inference.scales=(nan,)"),
        (1.5, "inference.scales=1.5: expected a tuple"),
        ("1.5", "inference.scales='1.5': expected a tuple"),
    ],
)
def test_unusable_scales(scales, message):
    with pytest.raises(InputError) as caught:
        InferenceSettings(mode="whole_image", scales=scales)
    assert str(caught.value).startswith(message)


def test_proposals_have_no_scales():
    with pytest.raises(InputError, match=r"mode='paper' takes its windows from proposals, which have no scales; give"):
        InferenceSettings(scales=(1.0, 2.0))
    whole = InferenceSettings(mode="whole_image", scales=(1.0, 2.0))
    with pytest.raises(InputError, match="mode='released' takes its windows from proposals"):
        whole.changed(mode="released")
    assert settings_from({"mode": "whole_image", "scales": [1, 2]}) == whole  # as in a checkpoint's config
    assert settings_from({"mode": "whole_image"}).scales == (1.0,)
