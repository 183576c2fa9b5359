"""Images are divided by chance, by lists or by folders."""

import mask_exports
import pytest
from mask_exports import NAMED, NAMES, load, plain, refused

from deconvnet_jax.data import MaskDivision, import_masks, split_names


def test_divided_by_chance(tmp_path):
    source = plain(tmp_path)
    chosen = set()
    for i, seed in enumerate((0, 0, 1, 2, 3, 4, 5)):
        division = MaskDivision(val=0.4, seed=seed)
        import_masks(source["images"], source["masks"], tmp_path / f"out{i}", NAMED, None, division)
        val = split_names(tmp_path / f"out{i}", "val")
        assert len(val) == 2
        assert sorted(val + split_names(tmp_path / f"out{i}", "train")) == list(NAMES)
        chosen.add(tuple(val))
        assert i != 1 or len(chosen) == 1  # The same seed selects the same images.
    assert len(chosen) > 1


def test_lists(tmp_path):
    source = plain(tmp_path)
    (tmp_path / "train.txt").write_text("a\nphotos/c.jpg\n")
    (tmp_path / "val.txt").write_text("e.jpg\n")
    division = MaskDivision(train_list=tmp_path / "train.txt", val_list=tmp_path / "val.txt")
    load(tmp_path, source, NAMED, None, division)
    assert split_names(tmp_path / "out", "train") == ["a", "c"]
    assert split_names(tmp_path / "out", "val") == ["e"]
    (tmp_path / "val.txt").write_text("e\nc\n")
    refused(tmp_path, source, "val.txt: 'c' is in the list of train", output="b", reading=NAMED, division=division)
    (tmp_path / "val.txt").write_text("x\n")
    refused(tmp_path, source, "val.txt: 'x' has no image", output="b", reading=NAMED, division=division)


@pytest.mark.parametrize(
    ("division", "part"),
    [
        (MaskDivision(val=0.0), "--val=0: expected"),
        (MaskDivision(val=1.0), "--val=1: expected"),
        (MaskDivision(train_list="a.txt"), "only one of --train_list and --val_list"),
        (MaskDivision(val=0.2, train_list="a.txt", val_list="b.txt"), "--val and --val_list are both given"),
    ],
)
def test_wrong_divisions(tmp_path, division, part):
    refused(tmp_path, plain(tmp_path), part, reading=NAMED, division=division)


def test_one_image_cannot_be_divided(tmp_path):
    refused(tmp_path, plain(tmp_path, names=["a"]), "1 image cannot be divided", reading=NAMED)


def test_images_in_and_outside_of_folders_of_splits(tmp_path):
    source = plain(tmp_path, names=["train/a", "train/b", "val/c", "d"])
    refused(tmp_path, source, "3 of 4 images lie in folders of splits", "d.jpg", "--val=0.2", reading=NAMED)
    load(tmp_path, source, NAMED, None, MaskDivision(val=0.25))
    assert len(split_names(tmp_path / "out", "val")) == 1


NESTED = ("JPEGImages/eins/frame_0", "JPEGImages/zwei/frame_0", "JPEGImages/zwei/frame_1", "frame_1", "deep/x/frame_2")
FLAT = ("eins_frame_0", "zwei_frame_0", "zwei_frame_1", "frame_1", "deep_x_frame_2")


def lists_of(root, train, val):
    (root / "train.txt").write_text("\n".join(train))
    (root / "val.txt").write_text("\n".join(val))
    return MaskDivision(train_list=root / "train.txt", val_list=root / "val.txt")


def test_lists_of_paths_below_folders_of_images(tmp_path):
    source = plain(tmp_path, names=NESTED)
    division = lists_of(tmp_path, ["eins/frame_0", "frame_1"], ["zwei/frame_0.jpg", "zwei/frame_1", "x/frame_2"])
    load(tmp_path, source, NAMED, None, division)
    assert split_names(tmp_path / "out", "train") == sorted([FLAT[0], FLAT[3]], key=FLAT.index)
    assert set(split_names(tmp_path / "out", "val")) == {FLAT[1], FLAT[2], FLAT[4]}


def test_lists_of_an_export_of_cvat_with_folders(tmp_path):
    mask_exports.cvat(tmp_path)
    export = tmp_path / "cvat"
    for part, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"), ("SegmentationObject", ".png")):
        for name, new in zip("abcde", ("eins/0", "eins/1", "zwei/0", "zwei/1", "zwei/2"), strict=True):
            path = export / part / f"{new}{suffix}"
            path.parent.mkdir(exist_ok=True)
            (export / part / f"{name}{suffix}").rename(path)
    lists = export / "ImageSets/Segmentation"
    (lists / "default.txt").unlink()
    (lists / "Train.txt").write_text("eins/0\nzwei/1\nzwei/2\n")
    (lists / "Validation.txt").write_text("zwei/0\neins/1\n")
    load(tmp_path, {"images": export, "masks": None})
    assert split_names(tmp_path / "out", "train") == ["eins_0", "zwei_1", "zwei_2"]
    assert split_names(tmp_path / "out", "val") == ["eins_1", "zwei_0"]


def test_lists_that_do_not_say_which_folder(tmp_path):
    source = plain(tmp_path, names=NESTED)
    for name in ("frame_0", "drei/frame_0", "/home/someone/frame_0.jpg"):
        division = lists_of(tmp_path, [name], ["frame_1"])
        refused(tmp_path, source, "train.txt", "frame_0", reading=NAMED, division=division)


def test_lists_with_a_title(tmp_path):
    division = lists_of(tmp_path, ["image,mask", "a"], ["b"])
    refused(
        tmp_path, plain(tmp_path), "'image,mask' has no image", "if it is a title", reading=NAMED, division=division
    )


def test_folders_whose_names_start_like_splits(tmp_path):
    source = plain(tmp_path, names=["train_set/a", "train_set/b", "train_set/c", "val_set/d", "e"])
    summary = load(tmp_path, source, NAMED)
    (warning,) = [warning for warning in summary.warnings if "splits" in warning]
    assert warning.startswith("folders such as train_set and val_set are not taken as splits")
    again = import_masks(source["images"], source["masks"], tmp_path / "b", NAMED, None, MaskDivision(val=0.2))
    assert not any("splits" in warning for warning in again.warnings)


def test_folders_of_splits_with_a_year(tmp_path):
    source = plain(tmp_path, names=["train2017/a", "train2017/b", "train2017/c", "val2017/d", "test_2017/e"])
    summary = load(tmp_path, source, NAMED)
    assert split_names(tmp_path / "out", "train") == ["a", "b", "c"]
    assert split_names(tmp_path / "out", "val") == ["d"]
    assert summary.divided == "by the folders train, val, test"
