"""Tests the caffemodel reader with files from Google's encoder, files from Caffe, and hostile files."""

import hashlib
import json
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from caffemodel_writer import encode
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deconvnet_jax import protobuf
from deconvnet_jax.errors import InputError
from deconvnet_jax.weights import load_caffemodel
from deconvnet_jax.weights.caffemodel import CaffemodelError, read_layers

ROOT = Path(__file__).resolve().parents[2]


def random_layers(rng):
    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return [
        ("data", "WindowSegData", []),
        ("conv1_1", "Convolution", [draw(4, 3, 3, 3), draw(4)]),
        ("relu1_1", "ReLU", []),
        ("relu1_1", "ReLU", []),
        ("fc6-deconv", "Deconvolution", [draw(5, 2, 7, 7), draw(1, 1, 1, 2)]),
        ("ünï", "InnerProduct", [draw(6, 40)]),
    ]


@pytest.mark.parametrize("v1", [True, False])
@pytest.mark.parametrize("shape", [True, False])
@pytest.mark.parametrize("doubles", [True, False])
def test_every_form(tmp_path, rng, v1, shape, doubles):
    layers = random_layers(rng)
    path = tmp_path / "net.caffemodel"
    path.write_bytes(encode(layers, v1=v1, shape=shape, doubles=doubles, diffs=True))
    found = load_caffemodel(path)
    assert list(found) == ["conv1_1", "fc6-deconv", "ünï"]
    for name, _, blobs in layers:
        for ours, theirs in zip(found.get(name, []), blobs, strict=True):
            assert ours.dtype == (np.float64 if doubles else np.float32)
            assert ours.shape == (theirs.shape if shape else (1,) * (4 - theirs.ndim) + theirs.shape)
            np.testing.assert_array_equal(ours.reshape(theirs.shape), theirs)
    names = [(layer.name, layer.blobs) for layer in read_layers(path, with_blobs=False)]
    assert names == [(name, []) for name, _, _ in layers]


def test_arrays_outlive_the_file(tmp_path, rng):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(encode(random_layers(rng)))
    blob = load_caffemodel(path)["conv1_1"][0]
    before = blob.copy()
    path.write_bytes(bytes(path.stat().st_size))
    np.testing.assert_array_equal(blob, before)
    blob += 1  # The array must be writable.


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def test_a_list_in_pieces_and_a_shape_in_pieces(tmp_path):
    """The format allows this, although no known program writes it."""
    values = np.arange(7, dtype="<f4")
    data = b"".join(field(5, part.tobytes()) for part in np.split(values, (2, 5)))
    blob = field(7, b"\x0a\x01\x07") + data + field(7, b"\x0a\x01\x01")
    path = tmp_path / "net.caffemodel"
    path.write_bytes(field(100, field(1, b"x") + field(7, blob)))
    np.testing.assert_array_equal(load_caffemodel(path)["x"][0], values[:, None])


def raw_blob(values, kind, types_first=True):
    """NVCaffe since 0.16 writes arrays as raw_data_type 10, raw_diff_type 11, raw_data 12 and raw_diff 13."""
    types = varint(10 << 3) + varint(kind) + varint(11 << 3) + varint(kind)
    data = field(12, values.tobytes())
    return field(7, field(1, b"".join(map(varint, values.shape)))) + (types + data if types_first else data + types)


@pytest.mark.parametrize(("dtype", "kind"), [("<f8", 0), ("<f4", 1), ("<f2", 2), ("<f4", 0), ("<f8", 1)])
@pytest.mark.parametrize("types_first", [True, False])
def test_raw_numbers_of_nvcaffe(tmp_path, rng, dtype, kind, types_first):
    values, path = rng.standard_normal((5, 3, 2, 2)).astype(dtype), tmp_path / "net.caffemodel"
    path.write_bytes(
        field(100, field(1, b"x") + field(2, b"Convolution") + field(7, raw_blob(values, kind, types_first)))
    )
    np.testing.assert_array_equal(load_caffemodel(path)["x"][0], values, strict=True)
    path.write_bytes(field(100, field(1, b"x") + field(7, raw_blob(values, kind) + field(12, values.tobytes()[:-1]))))
    with pytest.raises(
        CaffemodelError, match=r"blob 0 of layer 'x' has the shape \[5, 3, 2, 2\] but .* bytes of numbers"
    ):
        load_caffemodel(path)


