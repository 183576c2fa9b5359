"""Reads the tensors of a file of `torch.save`, without PyTorch and without running code from the file.

Such a file is a pickle: a program that may call any Python function. This module first checks every instruction, and
accepts only the few that state dicts consist of. Python's unpickler then runs them, but finds only this module's own
versions of the functions and types that state dicts need.
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

# The first two numbers in files of PyTorch before 1.6, which are no zip files.
MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001

MAX_INSTRUCTIONS = 1_000_000  # per pickle; a tensor takes about 40
MAX_DEPTH = 4  # levels of nested dictionaries that are searched for a state dict
BFLOAT16 = jnp.dtype("bfloat16")

# The instructions that state dicts consist of, by pickletools' names.
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
    """Part of the storage `key`: `length` values, beginning with value number `start`."""

    key: str
    start: int
    length: int


class _Tensor(NamedTuple):
    """View of a storage that is not read yet; offset and stride are in values, not bytes."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def load_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict.

    Args:
      path: a file that `torch.save(model.state_dict(), path)` wrote, with any version of PyTorch since 0.1.10. It may
        also hold a dictionary with the state dict under any key, such as "state_dict" or "model".

    Returns:
      {name: array}, with the shapes, dtypes and order of the file; bfloat16 becomes float32. Entries that are no
      tensors are left out. The arrays are read-only, share memory where the tensors did, and no longer need the file.

    Raises:
      InputError: for a file that is missing, of another kind, truncated or damaged, or that contains more than tensors
        and dictionaries.
    """
    path = Path(path)
    kind = file_kinds.file_kind(path)
    if kind not in (file_kinds.TORCH_ZIP, file_kinds.TORCH_LEGACY):
        raise InputError(file_kinds.wrong_kind(path, kind, "a state dict of torch.save"))
    try:
        # pickletools warns of texts with stray backslashes, which are refused anyway.
        with path.open("rb") as stream, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            if kind == file_kinds.TORCH_ZIP:
                with zipfile.ZipFile(stream) as archive:
                    return _read_zip(archive)
            return _read_legacy(stream, path.stat().st_size)
    except Exception as error:  # zipfile, pickle and NumPy raise a different type for each kind of damage.
        raise InputError(
            f"{path} cannot be read as a state dict of torch.save ({one_line(error)}); download it again, or write it "
            "with torch.save(model.state_dict(), FILE)"
        ) from error


def _read_zip(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """Returns the tensors in the format since PyTorch 1.6: a pickle NAME/data.pkl, and storages NAME/data/KEY."""
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError("it is a zip file without data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and _member(archive, f"{folder}byteorder") != b"little":
        raise ValueError("it was written on a big-endian machine")
    unpickler = _unpickler(io.BytesIO(_member(archive, pickles[0])))
    tensors = _state_dict(unpickler.load())
    keys = {tensor.storage.key for tensor in tensors.values()}
    return _arrays(tensors, {key: _member(archive, f"{folder}data/{key}") for key in keys}, unpickler.dtypes)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Returns the content of a member; raises ValueError if it is compressed, which PyTorch never does."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{name!r} is compressed")
    return archive.read(info)


def _read_legacy(stream: IO[bytes], file_size: int) -> dict[str, np.ndarray]:
    """Returns the tensors in the format before PyTorch 1.6.

    Such a file consists of five pickles, of which the fourth is the saved object and the fifth the list of storages.
    Then each storage follows as its number of values and the values.
    """
    for expected in (MAGIC_NUMBER, PROTOCOL_VERSION):
        if _unpickler(stream).load() != expected:
            raise ValueError("it does not start like such a file")
    system = _unpickler(stream).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was written on a big-endian machine")
    unpickler = _unpickler(stream)
    tensors = _state_dict(unpickler.load())
    contents = {}
    for key in _unpickler(stream).load():
        size = int.from_bytes(stream.read(8), "little") * unpickler.dtypes[key].itemsize
        if size > file_size - stream.tell():
            raise ValueError("it is truncated")
        contents[key] = stream.read(size)
    return _arrays(tensors, contents, unpickler.dtypes)


def _state_dict(root: object) -> dict[str, _Tensor]:
    """Returns the dictionary with the most tensors, because checkpoints have it under "state_dict" or another key."""
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
    """Returns the arrays of tensors.

    Args:
      tensors: {name: tensor}.
      contents: {key of a storage: its bytes}.
      dtypes: {key of a storage: its dtype}.
    """
    storages = {key: np.frombuffer(content, dtypes[key]) for key, content in contents.items()}
    for key, values in storages.items():
        if values.dtype == BFLOAT16:  # Each storage is converted once, even if several tensors share it.
            storages[key] = values.astype(np.float32)
            storages[key].flags.writeable = False
    return {name: _array(tensor, storages) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns a view of the tensor's storage; raises ValueError if the storage is too small."""
    (key, start, length), offset, size, stride = tensor
    values = storages[key][start : start + length]
    if len(values) != length or math.prod(side or 1 for side in size) > max(1, length):
        raise ValueError(f"the storage {key!r} has {len(storages[key]):,} values, too few")
    if 0 in size:
        return np.zeros(size, values.dtype)
    item = values.itemsize
    strides = [step * item if side > 1 else 0 for side, step in zip(size, stride, strict=True)]
    return np.ndarray(size, values.dtype, values, offset * item, strides)  # NumPy refuses a view beyond `values`.


