"""Packs VOC 2012 and SBD from archives in the official layout, and covers every pixel, split and kind of damage."""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from voc_archives import (
    EXTRA,
    SBD_FILE,
    SBD_ROOT,
    TRAIN,
    VAL,
    VOC_FILE,
    VOC_ROOT,
    class_mat,
    instance_mat,
    jpeg,
    palette_png,
    random_example,
    random_examples,
    sbd_mat,
    sbd_members,
    voc_members,
    write_folder,
    write_tar,
)

from deconvnet_jax.data import instance_boxes, open_split, prepare_voc2012, split_counts, split_parts, voc2012_builder
from deconvnet_jax.data.archives import Member
from deconvnet_jax.data.voc2012_builder import read_sbd
from deconvnet_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


class Archives:
    """Files of both archives, which a test can change before they are written."""

    def __init__(self, rng, folder):
        self.examples = random_examples(rng)
        self.voc, self.sbd = voc_members(self.examples), sbd_members(self.examples)
        self.folder, self.data_dir = folder / "downloads", folder / "tfds"
        self.folder.mkdir()

    def write(self):
        write_tar(self.folder / VOC_FILE, self.voc)
        write_tar(self.folder / SBD_FILE, self.sbd, compress=True)
        return self

    def build(self, verify=False):
        return prepare_voc2012(self.folder, self.data_dir, verify=verify)

    def check(self, split, names):
        """Checks every pixel and every object of all examples."""
        assert [split.name(i) for i in range(len(split))] == names
        for i, name in enumerate(names):
            source, found = self.examples[name], split[i]
            image = np.array(Image.open(io.BytesIO(jpeg(source.image))))
            for mine, wanted in zip(found[1:], (image, *source[2:]), strict=True):
                assert mine.dtype == np.uint8
                np.testing.assert_array_equal(mine, wanted)
            wanted = instance_boxes(source.label, source.instances)
            for mine, field in zip(split.objects(i), wanted, strict=True):
                np.testing.assert_array_equal(mine, field)
            assert split.size(i) == source.label.shape


@pytest.fixture
def archives(rng, tmp_path):
    return Archives(rng, tmp_path)


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_every_pixel_and_split(archives, capfd):
    seen = []
    builder = prepare_voc2012(
        archives.write().folder, archives.data_dir, lambda done, total: seen.append((done, total)), verify=False
    )
    splits = {
        "train": TRAIN,
        "val": VAL,
        "train_extra": EXTRA,
        "trainval": TRAIN + VAL,
        "train_aug": TRAIN + EXTRA,
    }
    for split, names in splits.items():
        archives.check(open_split(builder, split), names)
    assert split_counts(builder) == {split: len(names) for split, names in splits.items()}
    assert split_parts(builder, "train_aug") == ["train", "train_extra"]
    assert seen == [(i + 1, 9) for i in range(9)]
    borders = [(example.label == 255).any() for example in open_split(builder, "train_aug")]
    assert borders == [True] * len(TRAIN) + [False] * len(EXTRA)
    assert capfd.readouterr() == ("", "")


def test_built_once(archives):
    first = archives.write().build()
    assert archives.build().data_path == first.data_path
    moved = archives.folder.rename(archives.folder.parent / "moved")
    archives.check(open_split(prepare_voc2012(None, archives.data_dir), "val"), VAL)
    assert (
        prepare_voc2012(moved, archives.data_dir).data_path == first.data_path
    )  # The same files are in another folder now.


@pytest.mark.parametrize("extracted", [False, True])
def test_files_that_changed_are_not_read_from_the_packed_copy(archives, extracted):
    name = f"{VOC_ROOT}/SegmentationClass/{TRAIN[0]}.png"
    write = (lambda: write_folder(archives.folder, archives.voc | archives.sbd)) if extracted else archives.write
    write()
    archives.build()
    archives.voc[name] = palette_png(np.zeros_like(archives.examples[TRAIN[0]].label))
    write()
    for folder in (archives.folder, None):
        with pytest.raises(InputError, match=r"was packed from other files than .*downloads has now \(VOC differs\)"):
            prepare_voc2012(folder, archives.data_dir, verify=False)
    shutil.rmtree(archives.data_dir / "voc2012_seg/with_sbd")
    assert not open_split(archives.build(), "train")[0].label.any()


@pytest.mark.parametrize("where", ["", "VOCdevkit", VOC_ROOT])
def test_extracted_folders(archives, where):
    write_folder(archives.folder, archives.voc | archives.sbd)
    builder = prepare_voc2012(archives.folder / where, archives.data_dir)
    if not where:
        archives.check(open_split(builder, "train_aug"), TRAIN + EXTRA)
    archives.check(open_split(builder, "train"), TRAIN)


