"""Batches are the same for the same seed, resume exactly, and are divided among processes."""

import json

import numpy as np
import pytest

from deconvnet_jax.data import class_pixels, instance_boxes, keep_class, training_batches, training_windows
from deconvnet_jax.data.pipeline import CachedSource
from deconvnet_jax.data.voc_layout import Example
from deconvnet_jax.errors import InputError


def take(batches, count):
    return [next(batches) for _ in range(count)]


def assert_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        for key in ("image", "label"):
            np.testing.assert_array_equal(one[key], other[key])


def numbered(count, objects=1):
    """Images whose red value is their number, with `objects` equal objects of class 1 and 2 in turn."""
    label, instances = np.zeros((2, 40, 60), np.uint8)
    for i in range(objects):
        label[10:30, 5 + 12 * i : 15 + 12 * i] = 1 + i
        instances[10:30, 5 + 12 * i : 15 + 12 * i] = 1 + i
    return [Example(str(i), np.full((40, 60, 3), i + 1, np.uint8), label, instances) for i in range(count)]


def numbers(batch):
    return batch["image"].max((1, 2, 3)).tolist()


def test_shapes_and_types(train_split):
    batch = next(training_batches(train_split, batch_size=3))
    assert (batch["image"].shape, batch["image"].dtype) == ((3, 224, 224, 3), np.uint8)
    assert (batch["label"].shape, batch["label"].dtype) == ((3, 224, 224), np.uint8)
    assert batch["label"].max() > 0
    assert next(training_batches(train_split, batch_size=1, resize_size=300, crop_size=256))["image"].shape[1] == 256


def test_deterministic_whatever_the_threads(train_split):
    first = take(training_batches(train_split, batch_size=4, seed=1), 6)
    assert_same(first, take(training_batches(train_split, batch_size=4, seed=1, read_threads=1), 6))
    assert_same(first, take(training_batches(train_split, batch_size=4, seed=1, read_threads=7, cache_bytes=0), 6))
    other = next(training_batches(train_split, batch_size=4, seed=2))
    assert (other["image"] != first[0]["image"]).any()


def test_resumes_at_the_very_next_batch(train_split):
    batches = training_batches(train_split, batch_size=4)
    take(batches, 3)
    state = json.loads(json.dumps(batches.get_state()))
    following = take(batches, 5)
    resumed = training_batches(train_split, batch_size=4)
    resumed.set_state(state)
    assert_same(following, take(resumed, 5))


