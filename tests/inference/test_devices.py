"""Checks that four devices give the results of one, and that they share one compilation."""

import threading
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_networks import ColorNet

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import InferenceSettings, Member, Scorer, Segmenter, segmenter
from deconvnet_jax.inference.devices import Prepared, are_faster_alone, groups, local_mesh, rounds_of
from deconvnet_jax.models import FCN8s

SIZE = 32
NAMES = ("a", "b", "c")
# These have three different padded sizes.
SIZES = ((60, 80), (100, 90), (300, 40), (70, 20), (40, 260), (50, 50), (64, 64), (20, 30), (30, 20))


def on(count, net, variables, partner=None, **settings):
    """Returns a Segmenter on the given number of devices."""
    chosen = InferenceSettings(**{"num_proposals": 10, "proposals": "grid", "batch_size": 3, **settings})
    return Segmenter(net, variables, NAMES, SIZE, chosen, partner, devices=jax.local_devices()[:count])


def random_images(rng, sizes=SIZES):
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("labels", "scores", "boxes"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)


@pytest.fixture
def compiled():
    """Counts the programs that XLA compiles; the tests clear it."""
    counts = Counter()

    def count(event, *_, **__):
        counts["programs"] += event.endswith("backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(count)
    yield counts
    jax.monitoring.unregister_event_duration_listener(count)


@pytest.mark.parametrize(
    ("mode", "aggregation"),
    [("paper", "max"), ("paper", "mean"), ("sliding_window", "max"), ("sliding_window", "mean")],
)
def test_results_are_those_of_one_device(rng, narrow_net, mode, aggregation):
    """Holds for images of different padded sizes in any order, and for fewer images than devices."""
    net, variables, _ = narrow_net
    one, four = (on(count, net, variables, mode=mode, aggregation=aggregation) for count in (1, 4))
    images = random_images(rng)
    expected = list(one.segment(images))
    for count in (len(images), 3, 2, 1):
        assert_equal(list(four.segment(images[:count])), expected[:count])


@pytest.mark.parametrize("mode", ["whole_image", "released"])
def test_results_are_those_of_one_device_but_for_rounding(rng, smooth_net, mode):
    """Images share batches with other images than on one device, and XLA computes the released filter differently."""
    net, variables, _ = smooth_net
    images = random_images(rng, SIZES[:5])
    four_boxes = np.array([[0, 0, 120, 130], [-20, 0, 110, 140], [5, 5, 140, 150], [2, 0, 130, 128]])
    boxes = [four_boxes if mode == "released" else None] * len(images)
    one, four = (list(on(count, net, variables, mode=mode).segment(images, boxes)) for count in (1, 4))
    for ours, theirs in zip(four, one, strict=True):
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4 * np.abs(theirs.scores).max())