def write_caffe_hdf5(path, layers):
    """Writes the format of Caffe's Net::ToHDF5: a group per layer, with blobs named by their numbers."""
    h5py = pytest.importorskip("h5py", reason="h5py writes the files")
    with h5py.File(path, "w") as file:
        for name, _, blobs in layers:
            group = file.require_group(f"data/{name}")
            for i, blob in enumerate(blobs):
                group[str(i)] = blob


def test_hdf5_of_caffe(tmp_path, rng):
    layers, path = random_layers(rng), tmp_path / "net.caffemodel"  # A wrong suffix must not matter.
    layers.append(("many", "Scale", [np.full(2, i, np.float32) for i in range(12)]))
    write_caffe_hdf5(path, layers)
    found = load_caffemodel(path)
    assert set(found) == {"conv1_1", "fc6-deconv", "ünï", "many"}
    for name, _, blobs in layers:
        for ours, theirs in zip(found.get(name, []), blobs, strict=True):
            np.testing.assert_array_equal(ours, theirs, strict=True)
    assert {layer.name for layer in read_layers(path, with_blobs=False)} == {name for name, _, _ in layers}
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        CaffemodelError, match=r"is an incomplete HDF5 file; expected a \.caffemodel: download it again"
    ):
        load_caffemodel(path)


def test_files_that_caffe_wrote(real_data):
    folder = real_data / "caffe_reference"
    expected = json.loads((folder / "narrow_written_by_caffe.json").read_text())
    layers = load_caffemodel(folder / "narrow_written_by_caffe.caffemodel")
    assert sum(map(len, layers.values())) == len(expected)
    for key, what in expected.items():
        name, i = key.rsplit(":", 1)
        blob = layers[name][int(i)]
        assert list(blob.shape) == what["shape"]
        assert hashlib.sha256(blob.astype("<f4").tobytes()).hexdigest()[:16] == what["sha256"]


BLOB = field(5, b"\0\0\0\0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is an empty file"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b'name: "VGG"\nlayers { }', r"is a Caffe \.prototxt, the description of a network"),
        (field(1, b"\x80 a name alone"), "holds no layers"),
        (field(2, field(1, b"")), "used before 2014; convert it with Caffe's upgrade_net_proto_binary"),
        (field(2, b"\x22\x05con"), "5 bytes where only 3 are left"),
        (b"\x12" + varint(2**62) + b"abc", "4,611,686,018,427,387,904 bytes where only 3 are left"),
        (b"\x12" + b"\xff" * 11, "a number of more than 10 bytes"),
        (b"\x13\x13\x13\x13", "field 2 of wire type 3, which Caffe never writes"),
        (b"\x12\x80", "an incomplete number"),
        (b"\x10\x01", "wire type 0 where Caffe writes 2"),
        (field(2, field(4, b"\xff\xfe")), "a name that is not UTF-8 text"),
        (field(2, field(4, b"a" * 2000)), "a name of 2,000 bytes"),
        (field(2, field(4, b"a") + field(6, BLOB)), r"blob 0 of layer 'a' has the shape \[0, 0, 0, 0\] but 4 bytes"),
        (field(2, field(6, field(7, field(1, varint(2**64 - 1))) + BLOB)), r"has the shape \[-1\] but 4 bytes"),
        (field(2, field(6, field(7, field(1, varint(2**40) * 2)))), r"\[1099511627776, 1099511627776\] but 0 bytes"),
        (field(2, field(6, field(7, field(1, b"\x01" * 33)) + BLOB)), "more than 32 dimensions"),
        (field(2, field(6, field(7, field(1, b"\x01")) + field(5, b"\0\0\0"))), r"shape \[1\] but 3 bytes"),
        (field(2, field(6, b"\x2d\0\0\0\0")), "wire type 5 where Caffe writes 2"),  # a list that is not packed
        (field(2, b"") * 400_000, "more than 300,000 fields"),
        (
            field(2, field(4, b"a") + field(6, field(7, b"") + BLOB)) * 2,
            "two layers with parameters that are called 'a'",
        ),
    ],
)
def test_one_clear_line(tmp_path, content, message):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(CaffemodelError, match=message) as error:
        load_caffemodel(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, InputError)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CaffemodelError, match=r"no file .*; correct the name"):
        load_caffemodel(tmp_path / "none.caffemodel")
    with pytest.raises(CaffemodelError, match=r"is a folder; expected a \.caffemodel: give the file inside"):
        load_caffemodel(tmp_path)


