"""The command as people run it."""

import shutil
from functools import partial

import numpy as np
import pytest
import voc_archives
from camvid_folder import write_camvid
from programs import run_program
from voc_archives import SBD_FILE, VOC_FILE, write_tar

from deconvnet_jax import data
from deconvnet_jax.data import listed_windows, open_split, prepare_voc2012, training_windows
from deconvnet_jax.errors import InputError
from experiments.common import dataset
from experiments.configs import default, settings

pytestmark = pytest.mark.end_to_end

prepare = partial(run_program, "prepare_data")


def test_scenes_then_the_same_folder_as_voc_layout(tmp_path, monkeypatch):
    flags = ("--dataset=scenes", f"--data_dir={tmp_path}", "--train_scenes=2", "--val_scenes=1")
    done = prepare(*flags)
    assert done.returncode == 0, done.stderr
    what, where = done.stdout.splitlines()
    assert all(part in what for part in ("6 classes", "train 2", "trainval 3", "val 1"))
    assert where.startswith(f"packed in {tmp_path / 'tfds'}")
    again = prepare(*flags)
    assert (again.stdout, again.stderr) == (done.stdout, "")
    packed = prepare("--dataset=voc_layout", f"--voc_root={tmp_path / 'scenes'}", f"--data_dir={tmp_path / 'other'}")
    assert f"packed in {tmp_path / 'other'}" in packed.stdout
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "default"))  # where a training looks, too
    packed = prepare("--dataset=voc_layout", f"--voc_root={tmp_path / 'scenes'}")
    assert f"packed in {tmp_path / 'default'}" in packed.stdout
    assert (
        prepare("--dataset=scenes").stderr
        == "error: --dataset=scenes needs --data_dir=DIR, where it writes the scenes\n"
    )


def test_wrong_use_is_one_line(tmp_path):
    cases = {
        "unknown; expected scenes or voc_layout or": ("--dataset=scene",),
        "; did you mean scenes?": ("--dataset=scene",),
        "--dataset=voc_layout needs --voc_root": ("--dataset=voc_layout",),
        "no folder": ("--dataset=voc_layout", f"--voc_root={tmp_path / 'nothing'}"),
    }
    for message, flags in cases.items():
        done = prepare(*flags, f"--data_dir={tmp_path}")
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
        assert message in done.stderr


def test_voc2012_with_proposals_and_window_lists(rng, tmp_path):
    """The whole command on small archives in the official layout; again, it has nothing to do."""
    examples = voc_archives.random_examples(rng, scale=4)
    write_tar(tmp_path / VOC_FILE, voc_archives.voc_members(examples))
    write_tar(tmp_path / SBD_FILE, voc_archives.sbd_members(examples), compress=True)
    flags = ("--dataset=voc2012", f"--manual_dir={tmp_path}", f"--data_dir={tmp_path / 'tfds'}")
    refused = prepare(*flags)
    assert refused.returncode == 1
    assert "bytes, expected 1,999,639,040: the download is incomplete" in refused.stderr
    done = prepare(*flags, "--noverify", "--processes=1")
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()
    assert first[0] == "voc2012: 21 classes, images: train 3, train_aug 7, train_extra 4, trainval 5, val 2"
    assert len(first) == 6
    builder = prepare_voc2012(None, tmp_path / "tfds")
    assert {path.name for path in (builder.data_path / "proposals").iterdir()} == {
        "train.npz", "train_extra.npz", "val.npz",
    }  # fmt: skip
    folder = builder.data_path / "windows"
    assert {path.name for path in folder.iterdir()} == {
        f"{split}_{stage}.txt" for split in ("train_aug", "val") for stage in ("stage1", "stage2")
    }
    source = open_split(builder, "train_aug")
    listed, made = listed_windows(folder / "train_aug_stage1.txt", source), training_windows(source)
    np.testing.assert_array_equal(listed.images, made.images)
    assert np.abs(listed.boxes - made.boxes).max() <= 1
    assert len(listed_windows(folder / "train_aug_stage2.txt", source).images) > 0
    again = prepare("--dataset=voc2012", f"--data_dir={tmp_path / 'tfds'}")
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")
    config = default.get_config()
    config.data.update(dataset="voc2012", data_dir=str(tmp_path / "tfds"), windows=("proposal",))
    config.data.train_split = "trainval"
    proposals = dataset.proposals_of(config, builder, open_split(builder, "trainval"))
    assert len(proposals) == 5
    assert all(len(boxes) for boxes in proposals)


