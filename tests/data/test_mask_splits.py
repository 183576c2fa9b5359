"""Images are divided by chance, by lists or by folders."""

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
