"""Batches are reproducible from the seed, resume exactly, and are divided among processes."""

import itertools
import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deconvnet_jax.data import (
    CropSettings,
    crop_place,
    crop_window,
    random_mirror,
    training_batches,
    training_windows,
)
from deconvnet_jax.data.pipeline import BLOCK, CachedSource, WindowOrder, epoch_order
from deconvnet_jax.data.windows import zoomed_size
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import Example

AUGMENTED = {"rotation": 20.0, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.05}


def batches_of(source, kinds=("instance",), *, batch_size, seed=0, process_index=0, process_count=1, **settings):
    windows, where = training_windows(source, kinds), {"process_index": process_index, "process_count": process_count}
    return training_batches(source, windows, CropSettings(**settings), batch_size=batch_size, seed=seed, **where)


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        for key in ("image", "label"):
            np.testing.assert_array_equal(one[key], other[key])


def numbered(count, objects=1):
    """Returns images whose red value is their number plus one, with equal objects of classes 1, 2, ...."""
    label, instances = np.zeros((2, 40, 60), np.uint8)
    for i in range(objects):
        label[10:30, 5 + 12 * i : 15 + 12 * i] = 1 + i
        instances[10:30, 5 + 12 * i : 15 + 12 * i] = 1 + i
    return [Example(str(i), np.full((40, 60, 3), i + 1, np.uint8), label, instances) for i in range(count)]


def numbers(batch):
    return batch["image"].max((1, 2, 3)).tolist()


def test_shapes_and_types(train_split):
    batch = next(batches_of(train_split, batch_size=3))
    assert (batch["image"].shape, batch["image"].dtype) == ((3, 224, 224, 3), np.uint8)
    assert (batch["label"].shape, batch["label"].dtype) == ((3, 224, 224), np.uint8)
    assert batch["label"].max() > 0
    assert next(batches_of(train_split, batch_size=1, resize_size=300, crop_size=256))["image"].shape[1] == 256


def test_deterministic_whatever_the_threads(train_split):
    first = take(batches_of(train_split, batch_size=4, seed=1), 6)
    assert_same(first, take(batches_of(train_split, batch_size=4, seed=1, read_threads=1), 6))
    assert_same(first, take(batches_of(train_split, batch_size=4, seed=1, read_threads=7, cache_mb=0), 6))
    other = next(batches_of(train_split, batch_size=4, seed=2))
    assert (other["image"] != first[0]["image"]).any()


