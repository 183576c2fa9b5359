"""Exports of annotation tools become the masks that were drawn, pixel by pixel, completely or not at all."""

import json
import os

import mask_exports
import numpy as np
import pytest
from mask_exports import (
    CLASSES,
    COLORS,
    HEIGHT,
    NAMED,
    NAMES,
    WIDTH,
    check,
    colored,
    drawn,
    indexed,
    load,
    objects,
    plain,
    refused,
    save,
    write_photographs,
)
from PIL import Image

from deconvnet_jax.data import (
    MaskPairing,
    MaskReading,
    class_names,
    open_split,
    prepare_voc_layout,
    read_example,
    split_names,
)

# The formats.


def test_ids(tmp_path):
    done = []
    summary = load(tmp_path, plain(tmp_path), NAMED, progress=lambda *counts: done.append(counts))
    check(tmp_path)
    root = tmp_path / "out"
    assert class_names(root) == summary.classes == CLASSES
    assert (summary.kind, summary.sources, summary.has_objects) == ("ids", ("0", "1", "2"), False)
    assert not (root / "SegmentationObject").exists()
    assert done == [(i, 5) for i in range(1, 6)]
    assert [len(split_names(root, split)) for split in ("train", "val", "trainval")] == [4, 1, 5]
    assert sorted(split_names(root, "trainval")) == list(NAMES)
    assert (root / "JPEGImages/a.jpg").read_bytes() == (tmp_path / "photos/a.jpg").read_bytes()
    pixels = [sum(split.classes[i].pixels for split in summary.splits.values()) for i in range(3)]
    assert pixels == [sum(int((drawn(n) == i).sum()) for n in range(5)) for i in range(3)]
    assert [split.images for split in summary.splits.values()] == [4, 1]


@pytest.mark.parametrize(
    "form",
    [
        lambda i: drawn(i).astype(np.uint16),  # 16 bits
        indexed,
        lambda i: np.repeat(drawn(i)[..., None], 3, axis=2),  # grey stored as RGB, as Supervisely's machine masks
        lambda i: np.dstack([*[drawn(i)] * 3, np.full((HEIGHT, WIDTH), 255, np.uint8)]),  # opaque RGBA
    ],
    ids=["16 bits", "palette", "grey RGB", "opaque RGBA"],
)
def test_pictures_that_hold_ids(tmp_path, form):
    load(tmp_path, plain(tmp_path, form), NAMED)
    check(tmp_path)


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".gif", ".ppm"])
def test_lossless_formats(tmp_path, suffix):
    load(tmp_path, plain(tmp_path, suffix=suffix), NAMED)
    check(tmp_path)


def test_ids_with_gaps_and_ignored_pixels(tmp_path):
    values = np.array([7, 0, 11, 255], np.uint8)

    def masks(i):
        label = drawn(i)
        label[-1, -1] = 3
        return values[label]

    reading = MaskReading(names=["11=dog", "7=_background_", "0=cat"])
    summary = load(tmp_path, plain(tmp_path, masks), reading)
    assert summary.classes == ("background", "dog", "cat")
    assert summary.sources == ("7", "11", "0")
    assert sum(split.ignored_pixels for split in summary.splits.values()) == 5
    ids = np.array([0, 2, 1, 255], np.uint8)

    def expected(i):
        label = drawn(i)
        label[-1, -1] = 3
        return ids[label]

    check(tmp_path, labels=expected)


@pytest.mark.parametrize("form", ["RGB", "palette", "RGBA"])
@pytest.mark.parametrize("header", ["name,r,g,b\n", "Name; R; G; B\n", ""])
def test_colours(tmp_path, form, header):
    def masks(i):
        image = Image.fromarray(colored(drawn(i)))
        return image.quantize(4) if form == "palette" else image.convert(form)

    source = plain(tmp_path, masks)
    separator = ";" if ";" in header else ","
    lines = [separator.join(map(str, (name, *color))) for name, color in COLORS.items()]
    (tmp_path / "colours.csv").write_text(header + "\n".join(lines) + "\n")
    summary = load(tmp_path, source, MaskReading(classes=tmp_path / "colours.csv"))
    check(tmp_path)
    assert summary.kind == "colours"
    assert summary.sources == ("0,0,0", "140,120,240", "250,50,83")


