"""Tests that the kind of a file is recognised by its content under any name."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from deconvnet_jax import file_kinds
from deconvnet_jax.errors import InputError
from deconvnet_jax.file_kinds import file_kind, wrong_kind


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, content):
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def zipped(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return stream.getvalue()


def tarred(*names):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return stream.getvalue()


def npy():
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


BLOB = field(7, field(1, b"\3")) + field(5, bytes(12))
GRAPH_NODE = field(1, field(1, b"conv1/weights") + field(2, b"Const"))
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
CONTENTS = [
    (b"", file_kinds.EMPTY, "an empty file"),
    (b"\xfe\xed\xfa\xce" * 9, file_kinds.UNKNOWN, "unknown kind"),
    (bytes(1000), file_kinds.UNKNOWN, "unknown kind"),
    (gzip.compress(b"x" * 99), None, "a gzip archive"),
    (bz2.compress(b"x" * 99), None, "a bzip2 archive"),
    (lzma.compress(b"x" * 99), None, "an xz archive"),
    (b"\x28\xb5\x2f\xfd\x24\x63", None, "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c\0\4", None, "a 7z archive"),
    (b"Rar!\x1a\7\1\0", None, "a RAR archive"),
    (tarred("net.caffemodel", "readme"), None, "a tar archive"),
    (tarred("sys_info", "pickle", "storages", "tensors"), file_kinds.TORCH_TAR, "PyTorch file from before 0.1.10"),
    (zipped(net_caffemodel=b"x"), file_kinds.ZIP, "a zip archive"),
    (zipped(a_npy=npy(), b_npy=npy()), file_kinds.NPZ, "an .npz file"),
    (zipped(vgg__data_pkl=b"x", vgg__data__0=b"x"), file_kinds.TORCH_ZIP, "a PyTorch file"),
    (zipped(vgg__data_pkl=b"x", vgg__constants_pkl=b"x"), file_kinds.TORCHSCRIPT, "a TorchScript program"),
    (zipped(config_json=b"{}", model_weights_h5=b"x"), file_kinds.KERAS, "a Keras 3 model"),
    (zipped(a_npy=npy())[:-9], file_kinds.BROKEN_ZIP, "an incomplete zip file"),
    (LEGACY, file_kinds.TORCH_LEGACY, "before 1.6"),
    (pickle.dumps({"conv1_1": [1, 2]}), file_kinds.PICKLE, "a pickle, which is not loaded"),
    (pickle.dumps({"conv1_1": [1, 2]}, 0), file_kinds.PICKLE, "a pickle, which is not loaded"),
    (pickle.dumps({"conv1_1": [1, 2]}, 1), file_kinds.PICKLE, "a pickle, which is not loaded"),
    (npy(), file_kinds.NPY, "an .npy file"),
    (b"\x10\0\0\0\0\0\0\0" + b'{"a":{}}       ', file_kinds.SAFETENSORS, "a .safetensors file"),
    (b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(128) + bytes(99), file_kinds.MATLAB, "a MATLAB file"),
    (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", None, "a MATLAB 7.3 file"),
    (field(1, b"VGG") + field(2, field(4, b"conv1_1")), file_kinds.CAFFEMODEL, "a caffemodel"),
    (field(1, b"VGG") + field(100, field(1, b"conv1_1") + field(7, BLOB))[:-3], file_kinds.CAFFEMODEL, "a caffemodel"),
    (field(1, 20000) + field(2, b"a/b_iter_2.caffemodel") + field(3, BLOB), file_kinds.SOLVERSTATE, "solver state"),
    (field(1, 7) + field(3, BLOB) + field(3, BLOB) + field(4, 1), file_kinds.SOLVERSTATE, "solver state"),
    (field(1, 7) + field(2, b"pytorch") + field(3, b"2.0") + field(7, GRAPH_NODE), file_kinds.ONNX, "an ONNX model"),
    (field(1, 1) + field(2, field(1, b"\x0a\0")), file_kinds.SAVED_MODEL, "a TensorFlow SavedModel"),
    (GRAPH_NODE * 3 + field(4, field(1, 27)), file_kinds.GRAPH, "a TensorFlow graph"),
    (field(1, field(1, b"v1") + field(4, b"serve")) + field(2, GRAPH_NODE * 2), file_kinds.GRAPH, "a TensorFlow graph"),
    (field(1, 1) + field(2, 3) + field(3, 9) + field(4, 9) + field(5, bytes(999)), file_kinds.MEAN_IMAGE, "mean image"),
    (bytes(99) + bytes.fromhex("57fb808b247547db"), file_kinds.TF_CHECKPOINT, "a TensorFlow checkpoint"),
    (b'model_checkpoint_path: "vgg.ckpt-1"\n', file_kinds.TF_CHECKPOINT, "a TensorFlow checkpoint"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", file_kinds.LFS_POINTER, "git lfs pull"),
    (b"\n<!-- x --><!DOCTYPE html>\n<html>", file_kinds.WEB_PAGE, "a web page"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', file_kinds.WEB_PAGE, "a web page"),
    (b'name: "DeconvNet"\nlayer {', file_kinds.PROTOTXT, ".prototxt"),
    (b"# deploy\nlayers {\n", file_kinds.PROTOTXT, ".prototxt"),
    ("not found, dé".encode() * 900, file_kinds.TEXT, "a text file"),
    ("nicht gefunden".encode("utf-16"), file_kinds.TEXT, "a text file"),
    (b"\x89PNG\r\n\x1a\n\0\0", file_kinds.IMAGE, "an image"),
    (b"\xff\xd8\xff\xe0\0\0", file_kinds.IMAGE, "an image"),
]


@pytest.mark.parametrize("suffix", [".caffemodel", ".pth"])
@pytest.mark.parametrize(("content", "kind", "what"), CONTENTS, ids=[what for _, _, what in CONTENTS])
def test_kinds(tmp_path, content, kind, what, suffix):
    path = tmp_path / f"vgg16{suffix}"
    path.write_bytes(content)
    found = file_kind(path)
    assert kind is None or found == kind
    message = wrong_kind(path, found, "weights")
    assert what in message
    assert message.startswith(f"{path} is a")
    assert "damaged" not in message


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["data/conv1_1/0", "data/conv1_1/1"], file_kinds.CAFFE_HDF5),
        (["iter", "history/0"], file_kinds.SOLVERSTATE),
        (["layers/conv2d/vars/0"], file_kinds.HDF5),
        (["block1_conv1/block1_conv1_W_1:0"], file_kinds.HDF5),
    ],
)
def test_kinds_of_hdf5(tmp_path, names, kind):
    h5py = pytest.importorskip("h5py", reason="h5py writes the files")
    with h5py.File(tmp_path / "weights", "w") as file:
        for name in names:
            file[name] = np.zeros(3)
    assert file_kind(tmp_path / "weights") == kind


def test_folders_and_names(tmp_path):
    assert file_kind(tmp_path) == file_kinds.FOLDER
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    assert file_kind(tmp_path) == file_kinds.SAVED_MODEL
    (tmp_path / "vgg_16.ckpt.index").write_bytes(b"x")
    assert file_kind(tmp_path / "vgg_16.ckpt") == file_kinds.TF_CHECKPOINT
    (tmp_path / "vgg.ckpt.data-00000-of-00001").write_bytes(bytes(9))
    assert file_kind(tmp_path / "vgg.ckpt.data-00000-of-00001") == file_kinds.TF_CHECKPOINT
    with pytest.raises(InputError, match=r"no file .*none\.pth; correct the name"):
        file_kind(tmp_path / "none.pth")
    with pytest.raises(InputError, match=r"cannot be read \(File name too long\)"):
        file_kind(tmp_path / ("a" * 300))


def test_any_bytes_have_a_kind(tmp_path, rng):
    path = tmp_path / "weights"
    contents = [content for content, _, _ in CONTENTS if content]
    for _ in range(2000):
        content = bytearray(contents[rng.integers(len(contents))])
        for _ in range(rng.integers(1, 5)):
            content[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(content[: rng.integers(1, len(content) + 1)])
        assert isinstance(file_kind(path), file_kinds.FileKind)