def write_voc2012(folder, rng):
    examples = voc_archives.random_examples(rng)
    write_tar(folder / VOC_FILE, voc_archives.voc_members(examples))
    return "--noverify", "--proposals="


def write_small_camvid(folder, rng):
    write_camvid(folder, rng, {"train": 2, "val": 1, "test": 1})
    return ()


FILES = {"voc2012": write_voc2012, "camvid": write_small_camvid}


@pytest.mark.parametrize("name", data.DOWNLOADED)
def test_every_downloaded_data_set_is_prepared_and_trained_on(name, rng, tmp_path):
    """What makes a data set's files in small, and the flags that they need, stands in FILES."""
    (tmp_path / "files").mkdir()
    flags = FILES[name](tmp_path / "files", rng)
    done = prepare(f"--dataset={name}", f"--manual_dir={tmp_path / 'files'}", f"--data_dir={tmp_path}", *flags)
    assert done.returncode == 0, done.stderr
    config = default.get_config()
    config.data.update(dataset=name, data_dir=str(tmp_path), windows=("image",))
    found = dataset.open_training_data(settings.checked(config), scored=True)
    assert str(found.builder.data_path) in done.stdout
    assert found.class_names == data.downloaded(name).class_names == tuple(found.builder.info.metadata["class_names"])
    assert found.config.model.num_classes == len(found.class_names)
    assert set(np.unique(found.trained[0].label)) <= {*range(len(found.class_names)), data.IGNORE}


def test_no_data_set_is_taken_for_another():
    config = default.get_config()
    config.data.dataset = "streets"
    for use in (settings.checked, dataset.class_names, dataset.open_dataset):
        with pytest.raises(InputError, match=r"'streets'.* expected one of .*voc2012, camvid"):
            use(config)


def test_names_with_blanks_and_lists_with_paths(tmp_path):
    """The list of windows for the original cannot hold such names; everything else can."""
    prepare("--dataset=scenes", f"--data_dir={tmp_path}", "--train_scenes=2", "--val_scenes=1")
    root, name = tmp_path / "scenes", "WhatsApp Image 2024 'a'\tb"
    for part, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"), ("SegmentationObject", ".png")):
        (root / part / f"train_0000{suffix}").rename(root / part / f"{name}{suffix}")
    shutil.copy(root / "JPEGImages/train_0001.jpg", root / "JPEGImages/unmasked.jpg")
    for split, names in (("train", (name, "train_0001")), ("test", ("unmasked",))):
        lines = "".join(f"/JPEGImages/{name}.jpg /SegmentationClass/{name}.png\n" for name in names)
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(lines, encoding="utf-16")
    (root / "ImageSets/Segmentation/trainval.txt").unlink()
    flags = (f"--voc_root={root}", f"--data_dir={tmp_path / 'tfds'}", "--proposals=train", "--method=grid")
    done = prepare("--dataset=voc_layout", *flags, "--processes=1")
    assert done.returncode == 0, done.stderr
    assert "images: train 2, val 1" in done.stdout
    assert f"no list train_stage2.txt: image '{name}' has a space in its name" in done.stdout
    assert "warning: split 'test' is left out: none of its 1 images has a mask" in done.stderr


def test_flags_without_meaning_are_refused(tmp_path):
    cases = {
        "--manual_dir has no meaning for --dataset=scenes, only for voc2012 and camvid": (
            "--dataset=scenes", "--manual_dir=x",
        ),
        "--seed has no meaning for --dataset=camvid": ("--dataset=camvid", "--seed=1"),
        "CamVid is not packed": ("--dataset=camvid",),
    }  # fmt: skip
    for message, flags in cases.items():
        done = prepare(*flags, f"--data_dir={tmp_path}")
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert message in done.stderr


def test_proposals_of_unknown_splits_and_methods(tmp_path):
    flags = ("--dataset=scenes", f"--data_dir={tmp_path}", "--train_scenes=1", "--val_scenes=1")
    for more, message in (
        (("--proposals=train,test",), "no split 'test' in voc_layout; there are"),
        (("--proposals=val", "--method=edges"), "method='edges': expected one of"),
    ):
        done = prepare(*flags, *more)
        assert done.returncode == 1
        assert message in done.stderr.splitlines()[-1]
    assert not list(tmp_path.rglob("*.partial"))