def _unpickler(stream: IO[bytes]) -> "_Unpickler":
    """Returns the unpickler of the next pickle in a stream, and moves the stream to its end.

    Raises:
      ValueError: if the pickle has an instruction that state dicts do not need.
    """
    start, built = stream.tell(), []
    for count, (opcode, value, position) in enumerate(pickletools.genops(stream)):
        if count == MAX_INSTRUCTIONS:
            raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions")
        if not _INSTRUCTIONS.fullmatch(opcode.name):
            raise ValueError(f"it has the instruction {opcode.name}, which a state dict does not need")
        # pickle would allocate memory for all numbers below `value`.
        if opcode.name == "LONG_BINPUT" and isinstance(value, int) and value > count:
            raise ValueError("it numbers an object higher than its instructions allow")
        if opcode.name == "BUILD":
            built.append((position or 0) - start)
    end = stream.tell()
    stream.seek(start)
    program = bytearray(stream.read(end - start))
    for position in built:  # BUILD would set attributes, such as a state dict's _metadata, which are not needed.
        program[position : position + 1] = pickle.POP
    return _Unpickler(bytes(program))


class _Unpickler(pickle.Unpickler):
    """Python's unpickler, restricted to the functions and types of state dicts.

    Attributes:
      dtypes: {key of a storage: its dtype}.
    """

    def __init__(self, program: bytes):
        super().__init__(io.BytesIO(program), encoding="latin-1")  # decodes any text that Python 2 wrote
        self.dtypes: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Callable[..., object] | np.dtype:
        """Returns this module's version of a function or type of PyTorch; imports nothing.

        Args:
          module: the name of the module in the file.
          name: the name in this module.

        Returns:
          A function, or the dtype of a type of storage.

        Raises:
          ValueError: for a name that state dicts do not need.
        """
        known = _DTYPES if module in ("torch", "torch.cuda") else _FUNCTIONS.get(module, {})
        if name not in known:
            asked = f"{module}.{name}"[:100]
            raise ValueError(f"it calls {asked!r}, which is not run because a state dict does not need it")
        return known[name]

    def persistent_load(self, pid: object) -> _Storage:
        """Returns a storage, or a part of one.

        Args:
          pid: ("storage", dtype, key, device, number of values), and perhaps None or (key, first value, number of
            values of the part).

        Raises:
          ValueError: for any other reference.
        """
        match pid:
            case ("storage", np.dtype() as dtype, str(key), _, int(count), *view):
                pass
            case _:
                raise ValueError("it refers to something that is no storage")
        if self.dtypes.setdefault(key, dtype) != dtype:
            raise ValueError(f"the storage {key[:100]!r} has two dtypes")
        match view:
            case [] | [None]:
                return _Storage(key, 0, count)
            case [(_, int(start), int(part))] if 0 <= start <= start + part <= count:
                return _Storage(key, start, part)
        raise ValueError("a part reaches beyond its storage")


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, *_: object) -> _Tensor:
    """Returns a tensor like torch._utils._rebuild_tensor and _rebuild_tensor_v2, without the latter's gradients."""
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor has no storage")
    return _Tensor(storage, offset, size, stride)


_FUNCTIONS: dict[str, dict[str, Callable[..., object]]] = {
    "collections": {"OrderedDict": dict},
    "torch._utils": {
        "_rebuild_tensor": _rebuild_tensor,
        "_rebuild_tensor_v2": _rebuild_tensor,
        "_rebuild_parameter": lambda tensor, *_: tensor,
    },
}
