"""Tests the reader of torch.save's files with files from PyTorch and with hostile files."""

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deconvnet_jax.errors import InputError
from deconvnet_jax.weights.torch_file import load_torch_file

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch writes the files: pip install deconvnet_jax[reference]")


def save(torch, path, content, zipped, protocol=2):
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def refusal(path):
    with pytest.raises(InputError, match=r"(cannot be read as|expected) a state dict of torch\.save") as caught:
        load_torch_file(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def write_zip(path, program, storages=None, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("vgg/data.pkl", program)
        for name, content in {**{f"data/{key}": value for key, value in (storages or {}).items()}, **members}.items():
            archive.writestr(f"vgg/{name}", content)
    return path


def write_legacy(path, program, storages=None, system=None):
    start = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True} if system is None else system)
    storages = storages or {}
    with path.open("wb") as stream:
        for value in start:
            pickle.dump(value, stream, 2)
        stream.write(program)
        pickle.dump(list(storages), stream, 2)
        for values in storages.values():
            stream.write(struct.pack("<q", len(values)) + values.tobytes())
    return path


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_models_state_dict(torch, tmp_path, zipped, protocol):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(5, 2))
    found = load_torch_file(save(torch, tmp_path / "net.pth", model.state_dict(), zipped, protocol))
    expected = {name: value.numpy() for name, value in model.state_dict().items()}
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, strict=True)


@FORMATS
def test_every_type_and_view(torch, tmp_path, rng, zipped):
    base = torch.tensor(rng.standard_normal((6, 5, 4)))
    tensors = {
        "double": base,
        "transposed": base.permute(2, 0, 1),
        "part": base[1:5:2, ::3, 1],
        "last": base[5, 4, 3],
        "parameter": torch.nn.Parameter(base.float()),
        "half": base.half(),
        "long": (base * 100).long(),
        "int": (base * 100).int(),
        "short": (base * 100).short(),
        "char": (base * 20).to(torch.int8),
        "byte": base.abs().to(torch.uint8),
        "bool": base > 0,
        "empty": torch.zeros(0),
        "steps": torch.tensor(7),
    }
    path = save(torch, tmp_path / "net.pt", tensors, zipped)
    found = load_torch_file(path)
    path.unlink()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy(), strict=True)
    assert np.shares_memory(found["double"], found["part"])
    assert not found["double"].flags.writeable


@FORMATS
def test_bfloat16_becomes_float32(torch, tmp_path, rng, zipped):
    tensor = torch.tensor(rng.standard_normal((3, 4))).bfloat16()
    found = load_torch_file(save(torch, tmp_path / "a.pth", {"a": tensor.T, "b": tensor[:0]}, zipped))
    np.testing.assert_array_equal(found["a"], tensor.float().numpy().T, strict=True)
    np.testing.assert_array_equal(found["b"], np.zeros((0, 4), np.float32), strict=True)


@FORMATS
def test_a_checkpoint_with_other_things_in_it(torch, tmp_path, zipped):
    weights = {"a": torch.arange(6.0).reshape(2, 3), "note": "no tensor", 3: torch.zeros(2)}
    state = {"state": {0: {"step": torch.tensor(3.0), "moments": (torch.zeros(3), [1.5, None, True])}}, "groups": []}
    path = save(torch, tmp_path / "net.pth", {"epoch": 7, "state_dict": weights, "optimizer": state}, zipped)
    found = load_torch_file(path)
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], np.arange(6.0).reshape(2, 3))


