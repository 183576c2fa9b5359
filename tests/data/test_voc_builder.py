"""The packed data equals the folder, is packed again when the folder changes, and never imports TensorFlow."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data import open_split, prepare_voc_layout, read_example, split_names
from deconvnet_jax.data.records import DatasetSplit, _read_ids, check_masks, ids_in_masks
from deconvnet_jax.errors import InputError


@pytest.fixture
def folder(scenes, tmp_path):
    """A copy of the scenes with two training images, which a test can change."""
    root = tmp_path / "VOC2012"
    shutil.copytree(scenes, root)
    for path in (root / "ImageSets/Segmentation").glob("*.txt"):
        path.unlink()
    (root / "ImageSets/Segmentation/train.txt").write_text("train_0003\ntrain_0001\n")
    return root


def build(folder):
    """Packs the folder; returns the builder and how many examples were packed."""
    seen = []
    builder = prepare_voc_layout(folder, folder.parent / "tfds", lambda done, total: seen.append((done, total)))
    return builder, len(seen)


def same(one, other):
    assert one.name == other.name
    for a, b in zip(one[1:], other[1:], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_round_trip_in_the_order_of_the_split(folder):
    builder, packed = build(folder)
    split = open_split(builder, "train")
    assert packed == len(split) == 2
    for i, name in enumerate(split_names(folder, "train")):
        same(split[i], read_example(folder, name, 6))
    same(split[-1], split[1])
    with pytest.raises(IndexError):
        split[2]
    assert [example.name for example in split] == ["train_0003", "train_0001"]
    assert builder.info.metadata["class_names"][1] == "leaf"


def test_reused_silently_and_rebuilt_after_a_change(folder, capfd):
    assert build(folder)[1] == 2
    assert build(folder)[1] == 0
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    path = folder / "SegmentationClass/train_0003.png"
    Image.fromarray(np.zeros_like(read_example(folder, "train_0003", 6).label)).save(path)
    builder, packed = build(folder)
    assert packed == 2
    assert not open_split(builder, "train")[0].label.any()
    (folder / "ImageSets/Segmentation/train.txt").write_text("train_0001\n")
    assert build(folder)[1] == 1


def first_label(folder):
    return open_split(build(folder)[0], "train")[0].label


def empty_mask(folder):
    return Image.fromarray(np.zeros_like(read_example(folder, "train_0003", 6).label))


def test_a_mask_in_a_linked_folder_was_edited(folder):
    masks = (folder / "SegmentationClass").rename(folder.parent / "disk")
    (folder / "SegmentationClass").symlink_to(masks)
    assert first_label(folder).any()
    empty_mask(folder).save(masks / "train_0003.png")
    assert not first_label(folder).any()


def test_a_mask_was_replaced_with_its_size_and_time_kept(folder):
    path = folder / "SegmentationClass/train_0003.png"
    empty_mask(folder).save(folder / "new.png")
    size = max(path.stat().st_size, (folder / "new.png").stat().st_size)
    for mask in (path, folder / "new.png"):
        mask.write_bytes(mask.read_bytes().ljust(size, b"\0"))  # Bytes after the end of a PNG do not matter.
    assert first_label(folder).any()
    status = path.stat()
    os.utime(folder / "new.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "new.png").replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert not first_label(folder).any()


def test_what_was_only_copied_or_touched_is_not_packed_again(folder):
    first, _ = build(folder)
    os.utime(folder / "SegmentationClass/train_0003.png")
    assert build(folder)[1] == 0
    shutil.move(folder, folder.parent / "elsewhere")
    shutil.copytree(folder.parent / "elsewhere", folder)
    again, packed = build(folder)
    assert (packed, again.data_path) == (0, first.data_path)
    (folder / "classes.txt").write_text("\n".join(f"class{i}" for i in range(6)))
    assert build(folder)[0].info.metadata["class_names"][1] == "class1"


def test_files_that_change_while_they_are_packed(folder):
    def change(done, total):
        empty_mask(folder).save(folder / "SegmentationClass/train_0003.png")

    with pytest.raises(InputError, match="files changed while they were packed; run the command again"):
        prepare_voc_layout(folder, folder.parent / "tfds", change)
    assert not first_label(folder).any()


def list_unmasked(folder):
    """Adds a split "test" of one photograph without a mask."""
    shutil.copy(folder / "JPEGImages/train_0001.jpg", folder / "JPEGImages/unmasked.jpg")
    (folder / "ImageSets/Segmentation/test.txt").write_text("unmasked\n")


def test_warnings_come_every_time(folder, capsys):
    list_unmasked(folder)
    path = folder / "SegmentationClass/train_0003.png"
    with Image.open(path) as mask:
        mask.putpalette(list(range(256)) * 3)
        mask.save(path)
    for _ in range(2):
        build(folder)
        left_out, palette = capsys.readouterr().err.splitlines()
        assert left_out.startswith("warning: split 'test' is left out: none of its 1 images has a mask")
        assert palette.startswith("warning: class id ")
        assert all(part in palette for part in ("palette", "train_0003.png", "train_0001.png"))
    with pytest.raises(InputError, match="there are train; 'test' is left out: none of its 1 images"):
        open_split(build(folder)[0], "test")


def test_without_instances_and_with_a_grey_image(folder):
    shutil.rmtree(folder / "SegmentationObject")
    path = folder / "JPEGImages/train_0001.jpg"
    Image.open(path).convert("L").save(path)
    example = open_split(build(folder)[0], "train")[1]
    assert example.instances is None
    np.testing.assert_array_equal(example.image[..., 0], example.image[..., 2])
    same(example, read_example(folder, "train_0001", 6))


@pytest.mark.parametrize("damage", ["truncate", "mask", "class"])
def test_a_bad_file_is_named_and_nothing_is_left(folder, damage):
    path = folder / ("JPEGImages/train_0001.jpg" if damage == "truncate" else "SegmentationClass/train_0001.png")
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "mask":
        path.unlink()
    else:
        (folder / "classes.txt").write_text("background\nleaf\n")
    with pytest.raises(InputError) as caught:
        build(folder)
    assert "\n" not in str(caught.value)
    assert ("unknown class ids" if damage == "class" else str(path)) in str(caught.value)
    assert not [path for path in (folder.parent / "tfds").rglob("*") if path.is_file()]


def test_splits(folder):
    list_unmasked(folder)
    (folder / "ImageSets/Segmentation/val.txt").write_text("train_0002\n")
    builder, _ = build(folder)
    assert sorted(builder.info.splits) == ["train", "val"]
    with pytest.raises(InputError, match="no split 'test' in voc_layout; there are train, val"):
        open_split(builder, "test")


def test_unusable_splits(folder):
    splits = folder / "ImageSets/Segmentation"
    (splits / "train.txt").rename(splits / "train-aug.txt")
    with pytest.raises(InputError, match=r"train-aug\.txt: .* rename the file"):
        build(folder)
    (splits / "train-aug.txt").write_text("nothing\n")
    with pytest.raises(InputError, match=r"train-aug\.txt: none of its 1 images has a photograph, .* delete the list"):
        build(folder)
    list_unmasked(folder)
    (splits / "train-aug.txt").unlink()
    with pytest.raises(InputError, match="no split whose images have masks"):
        build(folder)


def test_folder_that_cannot_be_written(folder):
    (folder.parent / "tfds").write_text("a file")
    with pytest.raises(InputError, match=r"tfds/.* could not be written \(Not a directory\)"):
        build(folder)


def test_tensorflow_is_never_imported(folder):
    code = (
        "import sys; from deconvnet_jax import data; assert 'grain' not in sys.modules;"
        "assert 'tensorflow_datasets' not in sys.modules;"
        f"split = data.open_split(data.prepare_voc_layout({str(folder)!r}, {str(folder.parent / 'tfds')!r}), 'train');"
        "next(data.training_batches(split, data.training_windows(split), batch_size=2));"
        "assert 'tensorflow' not in sys.modules; print(len(split))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_real_photographs(real_data, tmp_path):
    """Uses the VOC sample: 255 along borders, no instances, VOC's 21 classes."""
    root = real_data / "voc2012_sample/VOCdevkit/VOC2012"
    split = open_split(prepare_voc_layout(root, tmp_path), "train")
    names = split_names(root, "train")
    assert len(split) == len(names) == 22
    for i in (0, 21):
        same(split[i], read_example(root, names[i], 21))