@pytest.mark.parametrize("white", [255, 1])
@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P"])
def test_binary(tmp_path, white, mode):
    image = lambda i: Image.fromarray((drawn(i) == 1).astype(np.uint8) * (255 if mode == "1" else white))  # noqa: E731
    source = plain(tmp_path, lambda i: image(i).convert(mode))
    summary = load(tmp_path, source, MaskReading(binary="cat"))
    assert summary.classes == ("background", "cat")
    check(tmp_path, labels=lambda i: (drawn(i) == 1).astype(np.uint8))


def test_threshold(tmp_path):
    source = plain(tmp_path, lambda i: (drawn(i) == 1).astype(np.uint8) * 128 + (drawn(i) == 2).astype(np.uint8) * 127)
    refused(tmp_path, source, "3 numbers: 0, 127, 128", "--threshold=128", reading=MaskReading(binary="cat"))
    load(tmp_path, source, MaskReading(binary="cat", threshold=128))
    check(tmp_path, labels=lambda i: (drawn(i) == 1).astype(np.uint8))


@pytest.mark.parametrize("with_images", [True, False])
@pytest.mark.parametrize("background_last", [True, False])
def test_cvat(tmp_path, with_images, background_last):
    summary = load(tmp_path, mask_exports.cvat(tmp_path, background_last, with_images))
    check(tmp_path, with_objects=True)
    assert summary.classes == CLASSES
    assert summary.divided == "val=0.2, seed 0"
    assert sum(count.objects for split in summary.splits.values() for count in split.classes) == 12


def test_the_folder_of_masks_in_an_export_of_cvat(tmp_path):
    mask_exports.cvat(tmp_path)
    load(tmp_path, {"images": tmp_path / "cvat/JPEGImages", "masks": tmp_path / "cvat/SegmentationClass"})
    check(tmp_path, with_objects=True)


def test_cvat_with_lists_of_subsets(tmp_path):
    source = mask_exports.cvat(tmp_path)
    lists = tmp_path / "cvat/ImageSets/Segmentation"
    (lists / "default.txt").unlink()
    (lists / "Train.txt").write_text("d\nb\n")
    (lists / "Validation.txt").write_text("a\n")
    summary = load(tmp_path, source)
    assert split_names(tmp_path / "out", "train") == ["b", "d"]
    assert split_names(tmp_path / "out", "val") == ["a"]
    assert "2 of 5 images are in no list and left out" in summary.warnings


def test_grey_masks_of_cvat_hold_line_numbers(tmp_path):
    source = mask_exports.cvat(tmp_path, background_last=False)
    for i, name in enumerate(NAMES):
        save(tmp_path / f"cvat/SegmentationClass/{name}.png", drawn(i))
    refused(tmp_path, source, "colour (2, 2, 2) at", "labelmap.txt", "--kind=ids")
    load(tmp_path, source, MaskReading(kind="ids"))
    check(tmp_path, with_objects=True)


def test_roboflow(tmp_path):
    summary = load(tmp_path, mask_exports.roboflow(tmp_path))
    check(tmp_path, "{}_jpg.rf.0123456789".format)
    assert {split: count.images for split, count in summary.splits.items()} == {"train": 3, "val": 1, "test": 1}
    assert summary.divided == "by the folders train, val, test"
    assert len(split_names(tmp_path / "out", "trainval")) == 4


def test_labelme(tmp_path):
    summary = load(tmp_path, mask_exports.labelme(tmp_path))
    check(tmp_path, with_objects=True)
    assert (summary.kind, summary.classes, summary.sources) == ("labelme", CLASSES, CLASSES)
    assert "shapes without an area are left out: 4 linestrip" in summary.warnings


