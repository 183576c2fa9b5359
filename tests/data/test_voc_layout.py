"""Every mistake in a folder gives a message of one clear line, and masks are read as ids."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data import VOC_CLASSES, class_names, read_example, split_names
from deconvnet_jax.data.voc_layout import split_files
from deconvnet_jax.errors import InputError

NAME = "a_1"


@pytest.fixture
def root(tmp_path, rng):
    """A folder with one image of 20x30 pixels, its masks, and the classes 0 to 3."""
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
    picture.putpalette(list(range(256)) * 3)  # The colours differ from the ids.
    picture.save(path)


def fails(root, *parts):
    """Checks that reading the image fails with a message of one line that has these parts."""
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
    """Pillow scales 2 and 4 bits to 0..255, which must be undone. PNG optimisers write such files."""
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
    fails(root, str(root / path), "from the split file")


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
    with pytest.raises(InputError, match=r"classes\.txt has .* different; expected 2 to 255 different class names"):
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
    with pytest.raises(InputError, match=r"^no folder .*nothing; give the folder that holds"):
        class_names(outside / "nothing")
    root.rename(outside / "VOC2012")
    with pytest.raises(InputError, match=r"did you mean .*VOC2012"):
        class_names(outside)
