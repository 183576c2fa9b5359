"""Scenes depend only on their seed, masks fit each other, and the folder is written completely or not at all."""

import json

import numpy as np
import pytest

from deconvnet_jax.data import SCENE_CLASSES, class_names, draw_scene, read_example, split_names, write_scenes
from deconvnet_jax.data.scenes import VERSION
from deconvnet_jax.errors import InputError


@pytest.fixture(scope="module")
def drawn():
    return [draw_scene(np.random.default_rng(seed)) for seed in range(24)]


def test_same_seed_same_scene(drawn):
    again = draw_scene(np.random.default_rng(5))
    for one, other in zip(drawn[5], again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert drawn[5][0].shape != drawn[6][0].shape or (drawn[5][0] != drawn[6][0]).any()


def test_masks(drawn):
    for image, label, instances in drawn:
        assert image.dtype == label.dtype == instances.dtype == np.uint8
        assert image.shape == (*label.shape, 3)
        np.testing.assert_array_equal(label == 0, instances == 0)
        for number in np.unique(instances)[1:]:
            assert len(np.unique(label[instances == number])) == 1
        assert instances.max() == len(np.unique(instances)) - 1
        assert label.max() < len(SCENE_CLASSES)


def test_the_set_as_a_whole(drawn):
    """Checks that all classes, several sizes and varying colours occur, with a sensible share of ground."""
    pixels = np.concatenate([label.ravel() for _, label, _ in drawn])
    shares = np.bincount(pixels, minlength=len(SCENE_CLASSES)) / len(pixels)
    assert 0.5 < shares[0] < 0.9
    assert (shares[1:] > 0.01).all()
    assert len({image.shape for image, _, _ in drawn}) > 2
    sides = [np.ptp(np.nonzero(part == n), axis=1).max() for _, _, part in drawn for n in range(1, part.max() + 1)]
    assert min(sides) < 80
    assert max(sides) > 140
    assert max(sides) <= 320
    for class_id in range(1, len(SCENE_CLASSES)):
        means = [image[label == class_id].mean(0) for image, label, _ in drawn if (label == class_id).any()]
        assert np.std(means, axis=0).mean() > 10


def test_written_folder(scenes):
    assert class_names(scenes) == SCENE_CLASSES
    names = {split: split_names(scenes, split) for split in ("train", "val", "trainval")}
    assert (len(names["train"]), len(names["val"])) == (10, 4)
    assert names["trainval"] == names["train"] + names["val"]
    example = read_example(scenes, names["val"][2], len(SCENE_CLASSES))
    image, label, instances = draw_scene(np.random.default_rng([3, 1, 2]))
    np.testing.assert_array_equal(example.label, label)
    np.testing.assert_array_equal(example.instances, instances)
    assert np.abs(example.image.astype(int) - image).mean() < 8  # JPEG compression changes pixels slightly.


def test_more_scenes_begin_with_the_same(scenes, tmp_path):
    write_scenes(tmp_path / "more", train=1, val=1, seed=3)
    for split in ("train", "val"):
        path = f"JPEGImages/{split}_0000.jpg"
        assert (tmp_path / "more" / path).read_bytes() == (scenes / path).read_bytes()


def test_second_call_does_nothing(tmp_path):
    seen = []
    write_scenes(tmp_path / "s", train=1, val=1, progress=lambda *done: seen.append(done))
    assert seen == [(1, 2), (2, 2)]
    before = (tmp_path / "s/JPEGImages/val_0000.jpg").stat().st_mtime_ns
    write_scenes(tmp_path / "s", train=1, val=1, progress=lambda *done: seen.append(done))
    assert len(seen) == 2
    assert (tmp_path / "s/JPEGImages/val_0000.jpg").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"holds scenes with .*delete the folder or choose another"):
        write_scenes(tmp_path / "s", train=2, val=1)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="holds other files"):
        write_scenes(tmp_path, train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_interrupted_writing_leaves_nothing(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "s", train=1, val=1, progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [{"train": 0}, {"val": -1}, {"seed": -1}])
def test_impossible_numbers(tmp_path, numbers):
    with pytest.raises(InputError, match="expected at least 1 scene per split"):
        write_scenes(tmp_path / "s", **{"train": 1, "val": 1} | numbers)


def test_marker_is_readable(scenes):
    assert json.loads((scenes / "scenes.json").read_text()) == {"version": VERSION, "train": 10, "val": 4, "seed": 3}
