"""Every way in which a folder can be wrong gives one clear line; masks are read as ids."""

import shutil
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data import VOC_CLASSES, UnlabelledSplit, class_names, has_no_masks, read_example, split_names
from deconvnet_jax.data.voc_layout import VocFolder, annotated_splits, split_files
from deconvnet_jax.errors import InputError

NAME = "a_1"
MASKS = "SegmentationClass"


@pytest.fixture
def root(tmp_path, rng):
    """A folder with one image of 20x30, classes 0..3, and its masks."""
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / f"JPEGImages/{NAME}.jpg")
    label = np.zeros((20, 30), np.uint8)
    label[5:10, 5:20], label[10:12] = 3, 255
    for folder, mask in (("SegmentationClass", label), ("SegmentationObject", np.uint8(label == 3))):
        save_palette(mask, tmp_path / folder / f"{NAME}.png")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text(f"{NAME}\n\n")
    (tmp_path / "classes.txt").write_text("background\none\ntwo\nthree\n")
    return tmp_path


def save_palette(mask, path):
    picture = Image.fromarray(mask)
    picture.putpalette(list(range(256)) * 3)  # colours that are not the ids
    picture.save(path)


def fails(root, *parts):
    """The message of reading the image; it is one line and has the parts."""
    with pytest.raises(InputError) as caught:
        read_example(root, NAME, 4)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_reads_ids_not_colours(root):
    example = read_example(root, NAME, 4)
    assert example.image.shape == (20, 30, 3)
    assert example.image.dtype == example.label.dtype == example.instances.dtype == np.uint8
    assert set(np.unique(example.label)) == {0, 3, 255}
    np.testing.assert_array_equal(example.instances, example.label == 3)


def test_instances_are_optional(root):
    for path in (root / "SegmentationObject").iterdir():
        path.unlink()
    (root / "SegmentationObject").rmdir()
    assert read_example(root, NAME, 4).instances is None


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_greyscale_masks_of_few_bits_keep_their_ids(root, bits):
    """Pillow spreads 2 and 4 bits over 0..255, which must be undone; PNG optimisers write such files."""
    ids = np.tile(np.arange(30, dtype=np.uint8) % min(2**bits, 4), (20, 1))
    (root / f"SegmentationClass/{NAME}.png").write_bytes(grey_png(ids, bits))
    np.testing.assert_array_equal(read_example(root, NAME, 4).label, ids)


def grey_png(ids, bits):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = ids.shape
    planes = np.unpackbits(ids[..., None], axis=-1)[..., -bits:].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in planes)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_jpeg_mask(root):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(root / f"SegmentationClass/{NAME}.png", "JPEG")
    fails(root, f"SegmentationClass/{NAME}.png", "JPEG", "save class ids")


def test_unknown_class(root):
    save_palette(np.full((20, 30), 7, np.uint8), root / f"SegmentationClass/{NAME}.png")
    fails(root, f"SegmentationClass/{NAME}.png", "class ids 7", "0 to 3", "classes.txt")


@pytest.mark.parametrize("folder", ["SegmentationClass", "SegmentationObject"])
def test_size_mismatch(root, folder):
    save_palette(np.zeros((30, 20), np.uint8), root / folder / f"{NAME}.png")
    fails(root, f"{folder}/{NAME}.png", "20x30", "30x20", "export both again")


@pytest.mark.parametrize("path", [f"SegmentationClass/{NAME}.png", f"JPEGImages/{NAME}.jpg"])
def test_missing_file(root, path):
    (root / path).unlink()
    fails(root, str(root / path), "out of the split")


def test_class_names(root):
    assert class_names(root) == ("background", "one", "two", "three")
    (root / "classes.txt").write_bytes("\ufeffbackground\r\nfirst class\r\n".encode())
    assert class_names(root) == ("background", "first class")
    (root / "classes.txt").unlink()
    assert class_names(root) == VOC_CLASSES
    assert (len(VOC_CLASSES), VOC_CLASSES[15]) == (21, "person")


@pytest.mark.parametrize("text", ["", "background\n", "background\na\na\n", "\n".join(map(str, range(256)))])
def test_bad_class_names(root, text):
    (root / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=r"classes\.txt: expected 2 to 255 different class names"):
        class_names(root)


def test_class_names_of_another_encoding(root):
    (root / "classes.txt").write_bytes("background\ncaf\u00e9".encode("latin-1"))
    with pytest.raises(InputError, match=r"classes\.txt cannot be read as UTF-8 text"):
        class_names(root)