SMALL = encode(
    [
        ("a", "Convolution", [np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3), np.zeros(2, np.float32)]),
        ("b", "BN", [np.ones((1, 2, 1, 1), np.float32)]),
    ],
    diffs=True,
)
DAMAGE = st.one_of(
    st.builds(lambda data, n: data[: n % len(data)], st.just(SMALL), st.integers(0)),
    st.builds(
        lambda data, flips: bytes(byte ^ flips.get(i, 0) for i, byte in enumerate(data)),
        st.just(SMALL),
        st.dictionaries(st.integers(0, len(SMALL) - 1), st.integers(1, 255), min_size=1, max_size=8),
    ),
    st.binary(max_size=200),
)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DAMAGE)
@example(field(2, field(6, b"\x32\0" * 5000)))
@example(b"\x12\x02\x32\x00" * 5000)
@example(b"\x0b" * 100_000)
def test_damaged_files_cost_little_and_raise_one_error(tmp_path, content):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    tracemalloc.start()
    began = time.perf_counter()
    try:
        layers = load_caffemodel(path)
        assert all(isinstance(blob, np.ndarray) for blobs in layers.values() for blob in blobs)
    except CaffemodelError as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100e6 + len(content)
    assert time.perf_counter() - began < 10


def test_a_large_file_of_tiny_fields(tmp_path, monkeypatch):
    """A file of 2 MB with as many fields as possible is refused quickly."""
    monkeypatch.setattr(protobuf, "MAX_FIELDS", protobuf.MAX_FIELDS // 10)
    path = tmp_path / "net.caffemodel"
    small_blob = field(6, field(7, b"") + field(5, b"\0\0\0\0"))
    for content in (b"\x12\x00", field(2, field(4, b"n")), field(2, small_blob), small_blob):
        whole = content * (2_000_000 // len(content))
        path.write_bytes(field(2, whole) if content is small_blob else whole)
        tracemalloc.start()
        with pytest.raises(CaffemodelError, match=r"more than 30,000 fields|two layers with"):
            load_caffemodel(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5e6


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_a_gigabyte_in_seconds_and_little_memory(tmp_path, rng):
    """The file of 0.9 GB has the fully connected layers and the deconvolution in their original sizes."""
    path = tmp_path / "large.caffemodel"
    values = rng.standard_normal(4096 * 512 * 7 * 7 + 4096 * 4096).astype(np.float32)
    with path.open("wb") as stream:
        for name, count in ((b"fc6", 4096 * 512 * 49), (b"fc6-deconv", 4096 * 512 * 49), (b"fc7", 4096 * 4096)):
            blob = field(7, field(1, varint(count))) + b"\x2a" + varint(4 * count)
            layer = field(4, name) + b"\x32" + varint(len(blob) + 4 * count) + blob
            stream.write(b"\x12" + varint(len(layer) + 4 * count) + layer)
            values[:count].tofile(stream)
    del values
    script = (
        "import re, sys, time; from deconvnet_jax.weights.caffemodel import load_caffemodel\n"
        "began = time.perf_counter(); layers = load_caffemodel(sys.argv[1])\n"
        "seconds = time.perf_counter() - began\n"
        "print(seconds, 1024 * int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]))\n"
        "assert sum(blob.size for blobs in layers.values() for blob in blobs) == 222298112"
    )
    words = [sys.executable, "-c", script, str(path)]
    seconds, peak = map(float, subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout.split())
    assert peak < 2.5e9
    assert seconds < 30