def test_labelme_of_images_without_shapes(tmp_path):
    """labelme writes no file for an image without annotation."""
    source = mask_exports.labelme(tmp_path)
    (tmp_path / "labelme/e.json").unlink()
    refused(tmp_path, source, "1 of 5 images have no mask", "e.jpg", "--unmatched=skip", "background")
    load(tmp_path, source, pairing=MaskPairing(unmatched="background"))
    check(tmp_path, with_objects=True)


def test_supervisely(tmp_path):
    summary = load(tmp_path, mask_exports.supervisely(tmp_path))
    root = tmp_path / "out"
    assert class_names(root) == ("background", "dog", "cat")  # In the order of meta.json.
    check(tmp_path, labels=lambda i: np.array([0, 2, 1], np.uint8)[drawn(i)], with_objects=True)
    assert summary.has_objects
    assert summary.warnings == ()


def test_cityscapes(tmp_path):
    write_photographs(tmp_path / "leftImg8bit/train/aachen", ["aachen_0_leftImg8bit", "aachen_1_leftImg8bit"], ".png")
    write_photographs(tmp_path / "leftImg8bit/val/bonn", ["bonn_0_leftImg8bit"], ".png")
    for i, name in enumerate(("train/aachen/aachen_0", "train/aachen/aachen_1", "val/bonn/bonn_0")):
        save(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", drawn(i))
        save(tmp_path / f"gtFine/{name}_gtFine_color.png", colored(drawn(i)))
        (tmp_path / f"gtFine/{name}_gtFine_polygons.json").write_text("{}")
    source = {"images": tmp_path / "leftImg8bit", "masks": tmp_path / "gtFine"}
    load(tmp_path, source, NAMED, MaskPairing("_gtFine_labelIds", "_leftImg8bit"))
    assert split_names(tmp_path / "out", "train") == ["aachen_0", "aachen_1"]
    np.testing.assert_array_equal(read_example(tmp_path / "out", "bonn_0", 3).label, drawn(2))


def test_what_training_reads(tmp_path):
    load(tmp_path, mask_exports.cvat(tmp_path))
    train = open_split(prepare_voc_layout(tmp_path / "out", tmp_path / "tfds"), "train")
    assert sorted(example.name for example in train) == split_names(tmp_path / "out", "train")
    for example in train:
        np.testing.assert_array_equal(example.instances, objects(NAMES.index(example.name)))


def test_photographs_in_other_formats_become_png(tmp_path):
    write_photographs(tmp_path / "photos", suffix=".tif")
    for i, name in enumerate(NAMES):
        save(tmp_path / f"masks/{name}.png", drawn(i))
    load(tmp_path, {"images": tmp_path / "photos", "masks": tmp_path / "masks"}, NAMED)
    with Image.open(tmp_path / "photos/a.tif") as photograph:
        np.testing.assert_array_equal(read_example(tmp_path / "out", "a", 3).image, np.array(photograph))


# Damaged and odd files.


def test_lossy_masks(tmp_path):
    source = plain(tmp_path, suffix=".jpg")
    refused(tmp_path, source, "a.jpg is a mask in JPEG, which is lossy", "export the masks again as PNG", reading=NAMED)


def test_truncated_mask(tmp_path):
    source = plain(tmp_path)
    path = tmp_path / "masks/c.png"
    path.write_bytes(path.read_bytes()[:60])
    refused(tmp_path, source, str(path), "not a complete image file", reading=NAMED)


def test_antialiased_transparency(tmp_path):
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[..., 3] = 100
    refused(tmp_path, plain(tmp_path, lambda _: rgba), "768 pixels that are partly transparent", reading=NAMED)


def test_other_size(tmp_path):
    source = plain(tmp_path)
    save(tmp_path / "masks/b.png", drawn(1)[:, :-2])
    refused(tmp_path, source, "masks/b.png is 30x24 pixels", "photos/b.jpg is 32x24", "export both", reading=NAMED)


def test_photograph_turned_by_exif(tmp_path):
    source = plain(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "photos/b.jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8), exif=exif)
    summary = load(tmp_path, source, NAMED)
    assert any("1 of 5 images have an EXIF orientation" in warning for warning in summary.warnings)
    save(tmp_path / "masks/b.png", drawn(1).T.copy())
    refused(tmp_path, source, "b.png is 24x32", "EXIF orientation is not applied", output="again", reading=NAMED)


def test_hidden_files_and_those_of_systems(tmp_path):
    source = plain(tmp_path)
    for folder in ("photos", "masks"):
        for name in ("._a.jpg", ".hidden/b.png", "__MACOSX/a.png", "Thumbs.db"):
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"\0\5\x16\7")
    load(tmp_path, source, NAMED)
    check(tmp_path)


def test_names_with_blanks_and_accents(tmp_path):
    names = ("my photo", "caf\u00e9", "#1", "a,b", "x (1)")
    source = plain(tmp_path, names=names)
    os.rename(tmp_path / "masks/caf\u00e9.png", tmp_path / "masks/cafe\u0301.png")  # as macOS stores it
    load(tmp_path, source, NAMED)
    check(tmp_path, dict(zip(NAMES, names, strict=True)).__getitem__)
    assert sorted(split_names(tmp_path / "out", "trainval")) == sorted(names)


def test_names_that_are_not_utf_8(tmp_path):
    source = plain(tmp_path)
    for folder, suffix in (("photos", b".jpg"), ("masks", b".png")):
        place = os.fsencode(tmp_path / folder)
        os.rename(place + b"/a" + suffix, place + b"/caf\xe9" + suffix)
    refused(tmp_path, source, "one line of UTF-8 text", "rename the image and its mask", reading=NAMED)


def test_same_names_in_different_folders(tmp_path):
    for i, name in enumerate(("one/a", "one/b", "two/a", "two/c", "d")):
        write_photographs(tmp_path / "photos", [name])
        save(tmp_path / f"masks/{name}.png", drawn(i))
    load(tmp_path, {"images": tmp_path / "photos", "masks": tmp_path / "masks"}, NAMED)
    new = {"a": "one_a", "b": "one_b", "c": "two_a", "d": "two_c", "e": "d"}
    check(tmp_path, new.__getitem__)


# The output.


def test_output_that_exists(tmp_path):
    source = plain(tmp_path)
    load(tmp_path, source, NAMED)
    before = (tmp_path / "out/classes.txt").stat().st_mtime_ns
    refused(tmp_path, source, "out holds files already", reading=NAMED)
    assert (tmp_path / "out/classes.txt").stat().st_mtime_ns == before
    refused(tmp_path, source, "--output", "is a file", output="out/classes.txt", reading=NAMED)


def test_output_in_an_input(tmp_path):
    source = plain(tmp_path)
    for output, flag in (("photos/voc", "--images"), ("masks", "holds files"), ("masks/deeper/voc", "--masks")):
        refused(tmp_path, source, flag, output=output, reading=NAMED)


def test_empty_output(tmp_path):
    (tmp_path / "out").mkdir()
    before = (tmp_path / "out").stat().st_ino
    load(tmp_path, plain(tmp_path), NAMED)
    assert (tmp_path / "out").stat().st_ino == before
    check(tmp_path)


def test_interrupted(tmp_path):
    source = plain(tmp_path)

    def stop(done, _):
        if done == 3:
            raise KeyboardInterrupt

    before = set(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, source, NAMED, progress=stop)
    assert set(tmp_path.rglob("*")) == before


def test_coco_files_are_recognised(tmp_path):
    write_photographs(tmp_path / "photos")
    (tmp_path / "photos/all.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    refused(tmp_path, {"images": tmp_path / "photos", "masks": None}, "all.json", "experiments.import_coco")


def test_the_folder_that_labelme2voc_writes(tmp_path):
    folder = tmp_path / "data_dataset_voc"
    write_photographs(folder / "JPEGImages")
    write_photographs(folder / "SegmentationClassVisualization")
    (folder / "class_names.txt").write_text("_background_\ncat\ndog")
    for i, name in enumerate(NAMES):
        save(folder / f"SegmentationClass/{name}.png", indexed(i))
        save(folder / f"SegmentationObject/{name}.png", objects(i))
    load(tmp_path, {"images": folder, "masks": None})
    check(tmp_path, with_objects=True)