def test_an_ensemble_with_an_fcn8s_and_a_crf(rng, smooth_net):
    net, variables, _ = smooth_net
    fcn8s = FCN8s(num_classes=3, width=1 / 64, fc_features=8)
    shapes = jax.eval_shape(fcn8s.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    drawn = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    partner = Member(fcn8s, drawn, SIZE)
    images = random_images(rng, [(60, 80), (64, 64), (90, 40)])
    one, four = (on(count, net, variables, partner, mode="paper", crf="usual") for count in (1, 4))
    assert_equal(list(four.segment(images)), list(one.segment(images)))


@pytest.mark.parametrize("mode", ["paper", "whole_image"])
def test_all_devices_share_one_compilation(rng, compiled, mode):
    """Later images compile nothing; where devices share the windows of an image, one program more is compiled."""
    images = random_images(rng, SIZES[:2] * 6)
    programs = {}
    for count in (1, 4):
        jax.clear_caches()
        compiled.clear()
        own = on(count, ColorNet(f"{count} devices"), {"params": {"kernel": jnp.eye(3)}}, mode=mode)
        list(own.segment(images))
        programs[count] = compiled["programs"]
    assert 4 <= programs[4] <= programs[1]
    compiled.clear()
    list(own.segment(random_images(rng, [(30, 40), (256, 9), (99, 98)] * 5)))
    assert compiled["programs"] == (mode == "paper")  # the maximum over devices, for the last three images
    compiled.clear()
    if mode == "paper":
        own(images[0])
    assert compiled["programs"] == 0


def test_the_windows_of_one_image_are_shared(rng, smooth_net, monkeypatch):
    """Ten windows in batches of three take two batches on two devices instead of four on one."""
    calls = Counter()
    fold = Scorer.fold

    def counted(self, *batch):
        calls["batches"] += 1
        return fold(self, *batch)

    monkeypatch.setattr(Scorer, "fold", counted)
    net, variables, _ = smooth_net
    (image,) = random_images(rng, [(60, 80)])
    boxes = np.array([[0, 0, 30 + i, 40] for i in range(10)])
    for count, aggregation, batches in ((1, "max", 4), (2, "max", 2), (4, "max", 1), (4, "mean", 4)):
        calls.clear()
        on(count, net, variables, mode="paper", aggregation=aggregation)(image, boxes)
        assert calls["batches"] == batches


def test_variables_are_copied_to_the_devices_once(smooth_net):
    net, variables, _ = smooth_net
    own = on(4, net, variables)
    kernel = own.variables["params"]["kernel"]
    assert kernel.devices() == set(jax.local_devices())
    assert kernel.is_fully_replicated
    assert own.changed(crf="usual").variables["params"]["kernel"] is kernel
    one = replace(own, devices=jax.local_devices()[:1])
    assert one.variables["params"]["kernel"].devices() == set(jax.local_devices()[:1])
    paired = Segmenter(net, variables, NAMES, SIZE, partner=own, devices=jax.local_devices()[2:])
    assert paired.partner.variables["params"]["kernel"].devices() == set(jax.local_devices()[2:])


def test_a_single_device_may_be_another_than_the_first(rng, smooth_net):
    net, variables, _ = smooth_net
    images = random_images(rng, SIZES[:2])
    third = replace(on(1, net, variables, mode="paper"), devices=jax.local_devices()[2:3])
    assert third.variables["params"]["kernel"].devices() == {jax.local_devices()[2]}
    assert_equal(list(third.segment(images)), list(on(1, net, variables, mode="paper").segment(images)))


def test_all_devices_by_default_or_the_chosen_one(smooth_net):
    net, variables, _ = smooth_net
    assert Segmenter(net, variables, NAMES, SIZE).variables["params"]["kernel"].sharding.num_devices == 4
    with jax.default_device(jax.local_devices()[1]):
        assert local_mesh(None) is None


@pytest.mark.parametrize("devices", [[], "twice"])
def test_devices_that_cannot_be_used(smooth_net, devices):
    devices = jax.local_devices()[:1] * 2 if devices == "twice" else devices
    net, variables, _ = smooth_net
    with pytest.raises(InputError, match=r"devices=\[.*\]: expected one or more distinct devices of jax\.local_dev"):
        Segmenter(net, variables, NAMES, SIZE, devices=devices)


@pytest.mark.parametrize("mode", ["whole_image", "paper"])
@pytest.mark.parametrize(("devices", "bad"), [(1, 5), (4, 0), (4, 3), (4, 4), (4, 8)])
def test_results_before_a_bad_image_are_not_lost(rng, smooth_net, mode, devices, bad):
    net, variables, _ = smooth_net
    images = random_images(rng)
    images[bad] = np.zeros((30, 40, 3), np.float32)
    results = on(devices, net, variables, mode=mode).segment(images)
    shapes = [next(results).labels.shape for _ in range(bad)]
    assert shapes == list(SIZES[:bad])
    with pytest.raises(InputError, match="expected uint8 values"):
        next(results)


def test_proposals_are_found_by_a_thread_per_device(rng, smooth_net, monkeypatch):
    meeting = threading.Barrier(4, timeout=60)

    def propose(image, count, method):
        meeting.wait()  # passes when four threads have arrived
        return np.array([[0, 0, *image.shape[1::-1]]], float), np.ones(1)

    monkeypatch.setattr(segmenter, "propose_boxes", propose)
    net, variables, _ = smooth_net
    images = random_images(rng, [(30, 30 + i) for i in range(8)])
    results = list(on(4, net, variables, mode="paper").segment(images))
    assert [result.labels.shape for result in results] == [(30, 30 + i) for i in range(8)]


def prepared(*sizes):
    return [Prepared(image, image, []) for image in (np.zeros((*size, 3), np.uint8) for size in sizes)]


def test_rounds_and_groups():
    small, tall, wide = (200, 200), (300, 200), (200, 300)
    assert rounds_of(prepared(small, tall, small, small, tall, small), 2) == [[0, 2], [1, 4], [3, 5]]
    assert rounds_of(prepared(small, tall, small), 1) == [[0], [1], [2]]
    mixed = prepared(small, tall, small, wide, small, tall, tall)
    assert [len(group) for group in groups(iter(mixed), 1, 4)] == [1, 1, 1, 1, 1, 2]
    assert [len(group) for group in groups(iter(mixed), 3, 2)] == [4, 3]
    assert [len(group) for group in groups(iter(mixed), 3, 1)] == [3, 3, 1]


def test_a_full_group_does_not_wait_for_the_next_image():
    def endless():
        yield from prepared(*[(20, 20)] * 4)
        raise AssertionError("read too far")

    assert len(next(groups(endless(), 2, 2))) == 4


@pytest.mark.parametrize(
    ("batches", "devices", "alone"),
    [
        ([5, 5], 4, True),
        ([5, 5, 5], 4, False),
        ([5, 5, 5, 5], 8, True),
        ([5] * 8, 8, False),
        ([1, 1], 4, False),
        ([5], 1, False),
        ([0], 2, False),
        ([], 2, False),
    ],
)
def test_images_are_spread_or_their_windows_whichever_takes_fewer_batches(batches, devices, alone):
    assert are_faster_alone(batches, devices) == alone