def test_masks_of_0_and_255_are_an_error_with_the_remedy(folder):
    """Nothing can be learned from such masks, but every prediction would score 1.000."""
    files = sorted((folder / "SegmentationClass").glob("train_000[13].png"))
    assert len(files) == 2
    for path in files:
        Image.fromarray(np.uint8(np.array(Image.open(path)) > 0) * 255).save(path)
    with pytest.raises(
        InputError, match=r"split 'train' hold only 0 and 255, .*; expected class ids 0, 1, .*mask // 255"
    ):
        build(folder)
    assert not list((folder.parent / "tfds").rglob("*.array_record*"))
    Image.fromarray(np.array(Image.open(files[0])) // 255).save(
        files[0]
    )  # The other mask may hold only ignored pixels.
    assert build(folder)[1] == 2


def test_a_mask_with_a_wrong_checksum_is_refused(folder):
    path = folder / "SegmentationClass/train_0001.png"
    whole = path.read_bytes()
    place = whole.index(b"IDAT") + 40
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(InputError, match=r"train_0001\.png is not a complete image file"):
        build(folder)


def empty(folder, name):
    path = folder / f"SegmentationClass/{name}.png"
    Image.fromarray(np.zeros_like(np.array(Image.open(path)))).save(path)


def test_masks_of_one_class_are_refused_in_training_and_warned_of_elsewhere(folder):
    (folder / "ImageSets/Segmentation/val.txt").write_text("train_0002\n")
    empty(folder, "train_0002")
    said = []
    for _ in range(2):
        prepare_voc_layout(folder, folder.parent / "tfds", warn=said.append)
    assert said == ["the masks of the split 'val' show only 'background'; check them before training"] * 2
    for name in ("train_0001", "train_0003"):
        empty(folder, name)
    with pytest.raises(InputError, match=r"the masks of the split 'train' show only 'background' \(id 0\)"):
        build(folder)


