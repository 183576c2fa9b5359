"""Tests proposals files: round trip, lookup by name, the original's .mat files, and files of other kinds."""

import contextlib
import io
import json
import zipfile

import numpy as np
import pytest
import scipy.io

from deconvnet_jax.data import load_proposals, read_proposals, write_proposals
from deconvnet_jax.errors import InputError
from deconvnet_jax.proposals.files import Proposals


def random_boxes(rng, count):
    low = rng.uniform(0, 300, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, 200, (count, 2))], axis=1).astype(np.float32)


@pytest.fixture
def proposals(rng):
    names = ["2007_000032", "b c", "ünï", "none"]
    boxes = [random_boxes(rng, count) for count in (3, 200, 1, 0)]
    scores = [np.sort(rng.random(len(one)).astype(np.float32))[::-1] for one in boxes]
    return Proposals(names, boxes, scores, {"method": "network", "count": 200})


@pytest.fixture
def path(proposals, tmp_path):
    write_proposals(tmp_path / "train.npz", proposals)
    return tmp_path / "train.npz"


def test_round_trip(proposals, path):
    found = load_proposals(path)
    assert found.names == proposals.names
    for field in ("boxes", "scores"):
        for mine, wanted in zip(getattr(found, field), getattr(proposals, field), strict=True):
            np.testing.assert_array_equal(mine, wanted)
            assert mine.dtype == np.float32
    assert found.description == {"version": 1, "method": "network", "count": 200}
    assert [file.name for file in path.parent.iterdir()] == ["train.npz"]


def test_lookup_by_name(proposals, path):
    boxes = read_proposals(path, ["ünï", "2007_000032"])
    np.testing.assert_array_equal(boxes[0], proposals.boxes[2])
    np.testing.assert_array_equal(boxes[1], proposals.boxes[0])
    with pytest.raises(InputError, match="no proposals for 2 of 3 images, among them 'x'; was it made for another"):
        read_proposals(path, ["x", "none", "y"])


def test_no_images(tmp_path):
    write_proposals(tmp_path / "a.npz", Proposals([], [], [], {}))
    assert load_proposals(tmp_path / "a.npz").names == []


def test_the_original_s_boxes(rng, tmp_path):
    """Uses an image of 375x500 pixels; its boxes count from 1 in an image padded by 500 rows and 375 columns."""
    wanted = np.float32([[0, 0, 500, 375], [-20, -10, 30, 40], [499, 374, 500, 375]])
    padded = wanted + np.float32([375 + 1, 500 + 1, 375, 500])
    for name in ("a", "b"):
        scipy.io.savemat(tmp_path / f"{name}.mat", {"boxes_padded": padded})
    for boxes in read_proposals(tmp_path, ["b", "a"], [(375, 500), (375, 500)]):
        np.testing.assert_array_equal(boxes, wanted)
        assert boxes.dtype == np.float32


def test_unusable_files_of_the_original(tmp_path):
    with pytest.raises(InputError, match="pass the images' sizes"):
        read_proposals(tmp_path, ["a"])
    with pytest.raises(InputError, match=r"no file .*a\.mat with the proposals of that image"):
        read_proposals(tmp_path, ["a"], [(10, 10)])
    for content, message in (
        ({"boxes": np.ones((1, 4))}, r"is not a MATLAB file with boxes_padded \(it has boxes\)"),
        ({"boxes_padded": np.ones((4, 5))}, r"boxes_padded is float64 \[4, 5\]; expected numbers \[n, 4\]"),
        ({"boxes_padded": np.array([[15, 15, 20, 20], [15, 15, 9, 20]])}, r"box 1 is .*; expected x0 < x1"),
    ):
        scipy.io.savemat(tmp_path / "a.mat", content)
        with pytest.raises(InputError, match=message):
            read_proposals(tmp_path, ["a"], [(10, 10)])
    (tmp_path / "a.mat").write_bytes(b"MATLAB")
    with pytest.raises(InputError, match=r"is not a MATLAB file with boxes_padded"):
        read_proposals(tmp_path, ["a"], [(10, 10)])


def rewritten(path, **changes):
    with path.open("rb") as opened, np.load(opened) as file:
        fields = {name: file[name] for name in file.files} | changes
    np.savez(path, **{name: value for name, value in fields.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": None}, r"is not a proposals file: 'boxes' is missing or of another kind \(found names <U"),
        ({"offsets": np.array([0, 3, 204, 203, 204])}, "contradicts itself"),
        ({"scores": np.zeros(3, np.float32)}, "contradicts itself"),
        ({"boxes": np.zeros((204, 5), np.float32)}, "contradicts itself"),
        ({"boxes": np.array([["a"] * 4] * 204)}, "'boxes' is missing or of another kind"),
        ({"offsets": np.array(3), "names": np.array("p")}, "'names' is missing or of another kind"),
        ({"description": np.array("[1]")}, "its description is not a JSON object"),
        ({"description": np.array("[" * 100_000)}, "its description is not a JSON object"),
        ({"boxes": np.full((204, 4), np.nan, np.float32)}, r"box 0 is \[nan, nan, nan, nan\]; expected x0 < x1"),
        ({"description": np.array("{")}, "its description is not a JSON object"),
        ({"description": np.array(json.dumps({"version": 9}))}, "has version 9 of the format, expected 1"),
        ({"names": np.array([{}], object)}, "is not a complete .npz file .Object arrays cannot be loaded"),
    ],
)
def test_unusable_files(path, changes, message):
    rewritten(path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_proposals(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_truncated_files(path):
    with pytest.raises(InputError, match=r"no proposals file .*other\.npz; make it with experiments\.prepare_data"):
        load_proposals(path.with_name("other.npz"))
    content = path.read_bytes()
    for part in (content[: len(content) // 2], content[:-30], b"", b"nothing"):
        path.write_bytes(part)
        with pytest.raises(InputError, match=r"is not a complete \.npz file"):
            load_proposals(path)


def test_boxes_that_are_none_are_not_written(tmp_path):
    boxes = [np.float32([[0, 0, 5, 5]]), np.float32([[30, 20, 15, 10]])]
    with pytest.raises(InputError, match=r"^proposals of image 'b': box 0 is .*; expected x0 < x1"):
        write_proposals(tmp_path / "x.npz", Proposals(["a", "b"], boxes, [np.ones(1)] * 2, {}))
    assert not list(tmp_path.iterdir())


def test_boxes_of_images_of_another_size(tmp_path):
    file = tmp_path / "x.npz"
    write_proposals(file, Proposals(["a"], [np.float32([[30, 20, 45, 30]])], [np.ones(1)], {}))
    assert len(read_proposals(file, ["a"], [(30, 40)])[0]) == 1
    with pytest.raises(
        InputError, match=r"x\.npz: image 'a': box 0 is .*, and all boxes lie outside the image of 20x10 pixels"
    ):
        read_proposals(file, ["a"], [(10, 20)])


def test_every_flipped_bit_is_one_line_or_harmless(path, rng):
    whole = path.read_bytes()
    for place in rng.integers(0, 8 * len(whole), 400):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            assert len(load_proposals(path).names) == 4


def test_a_claim_of_gigabytes_is_one_line(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (5 * 10**9, 4)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("boxes.npy", header.getvalue() + bytes(64))
    with pytest.raises(InputError, match=r"is not a complete \.npz file"):
        load_proposals(tmp_path / "a.npz")
