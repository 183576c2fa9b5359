"""Tests .npz files that are damaged or whose headers claim more than they hold."""

import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.npz import read_npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(tmp_path, rng, save):
    arrays = {
        "half": rng.standard_normal((3, 2)).astype(np.float16),
        "fortran": np.asfortranarray(rng.standard_normal((4, 3, 2))),
        "empty": np.zeros((0, 5), np.int32),
        "number": np.array(3.5),
        "text": np.array(["a", "bcd"]),
        "zeros": np.zeros((100, 1000)),
        "group/name": np.array([True, False]),
    }
    save(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
        assert found[name].flags.writeable


def header(shape, descr="<f4"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def write(path, content, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.npy", content)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((2**60,)), ""),
        (header((2**40, 2**40)) + bytes(8), ""),
        (header((-1,)) + bytes(8), ""),
        (header((3,)) + bytes(8), "EOF|expected 12 bytes got 8|cannot reshape"),
        (header((1,)) + bytes(8), "more bytes than its shape needs"),
        (header((3,), "|O") + bytes(24), "Object arrays cannot be loaded"),
        (header((0, 2**62, 2**62)), ""),
        (b"\x93NUMPY\2\0\xff\xff\xff\x7f", ""),
        (header("((((")[:128], ""),
        (b"no array", ""),
        (b"", ""),
    ],
)
def test_headers_that_claim_other_sizes(tmp_path, content, message):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with pytest.raises(InputError, match=rf"a\.npz is not a complete \.npz file \(.*{message}") as caught:
            read_npz(write(tmp_path / "a.npz", content, compression))
        assert "\n" not in str(caught.value)


def test_other_files(tmp_path):
    with pytest.raises(InputError, match=r"no file .*a\.npz; correct the name"):
        read_npz(tmp_path / "a.npz")
    for content in (b"", b"PK\3\4", b"text", write(tmp_path / "b.npz", header((1,)) + bytes(4)).read_bytes()[:-5]):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"is not a complete \.npz file"):
            read_npz(tmp_path / "a.npz")


def test_a_bomb_takes_no_memory(tmp_path):
    """300 MB of zeros in a file of 0.3 MB are refused."""
    with zipfile.ZipFile(tmp_path / "many.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"{i}.npy", header((25_000_000,)) + bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"claims 100,000,128 bytes, but the file has"):
            read_npz(tmp_path / "many.npz")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_damaged_files(tmp_path, rng):
    np.savez_compressed(tmp_path / "good.npz", a=rng.standard_normal((3, 4)), b=np.arange(3))
    content = (tmp_path / "good.npz").read_bytes()
    for _ in range(600):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            read_npz(tmp_path / "a.npz")
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
