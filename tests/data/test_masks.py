"""Exports of annotation tools become the masks that were drawn, pixel by pixel; what is unclear is refused."""

import json
import os

import mask_exports
import numpy as np
import pytest
from mask_exports import COLORS, HEIGHT, NAMES, WIDTH, colored, drawn, objects, plain, save, write_photographs
from PIL import Image

from deconvnet_jax.data import (
    MaskDivision,
    MaskPairing,
    MaskReading,
    class_names,
    import_masks,
    open_split,
    prepare_voc_layout,
    read_example,
    split_names,
)
from deconvnet_jax.errors import InputError

CLASSES = ("background", "cat", "dog")
NAMED = MaskReading(names=CLASSES)


def load(root, source, reading=None, pairing=None, division=None, **more):
    """Imports into ROOT/out, without a warning about rare classes."""
    return import_masks(source["images"], source["masks"], root / "out", reading, pairing, division, **more)


def refused(root, source, *parts, output="out", **options):
    """Asserts that an import fails with one line that has these parts, and writes nothing."""
    before = set(root.rglob("*"))
    with pytest.raises(InputError) as caught:
        import_masks(source["images"], source["masks"], root / output, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message, message
    assert set(root.rglob("*")) == before
    return message


def check(root, renamed=str, labels=drawn, with_objects=False):
    """Asserts that ROOT/out holds the masks of all pictures."""
    for i, name in enumerate(NAMES):
        example = read_example(root / "out", renamed(name), len(class_names(root / "out")))
        np.testing.assert_array_equal(example.label, labels(i))
        if with_objects:
            np.testing.assert_array_equal(example.instances, objects(i))
        else:
            assert example.instances is None


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


def indexed(i):
    image = Image.fromarray(drawn(i))
    image.putpalette([channel for color in COLORS.values() for channel in color])
    return image


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


@pytest.mark.parametrize("suffix", [".bmp", ".tif", ".gif"])
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
    assert summary.divided == "val=0.2 of the training images, seed 0"
    assert sum(count.objects for split in summary.splits.values() for count in split.classes) == 12


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
    refused(tmp_path, source, "1 image of 5 without a mask", "e.jpg", "--unmatched=skip", "background")
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


# Classes.


def test_ignored_classes(tmp_path):
    summary = load(tmp_path, plain(tmp_path), NAMED._replace(ignore=["cat"]))
    assert summary.classes == ("background", "dog")
    check(tmp_path, labels=lambda i: np.array([0, 255, 1], np.uint8)[drawn(i)])


def test_without_background(tmp_path):
    summary = load(tmp_path, plain(tmp_path), MaskReading(names=["sky", "cat", "dog"]))
    assert summary.classes == ("sky", "cat", "dog")
    assert any(
        warning.startswith("no class is called background, so 'sky' has the id 0") for warning in summary.warnings
    )


@pytest.mark.parametrize(("unknown", "becomes"), [("ignore", 255), ("background", 0)])
def test_unknown_pixels(tmp_path, unknown, becomes):
    source = plain(tmp_path)
    reading = MaskReading(names=["background", "cat"])
    refused(tmp_path, source, "a.png has the number 2 at 45 pixels", "--names", "--unknown=ignore", reading=reading)
    load(tmp_path, source, reading._replace(unknown=unknown))
    check(tmp_path, labels=lambda i: np.array([0, 1, becomes], np.uint8)[drawn(i)])


def test_unknown_colours(tmp_path):
    source = mask_exports.cvat(tmp_path)
    mask = colored(drawn(1))
    mask[0, :3], mask[0, 5] = (1, 2, 3), (4, 5, 6)
    save(tmp_path / "cvat/SegmentationClass/b.png", mask)
    refused(
        tmp_path, source, "SegmentationClass/b.png has the colour (1, 2, 3) at 3 pixels and 1 other", "labelmap.txt"
    )
    load(tmp_path, source, MaskReading(unknown="ignore"))
    assert (read_example(tmp_path / "out", "b", 3).label == 255).sum() == 4


def test_transparent_pixels(tmp_path):
    def masks(i):
        rgba = np.dstack([colored(drawn(i)), np.full((HEIGHT, WIDTH), 255, np.uint8)])
        rgba[-1, :4, 3] = 0
        return rgba

    source = plain(tmp_path, masks)
    (tmp_path / "colours.csv").write_text("background,0,0,0\ncat,140,120,240\ndog,250,50,83\n")
    reading = MaskReading(classes=tmp_path / "colours.csv")
    refused(tmp_path, source, "a.png has 4 transparent pixels without a class", "--unknown=ignore", reading=reading)
    load(tmp_path, source, reading._replace(unknown="ignore"))
    assert (read_example(tmp_path / "out", "a", 3).label == 255).sum() == 4


def test_palette_with_transparency_holds_ids(tmp_path):
    source = plain(tmp_path, indexed)
    for i, name in enumerate(NAMES):
        save(tmp_path / f"masks/{name}.png", indexed(i), transparency=0)
    load(tmp_path, source, NAMED)
    check(tmp_path)


def test_labels_of_labelme(tmp_path):
    """labels.txt of labelme begins with names that are no classes."""
    source = mask_exports.labelme(tmp_path)
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\n")
    summary = load(tmp_path, source, MaskReading(classes=tmp_path / "labels.txt"))
    assert summary.classes == ("background", "dog", "cat")
    check(tmp_path, labels=lambda i: np.array([0, 2, 1], np.uint8)[drawn(i)], with_objects=True)


def test_shapes_of_unknown_classes(tmp_path):
    source = mask_exports.labelme(tmp_path)
    reading = MaskReading(names=["cat", "dgo"])
    refused(tmp_path, source, "a.json: shapes[1] has the class 'dog'", "did you mean dgo?", reading=reading)
    load(tmp_path, source, reading._replace(unknown="ignore"))
    assert read_example(tmp_path / "out", "a", 3).label[4, 12] == 255
    assert read_example(tmp_path / "out", "a", 3).instances[4, 12] == 255


# What is asked for.


@pytest.mark.parametrize(
    ("masks", "parts"),
    [
        (lambda i: (drawn(i) == 1).astype(np.uint8) * 255, ("the masks hold only 0 and 255", "--binary=NAME")),
        (lambda i: (drawn(i) == 1).astype(np.uint8), ("the masks hold only 0 and 1", "--binary=NAME")),
        (lambda i: drawn(i) * 3, ("the masks hold the numbers 0, 3, 6", "--names=0=NAME,3=NAME,6=NAME")),
        (lambda i: colored(drawn(i)), ("(0, 0, 0), (140, 120, 240), (250, 50, 83)", "--classes=FILE", "name,r,g,b")),
        (
            lambda i: (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 200).astype(np.uint8),
            ("the masks hold 200 numbers: 0, 1,", "--binary=NAME --threshold=128"),
        ),
    ],
)
def test_flags_that_are_missing(tmp_path, masks, parts):
    refused(tmp_path, plain(tmp_path, masks), *parts, "5 masks, such as")


def test_0_and_255_are_no_ids(tmp_path):
    source = plain(tmp_path, lambda i: (drawn(i) == 1).astype(np.uint8) * 255)
    refused(tmp_path, source, "only 255 and numbers of background", "--binary=NAME", reading=NAMED)


def test_masks_that_show_one_class(tmp_path):
    source = plain(tmp_path, lambda _: np.zeros((HEIGHT, WIDTH), np.uint8))
    for reading in (NAMED, MaskReading(binary="cat")):
        refused(tmp_path, source, "the masks show only background", reading=reading)


def test_sorted_palettes(tmp_path):
    def masks(i):
        image = Image.fromarray(drawn(i))
        colors = list(COLORS.values()) if i < 3 else [COLORS["background"], COLORS["dog"], COLORS["cat"]]
        image.putpalette([channel for color in colors for channel in color])
        return image

    source = plain(tmp_path, masks)
    parts = ("the number 1 has the colour (250, 50, 83)", "d.png", "(140, 120, 240)", "a.png", "--kind=ids")
    refused(tmp_path, source, *parts, reading=NAMED)
    load(tmp_path, source, NAMED._replace(kind="ids"))
    check(tmp_path)


@pytest.mark.parametrize(
    ("reading", "parts"),
    [
        (MaskReading(binary="cat", names=CLASSES), ("--binary and --names",)),
        (MaskReading(threshold=128), ("--threshold needs --binary",)),
        (MaskReading(binary="background"), ("--binary=background",)),
        (NAMED._replace(ignore=["horse"]), ("--ignore", "no class 'horse'", "background, cat, dog")),
        (NAMED._replace(kind="colours"), ("--kind=colours", "--names names no colours")),
        (
            MaskReading(names=["sky", "cat"], unknown="background"),
            ("--unknown=background", "no class called background"),
        ),
        (MaskReading(kind="colors"), ("--kind=colors", "ids, colours, labelme, supervisely")),
        (MaskReading(kind="labelme"), ("has no mask", ".json")),
        (MaskReading(names=["cat"]), ("1 classes (cat)", "expected 2 to 255")),
    ],
)
def test_options_that_contradict_each_other(tmp_path, reading, parts):
    refused(tmp_path, plain(tmp_path), *parts, reading=reading)


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


# The splits.


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


# The pairs.


def test_partners_that_are_missing(tmp_path):
    source = plain(tmp_path)
    (tmp_path / "masks/b.png").rename(tmp_path / "masks/z.png")
    refused(tmp_path, source, "1 image of 5 without a mask", "b.jpg", reading=NAMED)
    back = MaskPairing(unmatched="background")
    refused(tmp_path, source, "1 mask of 5 without an image", "z.png", reading=NAMED, pairing=back)
    summary = load(tmp_path, source, NAMED, MaskPairing(unmatched="skip"))
    assert sorted(split_names(tmp_path / "out", "trainval")) == ["a", "c", "d", "e"]
    assert "1 image without a mask are left out, among them" not in summary.warnings
    assert sum("left out, among them" in warning for warning in summary.warnings) == 2


@pytest.mark.parametrize("folder", ["photos", "masks"])
def test_empty_folders(tmp_path, folder):
    source = plain(tmp_path)
    for path in (tmp_path / folder).iterdir():
        path.unlink()
    refused(tmp_path, source, f"{folder} has no {'mask' if folder == 'masks' else 'photograph'}", reading=NAMED)


def test_folder_that_is_missing(tmp_path):
    source = {"images": tmp_path / "nothing", "masks": None}
    refused(tmp_path, source, f"no folder {tmp_path / 'nothing'}", "--images")


def test_suffixes_are_suggested(tmp_path):
    source = plain(tmp_path, suffix="_L.png")
    refused(tmp_path, source, "no mask belongs to an image", "--mask_suffix=_L would match 5 masks", reading=NAMED)
    load(tmp_path, source, NAMED, MaskPairing("_L"))
    check(tmp_path)


def test_one_folder_for_both(tmp_path):
    write_photographs(tmp_path / "all", suffix=".png")
    for i, name in enumerate(NAMES):
        save(tmp_path / f"all/{name}_label.png", drawn(i))
    source = {"images": tmp_path / "all", "masks": None}
    refused(tmp_path, source, "has no mask", "--mask_suffix", reading=NAMED)
    load(tmp_path, source, NAMED, MaskPairing("_label"))
    check(tmp_path)


@pytest.mark.parametrize("masks", [None, "all"])
def test_images_and_masks_in_folders_of_splits(tmp_path, masks):
    for i, (split, name) in enumerate(zip(("train", "train", "val", "val", "val"), NAMES, strict=True)):
        write_photographs(tmp_path / f"all/{split}/images", [name], ".png")
        save(tmp_path / f"all/{split}/masks/{name}.png", drawn(i))
    load(tmp_path, {"images": tmp_path / "all", "masks": masks and tmp_path / masks}, NAMED)
    assert split_names(tmp_path / "out", "train") == ["a", "b"]
    check(tmp_path)


def test_masks_below_the_images(tmp_path):
    write_photographs(tmp_path / "all", suffix=".png")
    for i, name in enumerate(NAMES):
        save(tmp_path / f"all/truth/{name}.png", drawn(i))
    load(tmp_path, {"images": tmp_path / "all", "masks": tmp_path / "all/truth"}, NAMED)
    check(tmp_path)


def test_masks_that_fit_several_images(tmp_path):
    source = plain(tmp_path)
    write_photographs(tmp_path / "photos/more", ["a"])
    (tmp_path / "masks/b").mkdir()
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/b/a.png")
    refused(tmp_path, source, "b/a.png fits several images", reading=NAMED)


def test_images_with_several_masks(tmp_path):
    source = plain(tmp_path)
    save(tmp_path / "masks/a.bmp", drawn(0))
    refused(tmp_path, source, "photos/a.jpg has several masks", "a.bmp", "a.png", reading=NAMED)