def test_a_file_as_python_2_and_the_first_pytorch_wrote_them(tmp_path, rng):
    """Has byte strings, OrderedDict from a list of lists, views of storages, _rebuild_tensor with four arguments."""
    values = rng.standard_normal(10).astype(np.float32)

    def text(value):
        return b"U" + bytes([len(value)]) + value

    identity = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"77") + text(b"cuda:0") + b"K\x0a"
    identity += b"(" + text(b"78") + b"K\x03K\x06t" + b"tQ"  # view of the values 3 to 8
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + identity + b"K\x01K\x02K\x02\x86K\x03K\x01\x86tR"
    pairs = b"]](" + text(b"features.0.weight") + tensor + b"ea"
    program = b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R}" + text(b"_metadata") + b"}sb."
    found = load_torch_file(write_legacy(tmp_path / "vgg16.pth", program, {"77": values}))
    np.testing.assert_array_equal(found["features.0.weight"], [values[4:6], values[7:9]])


# Tests of hostile files.


class Shell:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


@pytest.mark.parametrize("write", [write_zip, write_legacy, lambda path, program: path.write_bytes(program)])
@pytest.mark.parametrize("protocol", range(5))
def test_nothing_in_a_file_is_run(tmp_path, write, protocol):
    proof, path = tmp_path / "proof", tmp_path / "net.pth"
    write(path, pickle.dumps({"a": Shell(proof)}, protocol))
    message = refusal(path)
    if write is not write_legacy and write is not write_zip:
        assert "a pickle, which is not loaded" in message
    elif protocol >= 2:
        assert "'posix.system'" in message
    assert not proof.exists()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"cos\nsystem\n(U\x04truetR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "instruction"),
        (b"\x80\x02ctorch.nn\nModule\n)\x81.", "torch.nn.Module"),
        (b"S'\\q'\n.", "instruction STRING"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x04\x8c\x05torch\x8c\x04load\x93.", "torch.load"),
        (b"\x80\x02c__torch__\nVGG\n.", "__torch__.VGG"),  # TorchScript
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nctorch\nFloatStorage\n\x85R.", "argument"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "not callable"),
        # pickle would allocate a list of as many entries as this number.
        (b"\x80\x02}r\xff\xff\xff\xff.", "it numbers an object higher than its instructions allow"),
        (b"\x80\x02" + 1_000_001 * b"N" + b".", "1,000,000 instructions"),
        (b"\x80\x02]q\x00h\x00a.", "no tensors"),  # a list that contains itself
        (b"\x80\x02X\xff\xff\xff\xffabc.", "bytes"),
        (b"\x80\x02h\x07.", "7"),
        (b"\x80\x02K\x01\x86.", "stack"),
        (b"\x80\x02.", "stack"),
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_hostile_and_broken_pickles(tmp_path, write, program, reason):
    assert reason in refusal(write(tmp_path / "net.pth", program))


class Tensor:
    """Object that is pickled as a tensor of any shape on a storage of 10 values."""

    def __init__(self, *view):
        self.view = view

    def __reduce__(self):
        import torch

        return torch._utils._rebuild_tensor_v2, (Storage(), *self.view, False, collections.OrderedDict())


class Storage:
    pass


class TensorPickler(pickle.Pickler):
    identity = ()

    def persistent_id(self, value):
        return self.identity if isinstance(value, Storage) else None


def program(torch, *view, identity=None):
    stream = io.BytesIO()
    pickler = TensorPickler(stream, 2)
    pickler.identity = identity or ("storage", torch.FloatStorage, "0", "cpu", 10)
    pickler.dump({"a": Tensor(*view)})
    return stream.getvalue()


VALUES = {"0": np.arange(10, dtype=np.float32)}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    "view",
    [
        (0, (11,), (1,)),
        (1, (10,), (1,)),
        (-1, (2,), (1,)),
        (0, (2, 2), (9, 2)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2**40,), (0,)),
        (0, (2**40, 2), (0, 1)),
        (0, (0, 2**62, 2**62), (1, 1, 1)),
        (2**80, (), ()),
        (10, (), ()),
        (0, (2**32, 2**32), (2**32, 1)),
        (0, (1,) * 100, (1,) * 100),
        (0, (2, 2), (1,)),
        (0, (2.0,), (1,)),
        (None, (2,), (1,)),
    ],
)
def test_views_stay_inside_their_storage(torch, tmp_path, write, view):
    refusal(write(tmp_path / "net.pth", program(torch, *view), VALUES))


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_views_at_the_edge(torch, tmp_path, write):
    path = tmp_path / "net.pth"
    for view in [(0, (10,), (1,)), (0, (3, 2), (2, 5)), (9, (1, 1), (2**80, 7)), (9, (), ()), (99, (0,), (5,))]:
        write(path, program(torch, *view), VALUES)
        offset, size, stride = view
        found = load_torch_file(path)["a"]
        assert found.shape == size
        for index in np.ndindex(size):
            assert found[index] == offset + sum(i * step for i, step in zip(index, stride, strict=True))


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_storages_that_are_none(torch, tmp_path, write):
    kind = torch.FloatStorage
    for identity in [
        ("module", kind, "0", "cpu", 10),
        ("storage", "<O8", "0", "cpu", 10),
        ("storage", kind, 0, "cpu", 10),
        ("storage", kind, "0", "cpu", -10),
        ("storage", kind, "0", "cpu", 11),  # the file has 10
        ("storage", kind, "1", "cpu", 10),  # the file has none
        ("storage", kind, "0", "cpu", 10, ("1", 5, 6)),
        ("storage", kind, "0", "cpu", 10, ("1", 5)),
        ("storage", kind),
        ("storage",),
    ]:
        refusal(write(tmp_path / "net.pth", program(torch, 0, (6,), (1,), identity=identity), VALUES))