@pytest.mark.parametrize("part", ["JPEGImages", "SegmentationClass", "cls"])
def test_extracted_folders_with_links(archives, part, tmp_path):
    write_folder(archives.folder, archives.voc | archives.sbd)
    path = archives.folder / (SBD_ROOT if part == "cls" else VOC_ROOT) / part
    path.rename(tmp_path / "disk")
    path.symlink_to(tmp_path / "disk")
    archives.check(open_split(archives.build(), "train_aug"), TRAIN + EXTRA)


def test_sbd_as_torchvision_extracts_it(archives):
    write_folder(archives.folder, archives.voc | archives.sbd)
    (archives.folder / SBD_ROOT).rename(archives.folder / "SBD")
    archives.check(open_split(archives.build(), "train_aug"), TRAIN + EXTRA)


def test_an_incomplete_folder_of_sbd_is_named(archives):
    write_folder(archives.folder, archives.voc | archives.sbd)
    (archives.folder / SBD_ROOT).rename(archives.folder / "SBD")
    (archives.folder / "SBD/val.txt").unlink()
    with pytest.raises(InputError, match=r"SBD has no val\.txt, expected the whole of SBD; get SBD again"):
        archives.build()


def test_folders_above_and_below(archives):
    write_folder(archives.folder, archives.voc)
    for folder in (archives.folder.parent, archives.folder / VOC_ROOT / "JPEGImages"):
        with pytest.raises(InputError, match=r"; did you mean .*downloads.*\?"):
            prepare_voc2012(folder, archives.data_dir)
    (archives.folder / VOC_ROOT).rename(archives.folder / "VOC2012")
    archives.check(open_split(archives.build(), "train"), TRAIN)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "ascii"])
def test_lists_that_were_edited(archives, encoding):
    names = "".join(f"{name}.jpg\r\n" for name in TRAIN)
    archives.voc[f"{VOC_ROOT}/ImageSets/Segmentation/train.txt"] = names.encode(encoding)
    archives.check(open_split(archives.write().build(), "train"), TRAIN)


def test_voc_alone_and_sbd_later(archives):
    archives.write()
    sbd = (archives.folder / SBD_FILE).rename(archives.folder.parent / SBD_FILE)
    builder = archives.build()
    archives.check(open_split(builder, "trainval"), TRAIN + VAL)
    with pytest.raises(
        InputError, match=r"there are train, val, trainval; 'train_aug' .* needs SBD; put benchmark\.tgz"
    ):
        open_split(builder, "train_aug")
    sbd.rename(archives.folder / SBD_FILE)
    archives.check(open_split(archives.build(), "train_aug"), TRAIN + EXTRA)
    archives.check(open_split(prepare_voc2012(None, archives.data_dir), "train_aug"), TRAIN + EXTRA)


def test_nothing_to_build_from(archives):
    with pytest.raises(
        InputError, match=r"has neither VOCtrainval_11-May-2012\.tar nor VOCdevkit/VOC2012; download http"
    ):
        archives.build()
    with pytest.raises(
        InputError, match=r"is not packed in .* yet; run python -m experiments\.prepare_data --dataset=voc"
    ):
        prepare_voc2012(None, archives.data_dir)


def published(archives, monkeypatch, counts):
    """Declares the archives of the test to be the official ones."""
    for name, file in (("VOC", VOC_FILE), ("SBD", SBD_FILE)):
        content = (archives.folder / file).read_bytes()
        archive = getattr(voc2012_builder, name)
        declared = archive._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(voc2012_builder, name, declared)
    monkeypatch.setattr(voc2012_builder, "COUNTS", counts)


def test_official_archives_are_verified(archives, monkeypatch):
    archives.write()
    with pytest.raises(InputError, match=r"VOCtrainval_11-May-2012\.tar has .* bytes, expected 1,999,639,040: the dow"):
        archives.build(verify=True)
    assert not files_below(archives.data_dir)
    published(archives, monkeypatch, {"train": 3, "val": 2, "train_aug": 9})
    with pytest.raises(InputError, match=r"'train_aug': 7\}.* expected .*'train_aug': 9\}; please report this"):
        archives.build(verify=True)
    assert not files_below(archives.data_dir)
    published(archives, monkeypatch, {"train": 3, "val": 2, "train_aug": 7})
    content = (archives.folder / SBD_FILE).read_bytes()
    (archives.folder / SBD_FILE).write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(InputError, match=r"benchmark\.tgz has the SHA-256 checksum .*: it is damaged or another file"):
        archives.build(verify=True)
    assert not files_below(archives.data_dir)
    (archives.folder / SBD_FILE).write_bytes(content)
    archives.check(open_split(archives.build(verify=True), "train_aug"), TRAIN + EXTRA)


