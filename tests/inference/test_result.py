"""Tests what a result can do: unpack, describe itself, be drawn and be saved."""

import io
import pickle

import jax
import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.images import read_mask
from deconvnet_jax.inference import Result
from deconvnet_jax.visualization import overlay

NAMES = ("background", "cat", "dog", "cow")


@pytest.fixture
def result(rng):
    image = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    labels = np.zeros((40, 60), np.uint8)
    labels[:, :12], labels[:, 12:18] = 2, 3
    return Result(labels, np.zeros((40, 60, 4), np.float32), np.zeros((5, 4), np.float32), image, NAMES)


def test_it_is_a_tuple_of_three_arrays(result):
    labels, scores, boxes = result
    assert labels is result.labels
    assert scores is result.scores
    assert boxes is result[2]
    assert len(result) == len(jax.tree.leaves(result)) == 3
    assert result[:2] == (labels, scores)
    assert list(result._asdict()) == ["labels", "scores", "boxes"]


def test_copies_keep_the_photograph_and_the_names(result):
    changed = result._replace(labels=result.labels * 0)
    assert changed.shares() == {"background": 1.0}
    assert changed.image is result.image
    copied = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(copied.overlay(), result.overlay())


def test_shares(result):
    assert result.shares() == {"background": 0.7, "dog": 0.2, "cow": 0.1}
    assert list(result.shares()) == ["background", "dog", "cow"]


def test_the_text(result):
    assert repr(result) == (
        "Result(labels=uint8 [40, 60], scores=float32 [40, 60, 4], 5 boxes: background 70.0 %, dog 20.0 %, cow 10.0 %)"
    )
    assert repr(Result(*result)) == "Result(labels=uint8 [40, 60], scores=float32 [40, 60, 4], 5 boxes)"
    many = np.arange(6, dtype=np.uint8).reshape(2, 3)
    shown = repr(Result(many, np.zeros((2, 3, 6)), np.zeros((0, 4)), class_names=list("abcdef")))
    assert shown.endswith("a 16.7 %, b 16.7 %, c 16.7 %, d 16.7 % and 2 more)")


def test_too_few_names(result):
    few = Result(*result, result.image, NAMES[:2])
    with pytest.raises(InputError, match="class id 2 has no name; expected ids 0 to 1, one per class name"):
        few.shares()
    assert repr(few) == "Result(labels=uint8 [40, 60], scores=float32 [40, 60, 4], 5 boxes)"


def test_the_overlay(result):
    plain = result.overlay(names=False)
    np.testing.assert_array_equal(plain, overlay(result.image, result.labels))
    np.testing.assert_array_equal(result.overlay(), overlay(result.image, result.labels, class_names=NAMES))
    drawn = result.overlay(names=False, palette="colour_blind", alpha=1.0)
    assert drawn[20, 6].tolist() == [86, 180, 233]
    with pytest.raises(InputError, match="made without its photograph"):
        Result(*result, class_names=NAMES).overlay()
    with pytest.raises(InputError, match="made without class names"):
        Result(*result, image=result.image).overlay()
    assert Result(*result, image=result.image).overlay(names=False).shape == (40, 60, 3)


@pytest.mark.parametrize("suffix", ["png", "PNG", "jpg", "webp", "bmp", "tif"])
def test_it_is_saved_as_a_picture(result, tmp_path, suffix):
    path = tmp_path / f"new/folder/a.{suffix}"
    result.save(path, names=False)
    with Image.open(path) as picture:
        difference = np.asarray(picture.convert("RGB"), int) - result.overlay(names=False)
        assert np.abs(difference).mean() < (0.01 if suffix in ("png", "PNG", "bmp", "tif") else 40)
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing unfinished stays


def test_labels_are_saved_as_ids(result, tmp_path):
    result.save_labels(tmp_path / "new/a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "new/a.png"), result.labels)


def test_other_names_are_refused(result, tmp_path):
    for name in ("a.npy", "a", "a.pdf"):
        with pytest.raises(InputError, match=r"is no name of a picture; expected one that ends in \.png, \.jpg"):
            result.save(tmp_path / name)
    with pytest.raises(InputError, match=r"does not end in \.png"):
        result.save_labels(tmp_path / "a.jpg")
    for path in (b"a.png", None, 3):
        for save in (result.save, result.save_labels):
            with pytest.raises(InputError, match=r"path=(b'a\.png'|None|3) is no path; expected a text or a pathlib"):
                save(path)
    with pytest.raises(InputError, match=r"palette='color_blind': expected one of .*; did you mean colour_blind"):
        result.save(tmp_path / "a.png", palette="color_blind")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("side", "shown"), [(60, (160, 240)), (600, (400, 600)), (3000, (683, 1024))])
def test_notebooks_show_the_overlay_in_a_size_for_screens(side, shown):
    height = side * 2 // 3
    image, labels = np.zeros((height, side, 3), np.uint8), np.ones((height, side), np.uint8)
    picture = Image.open(io.BytesIO(Result(labels, image, image, image, NAMES)._repr_png_()))
    assert picture.size == shown[::-1]
    assert (np.asarray(picture) == 255).all(-1).any()  # the name in white
    assert Result(labels, image, image)._repr_png_() is None
