"""Reads the tensors of a file that torch.save wrote, without PyTorch and without running what the file contains.

Such a file is a pickle: a program that may call any Python function. It is run by Python's unpickler only after every
instruction in it was found to be one of the few of which state dicts are made, and the unpickler knows only the
functions and types of state dicts, in forms of this module.
"""

import io
import math
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import jax.numpy as jnp
import numpy as np

from deconvnet_jax import file_kinds
from deconvnet_jax.errors import InputError, one_line

# Start of the format that came before the zip files of PyTorch 1.6.
MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001

MAX_INSTRUCTIONS = 1_000_000  # a tensor takes some 40
MAX_DEPTH = 4  # of dictionaries in which a state dict is looked for
BFLOAT16 = jnp.dtype("bfloat16")

# Names that pickletools gives the instructions of which state dicts are made.
_INSTRUCTIONS = re.compile(
    "PROTO|FRAME|STOP|MARK|NONE|NEWTRUE|NEWFALSE|BININT[12]?|LONG1|BINFLOAT|(SHORT_)?BIN(UNICODE|STRING)"
    "|(LONG_)?BIN(PUT|GET)|MEMOIZE|EMPTY_(TUPLE|LIST|DICT)|TUPLE[123]?|APPENDS?|SETITEMS?|(STACK_)?GLOBAL|REDUCE|BUILD"
    "|BINPERSID|NEWOBJ"
)
_DTYPES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Storage(NamedTuple):
    """`length` values of the storage `key`, from its value number `start` on."""

    key: str
    start: int
    length: int


class _Tensor(NamedTuple):
    """A view of a storage that is not read yet; offset and stride in values."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def load_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict.

    Args:
      path: a file of `torch.save(model.state_dict(), path)`, of any version of PyTorch since 0.1.10 (zip files since
        1.6), or of a dictionary that has the state dict under any key, such as "state_dict" or "model".

    Returns:
      {name: array} of the file's types and shapes, in its order; bfloat16 becomes float32. The arrays are read-only,
      share memory where the tensors did, and do not need the file any more. Entries that are no tensors are left out.

    Raises:
      InputError: for a file that is missing, of another kind, truncated or damaged, or that asks for anything but
        tensors and dictionaries.
    """
    path = Path(path)
    kind = file_kinds.file_kind(path)
    if kind not in (file_kinds.TORCH_ZIP, file_kinds.TORCH_LEGACY):
        raise InputError(file_kinds.wrong_kind(path, kind, "a state dict of torch.save"))
    try:
        # Ignored: pickletools warns of texts with stray backslashes, which are refused anyway.
        with path.open("rb") as stream, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            if kind == file_kinds.TORCH_ZIP:
                with zipfile.ZipFile(stream) as archive:
                    return _read_zip(archive)
            return _read_legacy(stream, path.stat().st_size)
    except Exception as error:  # of zipfile, pickle and NumPy, which have one for each kind of damage
        raise InputError(
            f"{path} cannot be read as a state dict of torch.save ({one_line(error)}); download it again, or write it "
            "with torch.save(model.state_dict(), FILE)"
        ) from error