def drop(archive, key):
    return lambda archives: getattr(archives, archive).pop(key)


def put(archive, key, content):
    return lambda archives: getattr(archives, archive).update({key: content})


def cut_voc(archives):
    """Cuts the archive within a photograph."""
    path = archives.folder / VOC_FILE
    content = path.read_bytes()
    path.write_bytes(content[: content.index(archives.voc[f"{VOC_ROOT}/JPEGImages/{VAL[0]}.jpg"]) + 100])


def cut_sbd(archives):
    path = archives.folder / SBD_FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def escape(archives):
    with tarfile.open(archives.folder / VOC_FILE, "a") as tar:
        tar.addfile(tarfile.TarInfo("../../evil.sh"), io.BytesIO())


AFTER_WRITING = (escape, cut_voc, cut_sbd)
SMALL = np.zeros((30, 30), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (escape, "has the member '../../evil.sh', which leads out of the archive's folder; do not trust this file"),
        (cut_voc, "VOCtrainval_11-May-2012.tar is damaged or is not a tar archive"),
        (cut_sbd, "benchmark.tgz is damaged or is not a tar archive"),
        (drop("voc", f"{VOC_ROOT}/ImageSets/Segmentation/val.txt"), "has no ImageSets/Segmentation/val.txt"),
        (put("voc", f"{VOC_ROOT}/ImageSets/Segmentation/val.txt", b"\n"), "val.txt is empty; expected one image name"),
        (drop("voc", f"{VOC_ROOT}/JPEGImages/{TRAIN[1]}.jpg"), f"has no JPEGImages/{TRAIN[1]}.jpg"),
        (drop("voc", f"{VOC_ROOT}/SegmentationObject/{VAL[0]}.png"), f"has no SegmentationObject/{VAL[0]}.png"),
        (put("voc", f"{VOC_ROOT}/JPEGImages/{VAL[0]}.jpg", b"\xff\xd8 no"), f"{VAL[0]}.jpg is not a complete image"),
        (
            put("voc", f"{VOC_ROOT}/SegmentationClass/{VAL[0]}.png", palette_png(SMALL)),
            f"SegmentationClass/{VAL[0]}.png is 30x30 pixels, but its image is ",
        ),
        (
            put("voc", f"{VOC_ROOT}/JPEGImages/{EXTRA[0]}.jpg", jpeg(np.zeros((9, 9, 3), np.uint8))),
            "but its image is 9x9; get the data again",
        ),
        (drop("sbd", f"{SBD_ROOT}/train.txt"), "has no benchmark_RELEASE/dataset/train.txt, expected the whole of SBD"),
        (drop("sbd", f"{SBD_ROOT}/cls/{EXTRA[0]}.mat"), f"has no {SBD_ROOT}/cls/{EXTRA[0]}.mat, expected the whole"),
        (put("sbd", f"{SBD_ROOT}/inst/{EXTRA[1]}.mat", b"MATLAB"), f"{EXTRA[1]}.mat is not a MATLAB file with GTinst"),
        (put("sbd", f"{SBD_ROOT}/cls/{EXTRA[1]}.mat", class_mat(SMALL)), "is 30x30; get SBD again"),
        (put("sbd", f"{SBD_ROOT}/cls/{EXTRA[1]}.mat", class_mat(SMALL[None])), "expected uint8 [H, W]"),
    ],
)
def test_one_clear_error_and_nothing_half_built(archives, change, message):
    steps = (archives.write, lambda: change(archives))
    for step in steps if change in AFTER_WRITING else reversed(steps):
        step()
    with pytest.raises(InputError) as caught:
        archives.build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not files_below(archives.data_dir)
    with pytest.raises(InputError, match="is not packed"):
        prepare_voc2012(None, archives.data_dir)


def test_unknown_class_ids(archives):
    name = VAL[1]
    label = archives.examples[name].label.copy()
    label[0, 0] = 77
    archives.voc[f"{VOC_ROOT}/SegmentationClass/{name}.png"] = palette_png(label)
    with pytest.raises(InputError, match=rf"SegmentationClass/{name}\.png .* ids 77; expected 0 to 20 .*get the data"):
        archives.write().build()
    assert not files_below(archives.data_dir)


def in_a_new_process(code, *arguments):
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_tensorflow_is_never_imported(archives):
    code = (
        "import sys; from deconvnet_jax import data;"
        "split = data.open_split(data.prepare_voc2012(*sys.argv[1:3], verify=False), 'train_aug');"
        "windows = data.training_windows(split); next(data.training_batches(split, windows, batch_size=2));"
        "assert 'tensorflow' not in sys.modules; print(len(split))"
    )
    assert in_a_new_process(code, archives.write().folder, archives.data_dir) == "7"


