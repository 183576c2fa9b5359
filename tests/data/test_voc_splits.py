"""Masks and photographs under other names are found or named, and no split is left out without a message."""

import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data import UnlabelledSplit, has_no_masks, read_example
from deconvnet_jax.data.voc_layout import VocFolder
from deconvnet_jax.data.voc_splits import annotated_splits
from deconvnet_jax.errors import InputError

MASKS = "SegmentationClass"


@pytest.fixture
def six(tmp_path):
    """A folder that trains on im0 to im3 and validates on im4 and im5; mask i shows class i % 3."""
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", MASKS, "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for i in range(6):
        Image.fromarray(np.full((9, 12, 3), 9 * i, np.uint8)).save(root / f"JPEGImages/im{i}.jpg")
        Image.fromarray(np.full((9, 12), i % 3, np.uint8)).save(root / MASKS / f"im{i}.png")
    write_list(root, "train", *(f"im{i}" for i in range(4)))
    write_list(root, "val", "im4", "im5")
    return root


def write_list(root, split, *names):
    (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names) + "\n")


def rename(folder, form):
    for path in list(folder.iterdir()):
        target = folder / form.format(path.stem)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)


def found(root):
    return annotated_splits(VocFolder(root))


def refused(root, *parts):
    with pytest.raises(InputError) as caught:
        found(root)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("form", ["{}.png", "{}.PNG", "{}.jpg.png", "{}.JPG.png", "{}.Png"])
def test_masks_that_are_clear_are_read(six, form):
    rename(six / MASKS, form)
    assert {split: [files.name for files in members] for split, members in found(six).examples.items()} == {
        "train": ["im0", "im1", "im2", "im3"],
        "val": ["im4", "im5"],
    }
    assert read_example(six, "im2", 3).label.max() == 2


@pytest.mark.parametrize("form", ["{}_mask.png", "seg-{}.png", "masks/{}.png", "{}.bmp", "{}.tif"])
def test_masks_under_other_names_are_named(six, form):
    rename(six / MASKS, form)
    refused(six, f"{MASKS}/im0.png", f"there is {form.format('im0')}", "train.txt", "use the same name in the list")
    with pytest.raises(InputError, match=r"im4\.png \(there is .*im4.*\); use the same name in the list"):
        has_no_masks(six, "val")  # Otherwise it would be predicted without scores.


@pytest.mark.parametrize("form", ["{}.bmp", "photo-{}.jpg", "batch1/{}.jpg"])
def test_photographs_under_other_names_are_named(six, form):
    rename(six / "JPEGImages", form)
    refused(six, "JPEGImages/im0.jpg", f"there is {form.format('im0')}", "split 'train', 4 of 4")


def test_names_in_other_unicode_forms(six):
    composed, apart = (unicodedata.normalize(form, "Straße é") for form in ("NFC", "NFD"))
    for folder, suffix, name in (("JPEGImages", ".jpg", composed), (MASKS, ".png", apart)):
        (six / folder / f"im1{suffix}").rename(six / folder / f"{name}{suffix}")
    write_list(six, "train", "im0", apart.upper())
    files = found(six).examples["train"][1]
    assert (files.image.stem, files.label.stem) == (composed, apart)
    assert read_example(six, apart, 3).label.max() == 1


def test_some_masks_are_missing(six):
    (six / MASKS / "im1.png").unlink()
    refused(six, f"no file {six / MASKS}/im1.png, the class mask of image 'im1'")
    (six / MASKS / "im3.png").rename(six / MASKS / "im3_label.png")
    (six / MASKS / "im1.png").symlink_to(six / "nowhere.png")
    refused(
        six, "split 'train', 2 of 4 images", "im1.png", f"it is a link to {six / 'nowhere.png'}, which does not exist"
    )
    (six / "JPEGImages/im2.jpg").unlink()
    refused(six, f"no image {six}/JPEGImages/im2.jpg, although a split names it")


def test_splits_that_are_left_out_are_named(six):
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(six / "JPEGImages/plain.jpg")
    write_list(six, "server", "plain")
    splits = found(six)
    assert sorted(splits.examples) == ["train", "val"]
    assert sorted(splits.left_out) == ["server"]
    (server,) = splits.warnings
    assert server.startswith("split 'server' is left out: none of its 1 images has a mask, for example no file ")
    assert has_no_masks(six, "server")
    assert not has_no_masks(six, "train")
    assert [example.name for example in UnlabelledSplit(six, "server")] == ["plain"]