def without_note_of_ids(builder):
    """Takes away what older versions did not store."""
    path = Path(builder.data_path) / "metadata.json"
    metadata = json.loads(path.read_text())
    stored = metadata.pop("ids_in_masks")
    path.write_text(json.dumps(metadata))
    (Path(builder.data_path) / "files.json").unlink()
    return stored


def test_the_masks_of_data_from_an_older_version_are_read(folder):
    """Such data was packed before masks of one class were refused."""
    (folder / "ImageSets/Segmentation/val.txt").write_text("train_0002\n")
    empty(folder, "train_0002")
    builder, _ = build(folder)
    noted = ids_in_masks(builder, "train")
    assert 0 in noted
    assert len(noted) > 2
    stored = without_note_of_ids(builder)
    assert stored == {"train": sorted(noted), "val": [0]}
    builder, packed = build(folder)
    assert packed == 0
    assert ids_in_masks(builder, "train") == noted
    assert ids_in_masks(builder, "val") == {0}
    check_masks(builder, "train")
    with pytest.raises(InputError, match=r"the masks of the split 'val' show only 'background'"):
        check_masks(builder, "val")


def test_all_masks_are_read_where_few_show_a_class():
    """One of 200 masks shows an object, and it is not among those that are looked at first."""

    class Source(DatasetSplit):
        def __init__(self, last):
            super().__init__([[None] * 200])
            self.last = last

        def label(self, index):
            return np.full((2, 2), self.last if index == 3 else 0, np.uint8)

    assert _read_ids(Source(2)) == {0, 2}
    assert _read_ids(Source(255)) == {0, 255}


def test_names_of_voc_for_other_data_are_warned_of(folder):
    (folder / "classes.txt").unlink()
    said = []
    prepare_voc_layout(folder, folder.parent / "tfds", warn=said.append)
    (warning,) = said
    assert re.match(rf"{folder} has no classes.txt, so its 21 classes have VOC's names \(\d+ '", warning)
    assert "write classes.txt with one name per line" in warning
    for part, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("SegmentationObject", "png")):
        for i in (1, 3):
            (folder / f"{part}/train_000{i}.{suffix}").rename(folder / f"{part}/2007_00000{i}.{suffix}")
    (folder / "ImageSets/Segmentation/train.txt").write_text("2007_000001\n2007_000003\n")
    prepare_voc_layout(folder, folder.parent / "tfds", warn=said.append)
    assert len(said) == 1  # These are names of VOC's photographs.


def test_ids_beyond_vocs_ask_for_classes(folder):
    (folder / "classes.txt").unlink()
    path = folder / "SegmentationClass/train_0001.png"
    Image.fromarray(np.array(Image.open(path)) + np.uint8(30)).save(path)
    with pytest.raises(
        InputError, match=r"unknown class ids 30, .*expected 0 to 20 .*without classes\.txt the classes"
    ):
        build(folder)
