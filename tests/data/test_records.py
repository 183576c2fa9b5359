"""Checks the content of records and random access to them from threads and other processes."""

import contextlib
import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.data import Example, class_pixels, instance_boxes, open_split, prepare_voc_layout, write_scenes
from deconvnet_jax.data.records import DatasetSplit, record
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import read_image


def encoded(image, **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, **options)
    return file.getvalue()


def test_what_is_known_without_pixels(scenes, train_split):
    for i, example in enumerate(train_split):
        assert train_split.name(i) == example.name
        assert train_split.size(i) == example.label.shape
        np.testing.assert_array_equal(train_split.label(i), example.label)
        for mine, wanted in zip(train_split.objects(i), instance_boxes(example.label, example.instances), strict=True):
            np.testing.assert_array_equal(mine, wanted)
    with pytest.raises(IndexError):
        train_split[len(train_split)]
    with pytest.raises(IndexError):
        train_split.objects(-len(train_split) - 1)


def test_pixels_of_every_class(train_split):
    expected = sum(np.bincount(example.label.ravel(), minlength=6) for example in train_split)
    np.testing.assert_array_equal(class_pixels(train_split, 6), expected)
    np.testing.assert_array_equal(class_pixels(list(train_split), 6), expected)


def test_threads_and_other_processes(train_split):
    wanted = [example.image.sum() for example in train_split]
    copy = pickle.loads(pickle.dumps(train_split))
    with ThreadPoolExecutor(4) as pool:
        for split in (train_split, copy):
            indices = list(range(len(split))) * 5
            assert list(pool.map(lambda i, split=split: split[i].image.sum(), indices)) == wanted * 5


def test_parts_are_read_one_after_the_other(scenes):
    builder = prepare_voc_layout(scenes, scenes.parent / "tfds")
    train, val = (open_split(builder, split) for split in ("train", "val"))
    both = DatasetSplit([*train._parts, *val._parts])
    names = [split.name(i) for split in (train, val) for i in range(len(split))]
    assert [both.name(i) for i in range(len(both))] == names
    assert both[-1].name == val[len(val) - 1].name
    assert both[len(train)].name == val[0].name


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_are_kept_and_decoded_as_pillow_does(rng, subsampling, progressive):
    shape = (*rng.integers(17, 70, 2), 3)
    image = rng.integers(0, 256, shape, np.uint8)
    options = {"format": "JPEG", "quality": int(rng.integers(30, 98)), "progressive": progressive}
    content = encoded(image, subsampling=subsampling, **options)
    stored = record(Example("a", read_image(io.BytesIO(content)), image[..., 0], None), content)
    assert stored["image"] == content
    found = DatasetSplit([[stored | {"name": b"a"}]])[0]
    np.testing.assert_array_equal(found.image, read_image(io.BytesIO(content)))
    assert found.instances is None


def test_an_orientation_in_the_file_is_not_applied(rng):
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # Rotated by 90 degrees.
    content = encoded(image, format="JPEG", exif=exif)
    stored = record(Example("a", read_image(io.BytesIO(content)), image[..., 0], None), content)
    assert DatasetSplit([[stored | {"name": b"a"}]])[0].image.shape == (20, 30, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "PNG"])
def test_other_photographs_become_pngs_of_the_same_pixels(rng, mode):
    picture = Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8))
    file = io.BytesIO()
    picture.convert("RGB" if mode == "PNG" else mode).save(file, "JPEG" if mode in ("L", "CMYK") else "PNG")
    image = read_image(io.BytesIO(file.getvalue()))
    stored = record(Example("a", image, image[..., 0], None), file.getvalue())
    assert stored["image"].startswith(b"\x89PNG")
    np.testing.assert_array_equal(DatasetSplit([[stored | {"name": b"a"}]])[0].image, image)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The folder with two scenes and the folder of its packed data."""
    root = tmp_path_factory.mktemp("packed") / "scenes"
    write_scenes(root, train=2, val=1, seed=5)
    return root, Path(prepare_voc_layout(root, root.parent / "tfds").data_path)


def read_all(root):
    split = open_split(prepare_voc_layout(root, root.parent / "tfds"), "train")
    return [(split[i].label.sum(), split.name(i), len(split.objects(i).boxes)) for i in range(len(split))]


@contextlib.contextmanager
def changed(path, content):
    old = path.read_bytes()
    try:
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        yield
    finally:
        path.write_bytes(old)


DAMAGES = {
    "cut": lambda old: old[: len(old) // 2],
    "empty": lambda old: b"",
    "flipped": lambda old: old[: len(old) // 3] + bytes([old[len(old) // 3] ^ 4]) + old[len(old) // 3 + 1 :],
    "text": lambda old: b"[" * len(old),
    "missing": lambda old: None,
}


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("pattern", ["dataset_info.json", "metadata.json", "*-train.array_record*", "features.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_packed_data_is_one_line_with_the_remedy(packed, noted, pattern, damage):
    """Also covers data that older versions packed without a note of its files. features.json is never read."""
    root, folder = packed
    wanted = read_all(root)
    file = next(folder.glob(pattern))
    note = folder / "files.json"
    with contextlib.ExitStack() as stack:
        if not noted:
            stack.enter_context(changed(note, None))
        stack.enter_context(changed(file, DAMAGES[damage](file.read_bytes())))
        harmless = (
            pattern == "features.json" or damage == "flipped"
        )  # The damage is in a file or field that is not needed.
        harmless |= (pattern, damage) == ("metadata.json", "missing")  # The class names are read from the folder.
        try:
            assert read_all(root) == wanted
            assert harmless
            assert not noted
        except InputError as error:
            text = str(error)
            assert text.startswith(f"the packed data in {folder} is damaged ("), text
            assert text.endswith("; delete that folder to pack the data again"), text


def test_records_of_another_data_set_are_noticed(packed, scenes):
    root, folder = packed
    other = Path(prepare_voc_layout(scenes, scenes.parent / "tfds").data_path)
    stranger = next(other.glob("*-train.array_record*")).read_bytes()
    with (
        changed(next(folder.glob("*-train.array_record*")), stranger),
        pytest.raises(InputError, match=r"is damaged \(voc_layout-train.* has changed\)"),
    ):
        read_all(root)


@pytest.mark.parametrize("form", ["type", "proto"])
def test_no_module_is_imported_because_a_file_names_it(packed, tmp_path, monkeypatch, form):
    root, folder = packed
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = folder / "features.json"
    text = file.read_text().replace("tensorflow_datasets.core.features.text_feature.Text", "evil.Text")
    if form == "proto":
        text = json.dumps({"pythonClassName": "evil.Text", "text": {}})
    information = json.loads((folder / "dataset_info.json").read_text()) | {"moduleName": "evil"}
    with (
        changed(folder / "files.json", None),
        changed(file, text.encode()),
        changed(folder / "dataset_info.json", json.dumps(information).encode()),
    ):
        assert len(read_all(root)) == 2
    assert not (tmp_path / "ran").exists()