def test_a_position_is_one_among_the_same_windows(train_split):
    batches = batches_of(train_split, batch_size=4)
    state = batches.get_state()
    others = batches_of(train_split, batch_size=4, kinds=("instance", "image"))
    with pytest.raises(InputError, match="the training windows are not those of the checkpoint, because images"):
        others.set_state(state)
    others.set_state({"next_index": 3})  # An older version saved no digest.
    assert others.get_state()["next_index"] == 3


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_stopped_anywhere_the_rest_is_the_same(train_split, rng, workers):
    """Checks that the 1,000 crops after a stop equal those of an uninterrupted run, for any number of workers."""
    small = {
        "batch_size": 20,
        "resize_size": 36,
        "crop_size": 32,
        "kinds": ("instance", "image"),
        "seed": 3,
        **AUGMENTED,
    }
    stop = int(rng.integers(1, 9))
    whole = take(batches_of(train_split, **small), stop + 50)
    batches = batches_of(train_split, **small, workers=workers, crops_per_decode=8, read_threads=2)
    assert_same(take(batches, stop), whole[:stop])
    state = json.loads(json.dumps(batches.get_state()))
    batches.close()
    resumed = batches_of(train_split, **small, workers=workers, cache_mb=1)
    next(resumed)
    resumed.set_state(state)
    assert_same(take(resumed, 50), whole[stop:])
    resumed.close()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batch_of_one(train_split, processes):
    whole = take(batches_of(train_split, batch_size=6), 5)
    shares = [
        take(batches_of(train_split, batch_size=6 // processes, process_index=i, process_count=processes), 5)
        for i in range(processes)
    ]
    together = [
        {key: np.concatenate([one[key] for one in parts]) for key in parts[0]} for parts in zip(*shares, strict=True)
    ]
    assert_same(whole, together)


def test_fewer_windows_than_the_batch_are_repeated():
    assert sorted(numbers(next(batches_of(numbered(2), batch_size=6)))) == [1, 1, 1, 2, 2, 2]


def test_label_modes():
    fixed = {"batch_size": 2, "mirror": False, "random_crop": False}
    labels = {
        mode: next(batches_of(numbered(1, objects=2), label_mode=mode, **fixed))["label"]
        for mode in ("instance", "all")
    }
    assert sorted((set(np.unique(label)) - {0, 255} for label in labels["instance"]), key=min) == [{1}, {2}]
    assert all(set(np.unique(label)) >= {1, 2} for label in labels["all"])
    whole = next(batches_of(numbered(1, objects=2), kinds=("image",), **fixed))["label"]
    assert set(np.unique(whole)) == {0, 1, 2, 255}


def test_crops_and_mirroring():
    def first(**options):
        return np.concatenate([b["label"] for b in take(batches_of(numbered(1), batch_size=8, **options), 4)])

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


@pytest.mark.parametrize("rotation", [0.0, 40.0])
def test_image_and_label_stay_together(train_split, rotation):
    """Paints the label into the image and checks that both went through the same window, crop and mirroring."""
    marked = [e._replace(image=np.repeat(np.uint8(200 * (e.label > 0))[..., None], 3, -1)) for e in train_split]
    for batch in take(
        batches_of(marked, batch_size=8, label_mode="all", kinds=("instance", "image"), rotation=rotation), 3
    ):
        known = batch["label"] != 255
        wrong = (batch["image"][..., 0] > 100) != (batch["label"] > 0)
        assert wrong[known].mean() < 0.005


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 240}, r"data\.crop_size=240: .* multiple of 32, for example 224"),
        ({"crop_size": 0}, r"data\.crop_size=0"),
        ({"resize_size": 200}, r"data\.resize_size=200: smaller than data\.crop_size=224"),
        ({"label_mode": "some"}, r"data\.label_mode='some': expected one of instance, all"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": -1}, r"data\.workers=-1: expected 0 to"),
        ({"read_threads": 0}, r"data\.read_threads=0: expected 1 to 1024"),
        ({"seed": -1}, "seed=-1: expected 0 to"),
        ({"cache_mb": -1}, r"data\.cache_mb=-1: expected 0 to"),
        ({"crops_per_decode": 10**21}, r"data\.crops_per_decode=1000000000000000000000: expected 1 to"),
        ({"crops_per_decode": 0}, r"data\.crops_per_decode=0"),
        ({"rotation": 181}, r"data\.rotation=181: expected 0 to 180"),
        ({"brightness": float("nan")}, r"data\.brightness=nan: expected 0 to 1"),
        ({"hue": 0.6}, r"data\.hue=0\.6: expected 0 to 0\.5"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        batches_of(numbered(2), **{"batch_size": 2} | options)


def test_no_windows():
    windows = training_windows(numbered(1)).take(np.zeros(0, int))
    with pytest.raises(InputError, match="no window to train on"):
        training_batches(numbered(1), windows, batch_size=1)


def test_zoom_enlarges_and_inside_leaves_the_surroundings_out():
    """Uses images of 40x60 pixels, whose square windows show black around them."""
    source = numbered(6)
    options = {"batch_size": 24, "resize_size": 64, "crop_size": 32, "label_mode": "all"}

    def outside(**more):
        return (next(batches_of(source, ("image",), **options, **more))["label"] == 255).mean()

    assert outside(inside_image=True) == 0 < outside()
    assert 0.2 < outside(inside_image=True, zoom=(0.5, 0.5)) < outside(zoom=(0.5, 0.5)) + 1e-9
    near, far = (next(batches_of(source, ("image",), **options, zoom=(z, z)))["label"] for z in (2.0, 0.5))
    assert (near == 1).sum(axis=(1, 2)).max() > 3 * (far == 1).sum(axis=(1, 2)).max()
    for zoom in ((2, 1), (1.0,), 1.0, ("a", "b"), (None, 1.0)):
        with pytest.raises(InputError, match=r"data\.zoom=.*: expected two factors"):
            batches_of(source, ("image",), batch_size=2, zoom=zoom)


def test_without_augmentation_crops_are_those_of_earlier_versions(train_split):
    """The expected crops are those of version 0.2.0, which knew neither rotation nor colours."""
    windows = training_windows(train_split, ("instance",))
    batch = next(batches_of(train_split, batch_size=6, seed=4, zoom=(0.9, 1.2), label_mode="all"))
    order = WindowOrder(windows.images, 4)
    for position in range(6):
        rng, window = np.random.default_rng([4, position]), order[position]
        example = train_split[int(windows.images[window])]
        size = zoomed_size(250, (0.9, 1.2), rng)
        top, left = crop_place(size, 224, rng)
        crop = crop_window(example.image, example.label, windows.boxes[window], size, (top, left, 224))
        image, label = random_mirror(*crop, rng)
        np.testing.assert_array_equal(batch["image"][position], image)
        np.testing.assert_array_equal(batch["label"][position], label)


def test_augmentation_changes_what_it_should(train_split):
    def first(**options):
        return next(batches_of(train_split, batch_size=8, label_mode="all", mirror=False, **options))

    plain, colored = first(), first(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    np.testing.assert_array_equal(colored["label"], plain["label"])
    assert ((colored["image"] != plain["image"]).any((1, 2, 3))).all()
    outside = (plain["image"] == 0).all(-1) & (plain["label"] == 255)
    assert outside.any()
    assert (colored["image"][outside] == 0).all()
    turned = first(rotation=30.0)
    assert ((turned["label"] != plain["label"]).any((1, 2))).all()
    for label in next(batches_of(train_split, batch_size=8, rotation=30.0))["label"]:
        assert len(set(np.unique(label)) - {0, 255}) <= 1  # The rest of a window around one object stays background.


# The order of the windows.


@pytest.mark.parametrize("handful", [1, 3, 8])
def test_every_window_once_an_epoch(rng, handful):
    images = np.sort(rng.integers(0, 40, 1000))
    orders = [epoch_order(images, seed, epoch, handful) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({order.tobytes() for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], epoch_order(images, 0, 0, handful))


@pytest.mark.parametrize(("handful", "most"), [(1, 1.0), (8, 0.2)])
def test_handfuls_save_decodes(rng, handful, most):
    """Counts the decodes that are needed if as many images stay in memory as a block has."""
    images = np.repeat(np.arange(4000), 16)
    order = images[epoch_order(images, 0, 0, handful)]
    decodes, kept = 0, {}
    for position, image in enumerate(order.tolist()):
        decodes += image not in kept
        kept.pop(image, None)
        kept[image] = position
        if len(kept) > 2 * BLOCK:
            kept.pop(next(iter(kept)))
    assert decodes / len(order) < most
    assert decodes / len(order) > most / 2


def test_a_batch_shows_many_images():
    images = np.repeat(np.arange(4000), 16)
    order = images[epoch_order(images, 3, 0, 8)]
    distinct = [len(set(order[start : start + 64].tolist())) for start in range(0, len(order), 64)]
    assert np.mean(distinct) > 58  # It would be 60 for images drawn at random from a block of 512.
    starts = [np.flatnonzero(order == image)[0] for image in (0, 1, 2, 3)]
    assert np.ptp(starts) > 64


def test_positions_run_through_the_epochs(rng):
    images = np.sort(rng.integers(0, 9, 30))
    order = WindowOrder(images, seed=5, handful=2)
    expected = np.concatenate([epoch_order(images, 5, epoch, 2) for epoch in range(3)])
    assert [order[position] for position in range(90)] == expected.tolist()
    jumps = rng.integers(0, 90, 50)
    assert [order[int(position)] for position in jumps] == expected[jumps].tolist()
    copied = pickle.loads(pickle.dumps(order))
    assert copied[77] == expected[77]


# Images kept in memory.


SIZE = 10 * 20 * 5  # Bytes of one example.


class Slow(list):
    """Examples that take some time to read, and that record each read."""

    def __init__(self, count, seconds=0.0):
        arrays = np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20), np.uint8), np.zeros((10, 20), np.uint8)
        super().__init__(Example(str(i), *arrays) for i in range(count))
        self.seconds, self.reads, self.lock = seconds, [], threading.Lock()

    def __getitem__(self, index):
        with self.lock:
            self.reads.append(index)
        time.sleep(self.seconds)
        return super().__getitem__(index)


def test_keeps_what_fits_and_drops_the_least_recently_used():
    source = Slow(4)
    cached = CachedSource(source, 2 * SIZE)
    for index in (0, 1, 0, 2, 0, 1):  # Reading 2 drops 1, and reading 1 drops 2.
        assert cached[index].name == str(index)
    assert source.reads == [0, 1, 2, 1]
    assert len(cached) == 4


def test_without_memory_every_access_reads():
    source = Slow(2)
    cached = CachedSource(source, 0)
    assert [cached[0].name, cached[0].name] == ["0", "0"]
    assert source.reads == [0, 0]


def test_threads_wait_for_the_one_that_decodes():
    source = Slow(3, seconds=0.05)
    cached = CachedSource(source, 99 * SIZE)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda i: cached[i % 3].name, range(24)))
    assert names == [str(i % 3) for i in range(24)]
    assert sorted(source.reads) == [0, 1, 2]


