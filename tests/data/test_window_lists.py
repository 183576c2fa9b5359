"""Window lists of the original and our own are read, and damaged or outdated ones are refused."""

import os

import numpy as np
import pytest

from deconvnet_jax.data import (
    Objects,
    Windows,
    listed_windows,
    read_window_list,
    write_window_list,
)
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import image_digests

# These lines of the released stage-2 list are quoted in issue 3 of HyeonwooNoh/DeconvNet.
SAMPLE = """\
/VOC2012_SEG_AUG/images/2009_004507.png /VOC2012_SEG_AUG/segmentations/2009_004507.png 267 -20 517 230
/VOC2012_SEG_AUG/images/2009_002527.png /VOC2012_SEG_AUG/segmentations/2009_002527.png 88 -24 387 275
/VOC2012_SEG_AUG/images/2009_004507.png /VOC2012_SEG_AUG/segmentations/2009_004507.png -30 -92 548 486
"""


class Named(list):
    """A source of names, in which every image has the same two objects."""

    def name(self, index):
        return self[index]

    def objects(self, index):
        return Objects(np.array([[300, 10, 480, 200], [100, 0, 380, 250.0]]), np.array([12, 3]), np.array([1, 2]))


def test_the_original_s_lines(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text(SAMPLE)
    found = read_window_list(path)
    assert found.images[1] == "/VOC2012_SEG_AUG/images/2009_002527.png"
    assert found.masks[1] == "/VOC2012_SEG_AUG/segmentations/2009_002527.png"
    np.testing.assert_array_equal(found.boxes[0], [267, -20, 518, 231])
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    np.testing.assert_array_equal(sides, [[251, 251], [300, 300], [579, 579]])
    windows = listed_windows(path, Named(["2009_002527", "2009_004507"]))
    assert windows.images.tolist() == [1, 0, 1]
    assert windows.class_ids.tolist() == [12, 3, 3]
    assert not windows.instance_ids.any()


def test_names_with_folders_and_dots(tmp_path):
    names = ["a/1", "b/1", "1", "v1.2", "x.jpg.v"]
    nothing = np.zeros(5, np.int32)
    boxes = np.float32([[i, 0, i + 9, 9] for i in range(5)])
    write_window_list(tmp_path / "list.txt", Windows(np.arange(5, dtype=np.int32), boxes, nothing, nothing), names)
    found = listed_windows(tmp_path / "list.txt", Named(names))
    assert found.images.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found.boxes, boxes)
    (tmp_path / "other.txt").write_text("/elsewhere/1.png /elsewhere/masks/1.png 0 0 9 9\n")
    assert listed_windows(tmp_path / "other.txt", Named(["a/1", "b/2"])).images.tolist() == [0]
    with pytest.raises(InputError, match="names image '1', which the training split lacks or has more than once"):
        listed_windows(tmp_path / "other.txt", Named(["a/1", "b/1"]))
    with pytest.raises(InputError, match="image 'my photo' has a space in its name"):
        write_window_list(tmp_path / "bad.txt", Windows(nothing[:1], boxes[:1], nothing[:1], nothing[:1]), ["my photo"])
    assert not (tmp_path / "bad.txt").exists()


def test_round_trip(tmp_path, rng):
    names = ["a", "b-c", "2007_000032"]
    low, sides = rng.uniform(-200, 300, (50, 2)), rng.uniform(1, 400, (50, 1))
    boxes = np.concatenate([low, low + sides], axis=1).astype(np.float32)
    nothing = np.zeros(50, np.int32)
    windows = Windows(rng.integers(0, 3, 50).astype(np.int32), boxes, nothing, nothing)
    write_window_list(tmp_path / "list.txt", windows, names)
    read = listed_windows(tmp_path / "list.txt", Named(names))
    np.testing.assert_array_equal(read.images, windows.images)
    assert np.abs(read.boxes - boxes).max() <= 1
    written = read.boxes[:, 2:] - read.boxes[:, :2]
    np.testing.assert_array_equal(written[:, 0], written[:, 1])  # Squares stay squares.
    write_window_list(tmp_path / "again.txt", read, names)
    assert (tmp_path / "again.txt").read_text() == (tmp_path / "list.txt").read_text()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a.png b.png 1 2 3 4\na.png b.png 1 2 3\n", "line 2: .* is not a window; expected 'image mask x1 y1 x2 y2'"),
        ("a.png b.png 1 2 3 4 5", "line 1: .* is not a window"),
        ("a.png b.png 1 2.5 3 4", "line 1: .* is not a window"),
        ("a.png b.png 5 2 3 4", "with x1 <= x2"),
        ("a.png b.png 1 2 99999999 4", "line 1"),
        ("a.png", "line 1"),
    ],
)
def test_damaged_lists(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_window_list(path)


def test_unreadable_lists(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read \(No such file"):
        read_window_list(tmp_path / "nowhere.txt")
    (tmp_path / "binary").write_bytes(b"\x80\xff a")
    with pytest.raises(InputError, match="binary cannot be read"):
        read_window_list(tmp_path / "binary")


class Digests(Named):
    """A source whose digests consist of the names and of `masks`."""

    def digest(self, index, masks=False):
        return f"{self[index]} {self.masks if masks else ''}"

    masks = "masks"


def test_a_list_of_images_that_were_changed_since(tmp_path):
    path, source = tmp_path / "windows/list.txt", Digests(["a", "b"])
    path.parent.mkdir()
    windows = Windows(np.int32([0, 1]), np.float32([[0, 0, 9, 9]] * 2), np.zeros(2, np.int32), np.zeros(2, np.int32))
    write_window_list(path, windows, source, images=image_digests(source, masks=True))
    assert os.listdir(path.parent) == ["list.txt"]
    for unchanged in (source, Digests(["b", "a", "c"]), Named(source)):
        assert len(listed_windows(path, unchanged).images) == 2
    source.masks = "other masks"
    with pytest.raises(InputError, match=r"list\.txt was made before 2 images or their masks changed, among th.*'a'"):
        listed_windows(path, source)


def test_images_of_another_split(tmp_path):
    (tmp_path / "list.txt").write_text(SAMPLE)
    with pytest.raises(InputError, match=r"names image '2009_002527', which the training split l.*data\.train_split"):
        listed_windows(tmp_path / "list.txt", Named(["2009_004507"]))
    with pytest.raises(InputError, match="names image '2009_002527' and 1 others"):
        listed_windows(tmp_path / "list.txt", Named(["other"]))
