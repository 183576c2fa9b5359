"""Tests reading of MATLAB files of all versions, of damaged and hostile files, and of files with other content."""

import io
import struct
import zlib

import h5py
import numpy as np
import pytest
import scipy.io

from deconvnet_jax.errors import InputError
from deconvnet_jax.mat_files import read_mat
from deconvnet_jax.proposals.files import original_boxes

BOXES = np.array([[101.0, 81, 150, 120], [110, 90, 140, 100]])


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def header():
    return b"MATLAB 5.0 MAT-file".ljust(116) + bytes(8) + struct.pack("<H", 0x0100) + b"IM"


def version_73(path, **variables):
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            file[name] = value
    content = bytearray(path.read_bytes())
    content[:116] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(116)
    content[124:128] = b"\x00\x02IM"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("options", [{"format": "4"}, {"format": "5"}, {"do_compression": True}])
def test_boxes_of_every_version(tmp_path, options):
    scipy.io.savemat(tmp_path / "a.mat", {"other": np.eye(2), "boxes_padded": BOXES}, **options)
    expected = original_boxes(tmp_path / "a.mat", (80, 100))
    assert expected.tolist() == [[20, -20, 70, 20], [29, -11, 60, 0]]
    version_73(tmp_path / "b.mat", boxes_padded=BOXES.T)
    np.testing.assert_array_equal(original_boxes(tmp_path / "b.mat", (80, 100)), expected)


def test_an_open_file_is_read_from_its_start():
    stream = io.BytesIO()
    scipy.io.savemat(stream, {"a": BOXES})
    for _ in range(2):
        np.testing.assert_array_equal(read_mat(stream, "a", "get it again"), BOXES)


def test_other_variables_are_named(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"bbs": np.ones((1, 5)), "model": "x"})
    version_73(tmp_path / "b.mat", bbs=np.ones((5, 1)))
    for name, there in (("a", "bbs, model"), ("b", "bbs")):
        with pytest.raises(
            InputError, match=rf"{name}\.mat is not a MATLAB file with boxes_padded \(it has {there}\); "
        ):
            original_boxes(tmp_path / f"{name}.mat", (80, 100))


@pytest.mark.parametrize("value", [np.array(["text"]), np.array([[1 + 2j] * 4]), np.ones((3, 5)), {"x": 1}])
def test_other_contents(tmp_path, value):
    scipy.io.savemat(tmp_path / "a.mat", {"boxes_padded": value})
    with pytest.raises(InputError, match=r"boxes_padded is .*; expected numbers \[n, 4\]"):
        original_boxes(tmp_path / "a.mat", (80, 100))


def test_version_73_without_numbers(tmp_path):
    path = tmp_path / "a.mat"
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["secret"] = BOXES.T
    for value in (h5py.ExternalLink(str(tmp_path / "elsewhere.h5"), "secret"), h5py.SoftLink("/nowhere"), "text"):
        version_73(path, boxes_padded=value)
        with pytest.raises(InputError, match=r"with boxes_padded \(.*\); expected the original's"):
            original_boxes(path, (80, 100))


def test_claims_are_compared_with_the_bytes(tmp_path):
    path = tmp_path / "a.mat"
    bomb = zlib.compress(bytes(80 << 20), 9)
    path.write_bytes(header() + struct.pack("<II", 15, len(bomb)) + bomb)
    with pytest.raises(InputError, match=r"claims 67,108,865 bytes, but the file has"):
        original_boxes(path, (80, 100))
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset("boxes_padded", (4, 10**10), "f8", chunks=(4, 1000))
    with pytest.raises(InputError, match=r"claims 320,000,000,000 bytes, but the file has"):
        original_boxes(path, (80, 100))


def test_cells_in_cells_do_not_crash(tmp_path):
    """SciPy follows nested cells without a limit, until the stack overflows and the process ends."""
    body = b""
    for _ in range(20_000):
        start = (
            element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<2i", 1, 1)) + element(1, b"boxes_padded")
        )
        body = struct.pack("<II", 14, len(start) + len(body)) + start + body
    (tmp_path / "a.mat").write_bytes(header() + body)
    with pytest.raises(InputError, match="more than 16 levels of cells"):
        original_boxes(tmp_path / "a.mat", (80, 100))


@pytest.mark.parametrize("kind", ["5", "compressed", "7.3"])
def test_damage_is_one_line(tmp_path, rng, kind):
    path = tmp_path / "a.mat"
    if kind == "7.3":
        version_73(path, boxes_padded=BOXES.T)
    else:
        scipy.io.savemat(path, {"boxes_padded": BOXES}, do_compression=kind == "compressed")
    whole = path.read_bytes()
    for place in rng.integers(0, 8 * len(whole), 300):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert original_boxes(path, (80, 100)).shape[1] == 4
        except InputError as error:
            text = str(error)
            assert str(path) in text, text
            assert "\n" not in text