def test_a_failure_reaches_all_who_wait_and_is_tried_again():
    class Damaged(Slow):
        def __getitem__(self, index):
            super().__getitem__(index)
            raise InputError(f"damaged {len(self.reads)}")

    source = Damaged(1, seconds=0.05)
    cached = CachedSource(source, 99 * SIZE)

    def message(_):
        with pytest.raises(InputError) as raised:
            cached[0]
        return str(raised.value)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(message, range(4))) == {"damaged 1"}
    assert message(0) == "damaged 2"


def test_keeps_what_was_prepared_and_is_sent_empty():
    cached = CachedSource(Slow(1), 99 * SIZE, _without_instances)
    assert cached[0].instances is None
    source = [Example("a", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), None)]
    copied = pickle.loads(pickle.dumps(CachedSource(source, 5, _without_instances)))
    assert copied[0].name == "a"


def _without_instances(example):
    return example._replace(instances=None)


def test_an_error_while_keeping_reaches_all_who_wait(monkeypatch):
    """Simulates that memory runs out; no thread may wait forever."""
    cached = CachedSource(Slow(1, seconds=0.05), 99 * SIZE)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(cached, "_keep", fail)

    def read(_):
        with pytest.raises(MemoryError):
            cached[0]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(read, range(3), timeout=20))