def test_big_endian_files(torch, tmp_path):
    tensor, path = program(torch, 0, (10,), (1,)), tmp_path / "net.pth"
    assert "big-endian" in refusal(write_zip(path, tensor, VALUES, byteorder="big"))
    assert "big-endian" in refusal(write_legacy(path, tensor, VALUES, system={"little_endian": False}))
    assert list(load_torch_file(write_zip(path, tensor, VALUES, byteorder="little"))) == ["a"]


def test_other_files(torch, tmp_path):
    path = tmp_path / "net.pth"
    with pytest.raises(InputError, match=r"no file .*net\.pth"):
        load_torch_file(path)
    for content in [b"", b"PK\3\4", b"<html>\n<body>not\nfound", b"\x89HDF\r\n\x1a\n", bytes(1000), b"ustar" * 300]:
        path.write_bytes(content)
        refusal(path)
    assert "compressed" in refusal(write_zip(path, program(torch, 0, (10,), (1,)), VALUES, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"")
    assert "is an .npz file" in refusal(path)
    save(torch, path, torch.zeros(3), True)
    assert "no tensors by name" in refusal(path)
    save(torch, path, torch.nn.Linear(1, 1), True)
    message = refusal(path)
    assert "'torch.nn.modules.linear.Linear'" in message
    assert "torch.save(model.state_dict(), FILE)" in message


@pytest.fixture(scope="module", params=[True, False], ids=["zip", "legacy"])
def good_file(torch, request):
    stream = io.BytesIO()
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.Linear(2, 2).half())
    torch.save(model.state_dict(), stream, _use_new_zipfile_serialization=request.param)
    return stream.getvalue()


def read_or_refuse(path):
    """Returns whether the file was read, after reading every value; any exception but InputError fails the test."""
    try:
        tensors = load_torch_file(path)
    except InputError:
        return False
    for tensor in tensors.values():
        tensor.tobytes()
    return True


def test_every_truncation(good_file, tmp_path):
    path = tmp_path / "net.pth"
    for length in range(0, len(good_file), 1 + len(good_file) // 500):
        path.write_bytes(good_file[:length])
        assert not read_or_refuse(path)
    path.write_bytes(good_file)
    assert read_or_refuse(path)


@given(st.data())
@FUZZ
def test_flipped_bytes(good_file, tmp_path, data):
    content = bytearray(good_file)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    read_or_refuse(path)
