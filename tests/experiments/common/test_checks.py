"""Photographs that are trained on and scored on."""

import shutil
from pathlib import Path

import pytest

from deconvnet_jax.data import open_split, prepare_voc_layout
from experiments.common import checks
from experiments.configs import default


@pytest.fixture
def splits(scenes, tmp_path):
    """(names of train, names of val, copies {new: old}) -> the two splits of a copy of the scenes."""

    def make(train, val, copies=()):
        root = Path(shutil.copytree(scenes, tmp_path / "scenes"))
        for new, old in dict(copies).items():
            for part, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("SegmentationObject", "png")):
                shutil.copy(root / part / f"{old}.{suffix}", root / part / f"{new}.{suffix}")
        for split, names in (("train", train), ("val", val)):
            (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names) + "\n")
        builder = prepare_voc_layout(root, tmp_path / "tfds")
        return open_split(builder, "train"), open_split(builder, "val")

    return make


def warned(train, val, capsys, indices=None):
    checks.warn_of_common_images(train, range(len(train)) if indices is None else indices, val, "train", "val")
    return capsys.readouterr().err


def test_the_same_names(splits, capsys):
    said = warned(*splits(["train_0000", "train_0001", "val_0000"], ["val_0000", "val_0001", "train_0001"]), capsys)
    assert said.startswith(
        "warning: 2 of the 3 images of the split 'val' are training images, too (split 'train'), for"
    )
    assert "for example 'val_0000' and 'train_0001'; their scores are too high: remove them from one of the" in said
    assert said.count("\n") == 1


def test_the_same_photograph_under_another_name(splits, capsys):
    train, val = splits(["train_0000", "train_0001"], ["val_0000", "copy"], {"copy": "train_0001"})
    assert (
        "1 of the 2 images of the split 'val' are training images, too (split 'train'), for example 'copy' (there "
        "'train_0001');" in warned(train, val, capsys)
    )
    assert warned(train, val, capsys, indices=[0]) == ""  # the window list leaves it out


def test_other_photographs(splits, capsys):
    assert warned(*splits(["train_0000", "train_0001"], ["val_0000"]), capsys) == ""


def test_what_a_checkpoint_was_trained_on():
    config = default.get_config()
    config.data.voc_root = "/data"
    trained = {"data": {"dataset": "voc_layout", "voc_root": "/data", "train_split": "train"}}
    assert checks.training_split(trained, config) == "train"
    for other in ({"voc_root": "/other"}, {"dataset": "voc2012"}, {"window_list": "some.txt"}):
        assert checks.training_split({"data": {**trained["data"], **other}}, config) is None
    assert checks.training_split({}, config) is None
