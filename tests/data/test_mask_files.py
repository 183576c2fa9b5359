"""Every mask finds its photograph; what has no partner is refused."""

import mask_exports
import pytest
from mask_exports import NAMED, NAMES, check, drawn, load, plain, refused, save, write_photographs

from deconvnet_jax.data import MaskPairing, split_names


def test_partners_that_are_missing(tmp_path):
    source = plain(tmp_path)
    (tmp_path / "masks/b.png").rename(tmp_path / "masks/z.png")
    refused(tmp_path, source, "1 of 5 images have no mask", "b.jpg", reading=NAMED)
    back = MaskPairing(unmatched="background")
    refused(tmp_path, source, "1 of 5 masks have no image", "z.png", reading=NAMED, pairing=back)
    summary = load(tmp_path, source, NAMED, MaskPairing(unmatched="skip"))
    assert sorted(split_names(tmp_path / "out", "trainval")) == ["a", "c", "d", "e"]
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


def test_archives_and_exports_without_photographs(tmp_path):
    (tmp_path / "export.zip").touch()
    source = {"images": tmp_path / "export.zip", "masks": None}
    refused(tmp_path, source, "export.zip is a file; expected a folder: unpack an archive first")
    save(tmp_path / "export/SegmentationClass/a.png", drawn(0))
    source = {"images": tmp_path / "export", "masks": None}
    refused(tmp_path, source, "has no photograph", f"--images=FOLDER --masks={tmp_path / 'export'}", reading=NAMED)


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


@pytest.mark.parametrize(
    "folders", [("{}", "{}annot"), ("{}", "{}_labels"), ("{}_images", "{}_masks"), ("{}img", "{}-Mask")]
)
def test_folders_that_name_split_and_content(tmp_path, folders):
    """As in SegNet's copy of CamVid: train and trainannot."""
    for i, (split, name) in enumerate(zip(("train", "train", "val", "val", "val"), NAMES, strict=True)):
        image, mask = (folder.format(split) for folder in folders)
        write_photographs(tmp_path / "all" / image, [name], ".png")
        save(tmp_path / "all" / mask / f"{name}.png", drawn(i))
    load(tmp_path, {"images": tmp_path / "all", "masks": None}, NAMED)
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


def test_photographs_in_a_format_that_is_not_read(tmp_path):
    source = plain(tmp_path)
    (tmp_path / "photos/b.jpg").rename(tmp_path / "photos/b.heic")
    refused(
        tmp_path, source, "1 of 5 masks have no image", "masks/b.png (there is", "b.heic, which is not", reading=NAMED
    )


def test_pictures_beside_the_folders_of_images_and_masks(tmp_path):
    for i, name in enumerate(NAMES):
        write_photographs(tmp_path / "all/images", [name])
        write_photographs(tmp_path / "all/overlays", [name])
        save(tmp_path / f"all/masks/{name}.png", drawn(i))
    summary = load(tmp_path, {"images": tmp_path / "all", "masks": tmp_path / "all/masks"}, NAMED)
    check(tmp_path)
    assert any("5 pictures in other folders" in warning and "overlays/a.jpg" in warning for warning in summary.warnings)


@pytest.mark.parametrize(
    "names",
    [
        ["one/images/a", "one/images/b", "two/images/c", "two/images/d", "two/images/e"],
        ["one/images/a", "one/images/b", "two/c", "two/d", "e"],
        ["labels/a", "labels/b", "labels/c", "labels/d", "labels/e"],
        ["labels/a", "labels/b", "posters/c", "posters/d", "images/e"],
    ],
)
def test_folders_whose_names_separate_masks_repeat(tmp_path, names):
    load(tmp_path, plain(tmp_path, names=names), NAMED)
    check(tmp_path)


def test_separate_masks_of_equal_names(tmp_path):
    names = ["one/images/a", "two/a", "labels/a", "masks/b", "b/c"]
    load(tmp_path, plain(tmp_path, names=names), NAMED)
    check(tmp_path, dict(zip(NAMES, ("one_a", "two_a", "a", "b", "b_c"), strict=True)).__getitem__)


def test_photographs_and_masks_in_both_folders(tmp_path):
    """Both folders are whole exports; each is asked for one part."""
    for folder in ("one", "two"):
        for i, name in enumerate(NAMES):
            write_photographs(tmp_path / folder / "JPEGImages", [name], ".png")
            save(tmp_path / folder / f"SegmentationClass/{name}.png", drawn(i) * (folder == "two"))
    load(tmp_path, {"images": tmp_path / "one", "masks": tmp_path / "two"}, NAMED)
    check(tmp_path)


def test_photographs_of_an_export_are_no_masks(tmp_path):
    write_photographs(tmp_path / "photos", suffix=".png")
    write_photographs(tmp_path / "export/JPEGImages", suffix=".png")
    for i, name in enumerate(NAMES[:-1]):
        save(tmp_path / f"export/SegmentationClass/{name}.png", drawn(i))
    source = {"images": tmp_path / "photos", "masks": tmp_path / "export"}
    refused(tmp_path, source, "1 of 5 images have no mask", "e.png", reading=NAMED)
    load(tmp_path, source, NAMED, MaskPairing(unmatched="background"))
    check(tmp_path)


def test_labelme_files_beside_photographs_in_a_folder_called_images(tmp_path):
    mask_exports.labelme(tmp_path)
    (tmp_path / "all").mkdir()
    (tmp_path / "labelme").rename(tmp_path / "all/images")
    load(tmp_path, {"images": tmp_path / "all", "masks": None})
    check(tmp_path, with_objects=True)


def test_formats_of_masks_that_are_expected(tmp_path):
    source = plain(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    message = refused(tmp_path, source, "expected files that end in .png, .bmp", reading=NAMED)
    assert ".jpg" not in message


def test_suffixes_in_mixed_case(tmp_path):
    source = plain(tmp_path)
    (tmp_path / "photos/c.jpg").rename(tmp_path / "photos/c.Jpg")
    load(tmp_path, source, NAMED)
    check(tmp_path)
    assert (tmp_path / "out/JPEGImages/c.jpg").read_bytes() == (tmp_path / "photos/c.Jpg").read_bytes()