def test_every_window_once_an_epoch_each_epoch_in_another_order():
    batches = training_batches(numbered(6), batch_size=3)
    epochs = [[n for batch in take(batches, 2) for n in numbers(batch)] for _ in range(6)]
    assert all(sorted(epoch) == [1, 2, 3, 4, 5, 6] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_processes_get_different_examples():
    seen = []
    for process in range(3):
        batches = training_batches(numbered(10), batch_size=2, process_index=process, process_count=3)
        seen.append({n for batch in take(batches, 6) for n in numbers(batch)})
    assert set.union(*seen) == set(range(1, 11))
    assert sum(map(len, seen)) == 10


def test_fewer_windows_than_the_batch_are_repeated():
    assert sorted(numbers(next(training_batches(numbered(2), batch_size=6)))) == [1, 1, 1, 2, 2, 2]


def test_label_modes():
    fixed = {"batch_size": 2, "mirror": False, "random_crop": False}
    labels = {
        mode: next(training_batches(numbered(1, objects=2), label_mode=mode, **fixed))["label"]
        for mode in ("instance", "all")
    }
    assert sorted((set(np.unique(label)) - {0, 255} for label in labels["instance"]), key=min) == [{1}, {2}]
    assert all(set(np.unique(label)) >= {1, 2} for label in labels["all"])
    whole = next(training_batches(numbered(1, objects=2), windows=("image",), **fixed))["label"]
    assert set(np.unique(whole)) == {0, 1, 2, 255}


def test_crops_and_mirroring():
    def first(**options):
        return np.concatenate([b["label"] for b in take(training_batches(numbered(1), batch_size=8, **options), 4)])

    fixed = first(mirror=False, random_crop=False)
    assert (fixed == fixed[0]).all()
    mirrored = first(random_crop=False)
    flipped = [np.array_equal(one, fixed[0][:, ::-1]) for one in mirrored]
    kept = [np.array_equal(one, fixed[0]) for one in mirrored]
    assert not np.array_equal(fixed[0], fixed[0][:, ::-1])
    assert all(np.logical_xor(flipped, kept))
    assert 0 < sum(flipped) < len(mirrored)
    crops = first(mirror=False)
    assert len({one.tobytes() for one in crops}) > 8


def test_image_and_label_stay_together(train_split):
    """Redraws the label in the picture's place: both went through the same window, crop and flip."""
    marked = [e._replace(image=np.repeat(np.uint8(200 * (e.label > 0))[..., None], 3, -1)) for e in train_split]
    for batch in take(training_batches(marked, batch_size=8, label_mode="all", windows=("instance", "image")), 3):
        known = batch["label"] != 255
        wrong = (batch["image"][..., 0] > 100) != (batch["label"] > 0)
        assert wrong[known].mean() < 0.005


def test_windows(train_split):
    found = training_windows(train_split, ("instance", "image"), image_factor=1.5)
    objects = [len(instance_boxes(e.label, e.instances)[0]) for e in train_split]
    assert len(found) == sum(objects) + len(train_split)
    assert [window.index for window in found] == sorted(window.index for window in found)
    whole = [window for window in found if window.instance_id == 0]
    for window, example in zip(whole, train_split, strict=True):
        assert window.box[2] - window.box[0] == pytest.approx(1.5 * max(example.label.shape))
    one = found[0]
    ys, xs = np.nonzero(train_split[0].instances == one.instance_id)
    sides = np.ptp(xs) + 1, np.ptp(ys) + 1
    assert one.box[2] - one.box[0] == pytest.approx(one.box[3] - one.box[1]) == pytest.approx(1.2 * max(sides))
    assert sum(one.box[::2]) / 2 == pytest.approx((xs.min() + xs.max() + 1) / 2)
    kept = keep_class(train_split[0].label, train_split[0].instances, one.instance_id, one.class_id)
    np.testing.assert_array_equal(kept > 0, train_split[0].instances == one.instance_id)


def test_cache_keeps_what_fits():
    class Counting(list):
        reads = 0

        def __getitem__(self, index):
            Counting.reads += 1
            return super().__getitem__(index)

    examples = Counting(numbered(4))
    size = 40 * 60 * 5
    cached = CachedSource(examples, 2 * size)
    for index in (0, 1, 0, 2, 0, 1):  # 2 replaces 1, 1 replaces 2
        assert cached[index].name == str(index)
    assert Counting.reads == 4
    assert len(cached) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 240}, r"data\.crop_size=240: .* multiple of 32, for example 224"),
        ({"crop_size": 0}, r"data\.crop_size=0"),
        ({"resize_size": 200}, r"data\.resize_size=200: smaller than data\.crop_size=224"),
        ({"label_mode": "some"}, r"data\.label_mode='some': expected one of instance, all"),
        ({"windows": ("object",)}, r"data\.windows=\('object',\): expected one or both of instance, image"),
        ({"windows": ()}, r"data\.windows=\(\)"),
        ({"process_count": 9, "process_index": 8}, "fewer windows to train on"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        training_batches(numbered(2), **{"batch_size": 2} | options)


def test_class_pixels(train_split):
    expected = sum(np.bincount(example.label.ravel(), minlength=6) for example in train_split)
    np.testing.assert_array_equal(class_pixels(train_split, 6), expected)


def test_no_objects():
    with pytest.raises(InputError, match="no object in any of the 3 training images"):
        training_batches(numbered(3, objects=0), batch_size=2)
    assert len(training_windows(numbered(3, objects=0), ("image",))) == 3