def _read_zip(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """Reads the format of PyTorch since 1.6: NAME/data.pkl, and each storage in NAME/data/KEY."""
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError("a zip file without data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and _member(archive, f"{folder}byteorder") != b"little":
        raise ValueError("written on a big-endian machine")
    unpickler = _unpickler(io.BytesIO(_member(archive, pickles[0])))
    tensors = _state_dict(unpickler.load())
    keys = {tensor.storage.key for tensor in tensors.values()}
    return _arrays(tensors, {key: _member(archive, f"{folder}data/{key}") for key in keys}, unpickler.dtypes)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{name!r} is compressed")
    return archive.read(info)


def _read_legacy(stream: IO[bytes], file_size: int) -> dict[str, np.ndarray]:
    """Reads the format before PyTorch 1.6: five pickles, the fourth the object; then each storage's length, values."""
    for expected in (MAGIC_NUMBER, PROTOCOL_VERSION):
        if _unpickler(stream).load() != expected:
            raise ValueError("it does not start as such files do")
    system = _unpickler(stream).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("written on a big-endian machine")
    unpickler = _unpickler(stream)
    tensors = _state_dict(unpickler.load())
    contents = {}
    for key in _unpickler(stream).load():
        size = int.from_bytes(stream.read(8), "little") * unpickler.dtypes[key].itemsize
        if size > file_size - stream.tell():
            raise ValueError("truncated")
        contents[key] = stream.read(size)
    return _arrays(tensors, contents, unpickler.dtypes)


def _state_dict(root: object) -> dict[str, _Tensor]:
    """The dictionary with the most tensors by name: checkpoints have it under "state_dict", "model" or another key."""
    best: dict[str, _Tensor] = {}
    level, seen = [root], set()
    for _ in range(MAX_DEPTH):
        dictionaries = {id(item): item for item in level if isinstance(item, dict) and id(item) not in seen}
        seen |= set(dictionaries)
        level = []
        for dictionary in dictionaries.values():
            entries = {key: value for key, value in dictionary.items() if isinstance(key, str)}
            tensors = {key: value for key, value in entries.items() if isinstance(value, _Tensor)}
            best = max(best, tensors, key=len)
            level += entries.values()
    if not best:
        raise ValueError("it holds no tensors by name")
    return best


def _arrays(
    tensors: Mapping[str, _Tensor], contents: Mapping[str, bytes], dtypes: Mapping[str, np.dtype]
) -> dict[str, np.ndarray]:
    storages = {key: np.frombuffer(content, dtypes[key]) for key, content in contents.items()}
    for key, values in storages.items():
        if values.dtype == BFLOAT16:  # converted once, however many tensors share it
            storages[key] = values.astype(np.float32)
            storages[key].flags.writeable = False
    return {name: _array(tensor, storages) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    (key, start, length), offset, size, stride = tensor
    values = storages[key][start : start + length]
    if len(values) != length or math.prod(side or 1 for side in size) > max(1, length):
        raise ValueError(f"the storage {key!r} has {len(storages[key]):,} values, too few")
    if 0 in size:
        return np.zeros(size, values.dtype)
    item = values.itemsize
    strides = [step * item if side > 1 else 0 for side, step in zip(size, stride, strict=True)]
    return np.ndarray(size, values.dtype, values, offset * item, strides)  # NumPy refuses what lies outside


def _unpickler(stream: IO[bytes]) -> "_Unpickler":
    """Returns the unpickler of a pickle whose instructions are all harmless; leaves the stream behind it."""
    start, built = stream.tell(), []
    for count, (opcode, value, position) in enumerate(pickletools.genops(stream)):
        if count == MAX_INSTRUCTIONS:
            raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions")
        if not _INSTRUCTIONS.fullmatch(opcode.name):
            raise ValueError(f"the instruction {opcode.name}, which a state dict does not need")
        if (
            opcode.name == "LONG_BINPUT" and isinstance(value, int) and value > count
        ):  # pickle takes memory for all numbers below
            raise ValueError("an object with a number that no object has")
        if opcode.name == "BUILD":
            built.append((position or 0) - start)
    end = stream.tell()
    stream.seek(start)
    program = bytearray(stream.read(end - start))
    for position in built:  # attributes of dictionaries, such as a state dict's _metadata, are dropped
        program[position : position + 1] = pickle.POP
    return _Unpickler(bytes(program))


class _Unpickler(pickle.Unpickler):
    """Python's unpickler, for the few functions and types of state dicts.

    Attributes:
      dtypes: types of the storages, by key.
    """

    def __init__(self, program: bytes):
        super().__init__(io.BytesIO(program), encoding="latin-1")  # of Python 2's texts
        self.dtypes: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Callable[..., object] | np.dtype:
        """Returns what a state dict means by a name; nothing is imported."""
        known = _DTYPES if module in ("torch", "torch.cuda") else _FUNCTIONS.get(module, {})
        if name not in known:
            asked = f"{module}.{name}"[:100]
            raise ValueError(f"it asks for {asked!r}, which is not run; a state dict does not need it")
        return known[name]

    def persistent_load(self, pid: object) -> _Storage:
        """Returns a storage, from ("storage", type, key, device, values[, None or (key, first value, values)])."""
        match pid:
            case ("storage", np.dtype() as dtype, str(key), _, int(count), *view):
                pass
            case _:
                raise ValueError("a reference to something that is no storage")
        if self.dtypes.setdefault(key, dtype) != dtype:
            raise ValueError(f"the storage {key[:100]!r} has two types")
        match view:
            case [] | [None]:
                return _Storage(key, 0, count)
            case [(_, int(start), int(part))] if 0 <= start <= start + part <= count:
                return _Storage(key, start, part)
        raise ValueError("a part that reaches beyond its storage")


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, *_: object) -> _Tensor:
    """As torch._utils._rebuild_tensor and, with further arguments on gradients, _rebuild_tensor_v2."""
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor without storage")
    return _Tensor(storage, offset, size, stride)


_FUNCTIONS: dict[str, dict[str, Callable[..., object]]] = {
    "collections": {"OrderedDict": dict},
    "torch._utils": {
        "_rebuild_tensor": _rebuild_tensor,
        "_rebuild_tensor_v2": _rebuild_tensor,
        "_rebuild_parameter": lambda tensor, *_: tensor,
    },
}
