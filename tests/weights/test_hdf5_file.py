"""Tests HDF5 files that claim more than they hold, link to other files or are damaged."""

import tracemalloc

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.weights import load_caffemodel
from deconvnet_jax.weights.hdf5_file import natural_order, read_hdf5

h5py = pytest.importorskip("h5py", reason="h5py writes the files")


def refusal(path):
    with pytest.raises(InputError, match="is not a complete HDF5 file") as caught:
        read_hdf5(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_arrays_in_natural_order(tmp_path, rng):
    arrays = {f"layers/conv2d_{i}/vars/0": rng.standard_normal((2, 3)).astype(np.float16) for i in (10, 9, 2)}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip")
        file["name"], file["step"], file["optimizer_weights/m"] = np.bytes_("vgg"), 3, np.zeros(3)
    found = read_hdf5(tmp_path / "a.h5")
    assert list(found) == sorted(arrays, key=natural_order)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize("text", [bytes, str])
def test_the_order_that_keras_records(tmp_path, text):
    order = ["z/kernel:0", "z/bias:0", "conv_2/kernel:0", "conv_2/bias:0", "a/kernel:0", "a/bias:0"]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        root = file.create_group("model_weights")
        kind = h5py.string_dtype() if text is str else "S20"
        root.attrs.create("layer_names", ["z", "pool", "conv_2", "gone", "a"], dtype=kind)
        root.create_group("pool").attrs["weight_names"] = np.zeros(0)
        for layer in ("a", "conv_2", "z"):
            group = root.create_group(layer)
            group.attrs.create("weight_names", [f"{layer}/kernel:0", f"{layer}/bias:0"], dtype=kind)
            group[f"{layer}/bias:0"], group[f"{layer}/kernel:0"] = np.zeros(3), np.zeros((2, 3))
        root["last"] = np.zeros(3)
    expected = [f"{name.partition('/')[0]}/{name}" for name in order]
    assert list(read_hdf5(tmp_path / "a.h5")) == [*expected, "last"]


@pytest.mark.parametrize("options", [{}, {"chunks": (1024, 1024)}, {"chunks": (1024, 1024), "compression": "gzip"}])
def test_shapes_without_values(tmp_path, options):
    tracemalloc.start()
    try:
        for side, message in (
            (2**12, "67,108,864 bytes and lacks some of them"),
            (2**16, "claims 17,179,869,184 bytes, but the file has"),
        ):
            with h5py.File(tmp_path / "a.h5", "w") as file:
                file.create_dataset("data/fc6/0", (side, side), "f4", **options)
            assert message in refusal(tmp_path / "a.h5")
            with pytest.raises(InputError, match=message):
                load_caffemodel(tmp_path / "a.h5")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_an_array_that_is_stored_in_part(tmp_path, rng, compression):
    values = rng.standard_normal((7, 10)).astype(np.float32)
    for rows in (7, 6):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            data = file.create_dataset("a", (7, 10), "f4", chunks=(2, 3), compression=compression)
            data[:rows] = values[:rows]
        if rows == 7:
            np.testing.assert_array_equal(read_hdf5(tmp_path / "a.h5")["a"], values)
        else:
            assert "a claims 280 bytes and lacks some of them" in refusal(tmp_path / "a.h5")


def test_many_arrays_that_are_compressed_zeros(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(9):
            file.create_dataset(
                f"a/{i}", data=np.zeros((1000, 2500), np.float32), compression="gzip", compression_opts=9
            )
    assert "a/6 claims 70,000,000 bytes, but the file has" in refusal(tmp_path / "a.h5")


def test_arrays_in_other_files(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(48)))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["values"] = np.arange(4.0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (12,), "f4", external=[(str(tmp_path / "secret"), 0, 48)])
    assert "a lies in another file" in refusal(tmp_path / "a.h5")
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "values", (4,))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("a", layout)
    assert "a lies in another file" in refusal(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/values")
        file["b"] = h5py.SoftLink("/a")
    assert read_hdf5(tmp_path / "a.h5") == {}


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_damaged_files(tmp_path, rng, compression):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for i in range(3):
            file.create_dataset(f"data/conv{i}/0", data=rng.standard_normal((3, 4, 3, 3)), compression=compression)
            file[f"data/conv{i}/1"] = np.zeros(3, np.float32)
    content = path.read_bytes()
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            damaged[rng.integers(len(damaged))] = rng.choice([0, 255, rng.integers(256)])
        path.write_bytes(damaged[: rng.integers(len(damaged) // 2, len(damaged))] if rng.integers(4) == 0 else damaged)
        for read in (read_hdf5, load_caffemodel):
            try:
                read(path)
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017