@pytest.mark.parametrize("opencv", ["with OpenCV", "without OpenCV"])
def test_read_with_tfds_alone(archives, opencv, tmp_path):
    """Checks that TFDS alone reads masks as class ids, not as colours of a palette, whatever decodes them."""
    builder = archives.write().build()
    code = (
        "import sys;"
        f"{'' if opencv == 'with OpenCV' else 'sys.modules.update(cv2=None);'}"
        "import numpy as np, tensorflow_datasets as tfds;"
        "data = tfds.builder_from_directory(sys.argv[1]).as_data_source('val');"
        "np.savez(sys.argv[2], *[data[i][key] for i in range(2) for key in ('label', 'instances')])"
    )
    in_a_new_process(code, builder.data_path, tmp_path / "masks.npz")
    with np.load(tmp_path / "masks.npz") as file:
        found = [file[name][..., 0] for name in file.files]
    wanted = [mask for name in VAL for mask in archives.examples[name][2:]]
    for mask, source in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(mask, source)


# SBD's MATLAB files.


@pytest.mark.parametrize("compressed", [True, False])
def test_masks_of_sbd(rng, tmp_path, compressed):
    _, _, label, instances = random_example("a", rng, border=False)
    categories = [label[instances == i][0] if (instances == i).any() else 1 for i in range(1, instances.max() + 1)]
    for file, name, fields in (
        ("cls.mat", "GTcls", {"Segmentation": label}),
        ("inst.mat", "GTinst", {"Segmentation": instances, "Categories": np.array(categories, np.uint8)[:, None]}),
    ):
        scipy.io.savemat(tmp_path / file, {name: fields}, do_compression=compressed)
    found = read_sbd(*(Member((tmp_path / file).read_bytes(), file) for file in ("cls.mat", "inst.mat")))
    for mask, wanted in zip(found, (label, instances), strict=True):
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, wanted)


def test_an_image_of_sbd_with_one_object_and_one_with_none():
    label = np.zeros((5, 7), np.uint8)
    for object_pixels in (0, 9):
        label[1:3, 2:4] = object_pixels
        found = read_sbd(Member(class_mat(label), "cls"), Member(instance_mat(label, np.uint8(label > 0)), "inst"))
        np.testing.assert_array_equal(found, [label, label > 0])


GOOD = np.zeros((6, 8), np.uint8)
EMPTY = instance_mat(GOOD, GOOD)
NO_MASK = r"GTcls is not usable \("


@pytest.mark.parametrize(
    ("label", "instance", "message"),
    [
        (b"no MATLAB file at all", EMPTY, "is not a MATLAB file with GTcls"),
        (b"", EMPTY, "is not a MATLAB file with GTcls"),
        (class_mat(GOOD)[:150], EMPTY, "is not a MATLAB file with GTcls"),
        (sbd_mat("GTinst", Segmentation=GOOD), EMPTY, r"is not a MATLAB file with GTcls \(it has GTinst\)"),
        (sbd_mat("GTcls", Boundaries=GOOD), EMPTY, NO_MASK),
        (
            class_mat(np.zeros((6, 8, 3), np.uint8)),
            EMPTY,
            NO_MASK + r"Segmentation is uint8 \[6, 8, 3\], expected uint8",
        ),
        (class_mat(np.zeros((6, 8))), EMPTY, r"Segmentation is float64 \[6, 8\]"),
        (class_mat(np.zeros((0, 0), np.uint8)), EMPTY, r"is uint8 \[0, 0\]"),
        (class_mat(GOOD), instance_mat(GOOD.T, GOOD.T.copy()), "is 6x8 pixels, but .* is 8x6; get SBD again"),
        (class_mat(GOOD), sbd_mat("GTinst", Segmentation=GOOD), "in GTinst, Categories"),
        (
            class_mat(GOOD),
            sbd_mat("GTinst", Segmentation=GOOD + 2, Categories=np.array([[3]])),
            "shows object 2 of 1 C",
        ),
        (class_mat(GOOD + 30), EMPTY, "has class 30; expected 0 to 20"),
        (class_mat(GOOD), instance_mat(GOOD + 21, GOOD + 1), "has class 21; expected 0 to 20"),
    ],
)
def test_unusable_files_of_sbd(label, instance, message):
    with pytest.raises(InputError, match=message) as caught:
        read_sbd(Member(label, "cls/a.mat"), Member(instance, "inst/a.mat"))
    assert "/a.mat" in str(caught.value)
    assert "\n" not in str(caught.value)
