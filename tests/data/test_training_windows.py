"""Windows are made for objects, proposals and images, and those of rare classes are repeated."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from deconvnet_jax.data import (
    Objects,
    Windows,
    class_windows,
    enlarge,
    instance_boxes,
    keep_class,
    open_split,
    prepare_voc_layout,
    repeat_rare,
    square,
    training_windows,
)
from deconvnet_jax.data.training_windows import class_of_windows, count_small_parts
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import Example


class Described(list):
    """A source whose objects are known, and in which reading an image is an error."""

    def objects(self, index):
        return super().__getitem__(index)

    def name(self, index):
        return str(index)

    def size(self, index):
        return 100 + index, 200

    def __getitem__(self, index):
        raise AssertionError("decoded an image")


def objects(*rows):
    """Returns objects numbered from 1, given x0, y0, x1, y1 and the class of each."""
    rows = np.array(rows, np.float64).reshape(-1, 5)
    return Objects(rows[:, :4], rows[:, 4].astype(int), np.arange(1, len(rows) + 1))


def example(shape=(40, 60)):
    return Example("a", np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8))


def test_instances_and_images(train_split):
    found = training_windows(train_split, ("instance", "image"), image_factor=1.5)
    counts = [len(instance_boxes(e.label, e.instances).boxes) for e in train_split]
    assert len(found.images) == sum(counts) + len(train_split)
    assert found.images.tolist() == sorted(found.images)
    whole = found.take(np.flatnonzero(found.instance_ids == 0))
    for box, one in zip(whole.boxes, train_split, strict=True):
        assert box[2] - box[0] == pytest.approx(1.5 * max(one.label.shape))
    first, box = train_split[0], found.boxes[0]
    number, class_id = int(found.instance_ids[0]), int(found.class_ids[0])
    ys, xs = np.nonzero(first.instances == number)
    sides = np.ptp(xs) + 1, np.ptp(ys) + 1
    assert box[2] - box[0] == pytest.approx(box[3] - box[1]) == pytest.approx(1.2 * max(sides), rel=1e-5)
    assert box[::2].sum() / 2 == pytest.approx((xs.min() + xs.max() + 1) / 2)
    kept = keep_class(first.label, first.instances, number, class_id)
    np.testing.assert_array_equal(kept > 0, first.instances == number)


def test_a_source_that_knows_its_objects_is_not_decoded():
    source = Described([objects((10, 20, 30, 60, 5)), objects(), objects((0, 0, 10, 10, 2), (5, 5, 25, 15, 3))])
    found = training_windows(source, ("instance",))
    assert found.images.tolist() == [0, 2, 2]
    assert found.class_ids.tolist() == [5, 2, 3]
    assert found.instance_ids.tolist() == [1, 1, 2]
    np.testing.assert_allclose(found.boxes[0], [20 - 24, 40 - 24, 20 + 24, 40 + 24])
    np.testing.assert_allclose(training_windows(source, ("image",), image_factor=1).boxes[2], [0, -49, 200, 151])


def test_proposals_that_overlap_an_object_by_half():
    source = Described([objects((0, 0, 100, 100, 7), (200, 0, 240, 40, 4)), objects()])
    proposed = [
        np.array([
            (0, 0, 100, 50),  # IoU of exactly 0.5 with the first object
            (0, 0, 100, 49),  # slightly less
            (50, 50, 150, 150),  # 1/7
            (0, 0, 200, 100),  # 0.5
            (195, 0, 235, 40),  # 35/45 with the second object
            (300, 300, 310, 310),
        ], np.float32),
        np.array([(0, 0, 9, 9)], np.float32),
    ]  # fmt: skip
    found = training_windows(source, ("proposal",), proposals=proposed)
    assert found.images.tolist() == [0, 0, 0]
    assert found.class_ids.tolist() == [7, 7, 4]
    assert not found.instance_ids.any()  # All classes are labelled.
    np.testing.assert_allclose(found.boxes, square(enlarge(proposed[0][[0, 3, 4]].astype(float))), rtol=1e-6)
    most = training_windows(source, ("proposal",), proposals=proposed, min_overlap=0.6)
    assert most.class_ids.tolist() == [4]
    with pytest.raises(InputError, match=r"no proposal overlaps an object with an IoU of data\.min_overlap=0\.9"):
        training_windows(source, ("proposal",), proposals=proposed, min_overlap=0.9)


def test_proposals_are_counted_by_brute_force(rng):
    """Compares with overlaps that are counted pixel by pixel."""
    low = rng.integers(0, 30, (30, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 30, (30, 2))], axis=1)
    truth, proposed = boxes[:3], boxes[3:]
    ys, xs = np.mgrid[:60, :60]

    def drawn(box):
        return (xs >= box[0]) & (xs < box[2]) & (ys >= box[1]) & (ys < box[3])

    wanted = [
        max((drawn(box) & drawn(one)).sum() / (drawn(box) | drawn(one)).sum() for one in truth) >= 0.3
        for box in proposed
    ]
    source = Described([objects(*[(*box, 1) for box in truth])])
    if any(wanted):
        found = training_windows(source, ("proposal",), proposals=[proposed], min_overlap=0.3)
        np.testing.assert_allclose(found.boxes, square(enlarge(proposed[wanted].astype(float))), rtol=1e-6)


def windows_of_classes(*class_ids):
    count = len(class_ids)
    boxes = np.arange(4 * count, dtype=np.float32).reshape(-1, 4)
    return Windows(np.arange(count), boxes, np.ones(count, np.int32), np.array(class_ids))


def test_rare_classes_are_repeated():
    windows = windows_of_classes(*[1] * 60, *[2] * 15, *[3] * 7, 0)
    assert class_windows(repeat_rare(windows, 1), 5).tolist() == [1, 60, 60, 60, 0]
    half = class_windows(repeat_rare(windows, 0.5), 4)
    assert half.tolist() == [1, 60, 30, round(7 * (60 / 7) ** 0.5)]
    same = repeat_rare(windows, 0)
    np.testing.assert_array_equal(same.boxes, windows.boxes)
    repeated = repeat_rare(windows, 1, seed=4)
    times = np.bincount(repeated.images, minlength=83)
    assert set(times[:60]) == {1}
    assert set(times[60:75]) == {4}
    assert set(times[75:82]) == {8, 9}
    np.testing.assert_array_equal(repeated.images, repeat_rare(windows, 1, seed=4).images)
    assert any((repeat_rare(windows, 1, seed=s).images != repeated.images).any() for s in range(5, 9))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_unusable_strength(strength):
    with pytest.raises(InputError, match=r"data\.balance=.*expected 0 .* to 1"):
        repeat_rare(windows_of_classes(1, 2), strength)


def test_nothing_to_balance():
    with pytest.raises(InputError, match=r"data\.balance=0\.5: no window has a class"):
        repeat_rare(windows_of_classes(0, 0), 0.5)


def test_class_of_windows():
    found = objects((0, 0, 100, 100, 7), (80, 80, 180, 180, 4))
    boxes = square(enlarge(np.array([[0, 0, 90, 100], [85, 80, 180, 180], [500, 500, 600, 600.0]])))
    assert class_of_windows(boxes, found).tolist() == [7, 4, 0]
    assert class_of_windows(boxes, objects()).tolist() == [0, 0, 0]


def squares(shape, *sides):
    """Returns a label of class 1 with a row of squares of these sides, 3 pixels apart."""
    label, x = np.zeros(shape, np.uint8), 0
    for side in sides:
        label[:side, x : x + side] = 1
        x += side + 3
    return label


def of_label(label, instances=None):
    return Example("a", np.zeros((*label.shape, 3), np.uint8), label, instances)


def sides_of(windows):
    return (windows.boxes[:, 2] - windows.boxes[:, 0]).astype(float).round(1).tolist()


def test_connected_parts_need_a_least_size():
    """Windows are 1.2 times as large as their parts: those of 10, 49 and 50 pixels have 12, 58.8 and 60."""
    source = [of_label(squares((400, 600), 10, 49, 50)), of_label(squares((400, 600), 20))]
    assert sides_of(training_windows(source)) == [12, 58.8, 60, 24]
    assert sides_of(training_windows(source, min_window=60)) == [60]
    assert count_small_parts(source, 60) == 3
    assert count_small_parts(source, 0) == 0
    message = r"around all 4 connected parts .* smaller than 61 pixels; set data\.min_window below 61,"
    with pytest.raises(InputError, match=message):
        training_windows(source, min_window=61)


def test_the_least_size_is_an_eighth_of_a_small_image():
    source = [of_label(squares((60, 80), 8, 9))]  # The windows have 9.6 and 10.8 pixels.
    assert sides_of(training_windows(source, min_window=64)) == [10.8]
    small = [of_label(squares((100, 100), 10))]  # Its window has 12 pixels.
    with pytest.raises(InputError, match=r"smaller than 12\.5 pixels; set data\.min_window below 12\.5,"):
        training_windows(small, min_window=32)
    assert sides_of(training_windows(small, min_window=12)) == [12]


def test_annotated_objects_of_any_size_keep_their_windows():
    label = squares((400, 600), 4, 50)
    source = [of_label(label, instances=label)]  # One object of two parts.
    assert len(training_windows(source, min_window=64).images) == 1
    tiny = [of_label(label, instances=(label * (np.arange(600) < 4)).astype(np.uint8))]
    assert sides_of(training_windows(tiny, min_window=64)) == [4.8]
    known = Described([objects((0, 0, 4, 4, 1))])
    assert sides_of(training_windows(known, min_window=64)) == [4.8]
    assert count_small_parts(known, 64) == 0


def test_proposals_overlap_no_small_part():
    source = [of_label(squares((400, 600), 20, 100))]
    proposed = [np.array([[0, 0, 20, 20], [23, 0, 123, 100.0]])]
    assert sides_of(training_windows(source, ("proposal",), proposals=proposed)) == [24, 120]
    assert sides_of(training_windows(source, ("proposal",), proposals=proposed, min_window=64)) == [120]


def test_packed_data_knows_whether_objects_are_annotated(scenes, tmp_path):
    root = Path(shutil.copytree(scenes, tmp_path / "scenes"))
    for path in (root / "ImageSets/Segmentation").glob("*.txt"):
        path.unlink()
    (root / "ImageSets/Segmentation/train.txt").write_text("train_0000\ntrain_0001\n")
    (root / "SegmentationObject/train_0001.png").unlink()
    split = open_split(prepare_voc_layout(root, tmp_path / "tfds"), "train")
    assert [split.has_object_mask(i) for i in range(2)] == [True, False]
    examples = [split[i] for i in range(2)]
    for least in (0, 30, 64):
        for mine, wanted in zip(
            training_windows(split, min_window=least), training_windows(examples, min_window=least), strict=True
        ):
            np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ("object",)}, r"data\.windows=\('object',\): expected one or several of instance, proposal, image"),
        ({"kinds": ()}, r"data\.windows=\(\)"),
        ({"min_window": -1}, r"data\.min_window=-1"),
        ({}, r"no object in any of the 3 training images; expected masks with class ids 1, .*: correct the masks$"),
        ({"kinds": ("proposal",)}, "needs the proposals of every training image"),
        ({"kinds": ("proposal",), "proposals": [np.zeros((0, 4))]}, "needs the proposals of every training image"),
        ({"kinds": ("proposal",), "proposals": [np.zeros((0, 4))] * 3}, "no object in any of the 3"),
        ({"kinds": ("image",), "min_overlap": 0}, r"data\.min_overlap=0"),
    ],
)
def test_nothing_to_train_on(arguments, message):
    with pytest.raises(InputError, match=message):
        training_windows([example()] * 3, **arguments)
    assert len(training_windows([example()] * 3, ("image",)).images) == 3