def test_a_list_of_photographs_without_masks_must_name_existing_ones(six):
    for name in ("plain1", "plain2"):
        Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(six / f"JPEGImages/{name}.jpg")
    write_list(six, "server", "plain1", "gone1", "plain2", "gone2")
    refused(six, "split 'server', 2 of 4 images: no image ", "JPEGImages/gone1.jpg, although a split names it")
    with pytest.raises(InputError, match=r"split 'server', 2 of 4 images: no image .*gone1\.jpg"):
        UnlabelledSplit(six, "server")


NAMES = [f"im{i}" for i in range(4)]


@pytest.mark.parametrize(
    "content",
    [
        b"".join(b"%s.jpg\r\n" % name.encode() for name in NAMES),
        b"\xef\xbb\xbf" + "\n".join(NAMES).encode(),
        "\r\n".join(NAMES).encode("utf-16"),
        "\n".join(f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in NAMES).encode(),
        "\n".join(f"C:\\photos\\JPEGImages\\{name}.jpg" for name in NAMES).encode(),
    ],
    ids=["suffixes and CRLF", "BOM", "UTF-16", "DeepLab", "Windows"],
)
def test_lists_in_other_forms_are_read(six, content):
    (six / "ImageSets/Segmentation/train.txt").write_bytes(content)
    assert [files.name for files in found(six).examples["train"]] == NAMES


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"a\nb\n", ("none of its 2 images has a photograph", "no file", "JPEGImages/a.jpg;", "or delete the list")),
        (b"a.jpg\nb.jpg\n", ("none of its 2 images has a photograph", "JPEGImages/a.jpg;")),
        (b"im0 -1\nim1 -1\n", ("line 1: 'im0 -1' has a class flag (-1, 0 or 1)", "keep only the names that belong")),
        (
            b"im0,im1,im2\n",
            ("none of its 1 images has a photograph", "write the names of files in JPEGImages, one per"),
        ),
        (b"/JPEGImages/x.jpg /SegmentationClassAug/x.png\n", ("JPEGImages/x.jpg;", "write the names of files")),
        (b"", ("is empty", "write those of the split")),
        (b" \r\n# none\n", ("is empty",)),
        (
            b"im0\nim1\x01\n",
            ("is no text, its line 'im1\\x01' has control characters", "in UTF-8: write the list"),
        ),
        (bytes(range(256)), ("is no text",)),
    ],
)
def test_a_list_that_names_nothing_is_refused(six, content, parts):
    """Such a split must not vanish, whatever the other splits are."""
    (six / "ImageSets/Segmentation/train.txt").write_bytes(content)
    refused(six, "train.txt", *parts)


def test_a_list_in_an_unknown_encoding(six):
    (six / "ImageSets/Segmentation/train.txt").write_bytes("写真0\n写真1\n".encode("gb18030"))
    refused(six, "train.txt", "the list is not UTF-8 text: save it as UTF-8")


def test_a_list_that_names_masks_in_another_folder(six):
    write_list(six, "train", *(f"/JPEGImages/im{i}.jpg /SegmentationClassAug/im{i}.png" for i in range(4)))
    assert len(found(six).examples["train"]) == 4  # That folder was renamed.
    (six / "SegmentationClassAug").mkdir()
    refused(six, "/SegmentationClassAug/im0.png", "rename the folder SegmentationClassAug to SegmentationClass")


def test_objects_of_some_images(six):
    """Covers VOC's object masks beside the class masks of SBD."""
    (six / "SegmentationObject").mkdir()
    shutil.copy(six / MASKS / "im1.png", six / "SegmentationObject/im1.png")
    splits = found(six)
    assert [files.instances is not None for files in splits.examples["train"]] == [False, True, False, False]
    (warning,) = splits.warnings
    assert warning.startswith("5 of 6 images have no mask in ")
    assert "SegmentationObject, among them 'im0': connected parts of a class count as their objects" in warning
    assert read_example(six, "im0", 3).instances is None
    assert read_example(six, "im1", 3).instances.max() == 1


@pytest.mark.parametrize("part", ["JPEGImages", MASKS, "ImageSets", "ImageSets/Segmentation"])
def test_linked_folders(six, part, tmp_path):
    (six / part).rename(tmp_path / "disk")
    (six / part).symlink_to(tmp_path / "disk")
    assert len(found(six).examples["train"]) == 4
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    refused(six, "is not a folder in the VOC layout", f"leads to {tmp_path / 'disk'}" if part != "ImageSets" else "")


def test_hidden_and_other_files_are_no_lists(six):
    (six / "ImageSets/Segmentation/._train.txt").write_bytes(b"\0\5\x16\7")
    (six / "ImageSets/Segmentation/notes.md").write_text("notes")
    (six / "ImageSets/Segmentation/old.txt").mkdir()
    assert sorted(found(six).examples) == ["train", "val"]