def test_splits(root):
    assert split_names(root, "train") == [NAME]
    assert list(split_files(root)) == ["train"]
    with pytest.raises(InputError, match=r"val\.txt: there are train"):
        split_names(root, "val")
    (root / "ImageSets/Segmentation/train.txt").write_text("")
    with pytest.raises(InputError, match=r"train\.txt is empty"):
        split_names(root, "train")
    (root / "ImageSets/Segmentation/train.txt").write_text("b c\na\nb c\n")
    with pytest.raises(InputError, match="names 'b c' more than once"):
        split_names(root, "train")
    for name in ("/etc/passwd", "../../a", "b/../../../c"):
        (root / "ImageSets/Segmentation/train.txt").write_text(f"a\n{name}\n")
        with pytest.raises(InputError, match=f"names '{name}', which leads out of the folder"):
            split_names(root, "train")
    (root / "ImageSets/Segmentation/train.txt").write_text("set1/a..b\n")
    assert split_names(root, "train") == ["set1/a..b"]


def test_names_with_suffix(root):
    with pytest.raises(InputError, match="without the suffix"):
        read_example(root, f"{NAME}.jpg", 4)


def test_not_the_layout(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    with pytest.raises(InputError, match="has no JPEGImages, SegmentationClass, ImageSets/Segmentation; give"):
        class_names(outside)
    with pytest.raises(InputError, match="there is no folder"):
        class_names(outside / "nothing")
    root.rename(outside / "VOC2012")
    with pytest.raises(InputError, match=r"did you mean .*VOC2012"):
        class_names(outside)


# Splits: masks and photographs under other names are found or named, and none is left out without a word.


@pytest.fixture
def six(tmp_path):
    """im0 to im3 to train on, im4 and im5 to validate on; mask i is of class i % 3."""
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
    refused(six, f"{MASKS}/im0.png", f"there is {form.format('im0')}", "train.txt", "name files and images alike")
    with pytest.raises(InputError, match=r"im4\.png \(there is .*im4.*\); name files and images alike"):
        has_no_masks(six, "val")  # would be predicted without scores


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
        six, "split 'train', 2 of 4 images", "im1.png", f"it is a link to {six / 'nowhere.png'}, which is not there"
    )
    (six / "JPEGImages/im2.jpg").unlink()
    refused(six, f"no image {six}/JPEGImages/im2.jpg, although a split names it")


def test_splits_that_are_left_out_are_named(six):
    write_list(six, "test", "unknown1", "unknown2")
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(six / "JPEGImages/plain.jpg")
    write_list(six, "server", "plain")
    splits = found(six)
    assert sorted(splits.examples) == ["train", "val"]
    assert sorted(splits.left_out) == ["server", "test"]
    server, test = splits.warnings
    assert server.startswith("split 'server' is left out: none of its 1 images has a mask, for example no file ")
    assert test.startswith("split 'test' is left out: none of its 2 images has a photograph")
    assert "JPEGImages/unknown1.jpg" in test
    assert has_no_masks(six, "server")
    assert not has_no_masks(six, "train")
    assert [example.name for example in UnlabelledSplit(six, "server")] == ["plain"]


def test_a_list_in_an_unknown_encoding(six):
    (six / "ImageSets/Segmentation/train.txt").write_bytes("写真0\n写真1\n".encode("gb18030"))
    refused(six, "train.txt", "the list is not UTF-8 text: save it as such")


def test_a_list_that_names_masks_in_another_folder(six):
    write_list(six, "train", *(f"/JPEGImages/im{i}.jpg /SegmentationClassAug/im{i}.png" for i in range(4)))
    assert len(found(six).examples["train"]) == 4  # that folder was renamed
    (six / "SegmentationClassAug").mkdir()
    refused(six, "/SegmentationClassAug/im0.png", "rename the folder SegmentationClassAug to SegmentationClass")


def test_objects_of_some_images(six):
    """As VOC's object masks beside the class masks of SBD."""
    (six / "SegmentationObject").mkdir()
    shutil.copy(six / MASKS / "im1.png", six / "SegmentationObject/im1.png")
    splits = found(six)
    assert [files.instances is not None for files in splits.examples["train"]] == [False, True, False, False]
    (warning,) = splits.warnings
    assert warning.startswith("5 of 6 images have no mask in ")
    assert "SegmentationObject, among them 'im0': connected parts of a class are their objects" in warning
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
