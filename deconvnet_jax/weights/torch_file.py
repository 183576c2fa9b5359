"""Reads the tensors of a file that torch.save wrote, without PyTorch and without running what the file contains.

Such a file is a pickle: a program for a stack machine that may call any Python function. `_interpret` follows the few
instructions of which state dicts are made, on plain data; there is nothing that a file could call. Python's own
unpickler is not used even with restricted globals: eight bytes make it take gigabytes (the index of a memo), and a
deeply nested key of a dictionary ends the process.
"""

import io
import math
import mmap
import pickletools
import struct
import warnings
import zipfile
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from deconvnet_jax import file_kinds
from deconvnet_jax.errors import InputError

# Start of the format that came before the zip files of PyTorch 1.6.
MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001

MAX_INSTRUCTIONS = 1_000_000  # a tensor takes some 40
MAX_AXES = 32
BFLOAT16 = jnp.dtype("bfloat16")
MAX_DEPTH = 4  # of dictionaries in which a state dict is looked for


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Storage(NamedTuple):
    """`count` values of the storage `key`, from its value number `start` on."""

    key: str
    dtype: np.dtype
    start: int
    count: int


class _Tensor(NamedTuple):
    """A view of a storage that is not read yet; offset and stride in values."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def load_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict.

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
                    return _read_zip(archive, path.stat().st_size)
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read_legacy(data)
    except (
        ValueError,  # this module's own complaints, and pickletools'
        TypeError,
        LookupError,
        EOFError,
        OSError,
        OverflowError,
        MemoryError,
        RuntimeError,  # zipfile's for files with a password or of unknown compression
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        # Text of a hostile file: not more than a line of it.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{path} cannot be read as a state dict of torch.save ({reason}); fetch it again, or write it with "
            "torch.save(model.state_dict(), FILE)"
        ) from error


def _read_zip(archive: zipfile.ZipFile, file_size: int) -> dict[str, np.ndarray]:
    """PyTorch since 1.6: NAME/data.pkl, and each storage in NAME/data/KEY."""
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError("a zip file without data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and _member(archive, f"{folder}byteorder", file_size) != b"little":
        raise ValueError("written on a big-endian machine")
    tensors = _state_dict(_interpret(io.BytesIO(_member(archive, pickles[0], file_size)), {}))
    contents, left = {}, file_size
    for key in {tensor.storage.key for tensor in tensors.values()}:
        contents[key] = _member(archive, f"{folder}data/{key}", left)
        left -= len(contents[key])  # members that overlap would give more bytes than the file has
    return _arrays(tensors, contents)


def _member(archive: zipfile.ZipFile, name: str, max_size: int) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or not info.file_size == info.compress_size <= max_size:
        raise ValueError(f"{name!r} is compressed or larger than the file")
    return archive.read(info)


def _read_legacy(data: mmap.mmap) -> dict[str, np.ndarray]:
    """PyTorch before 1.6: five pickles (the fourth is the object), then each storage's length and values."""
    for expected in (MAGIC_NUMBER, PROTOCOL_VERSION):
        found = _interpret(data, {})
        if type(found) is not int or found != expected:
            raise ValueError("it does not start as such files do")
    system = _interpret(data, {})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("written on a big-endian machine")
    item_sizes: dict[str, int] = {}
    tensors = _state_dict(_interpret(data, item_sizes))
    keys = _interpret(data, {})
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in item_sizes for key in keys):
        raise ValueError("its list of storages does not fit its tensors")
    needed, contents = {tensor.storage.key for tensor in tensors.values()}, {}
    for key in keys:
        size = int.from_bytes(data.read(8), "little") * item_sizes[key]
        if size > len(data) - data.tell():
            raise ValueError("truncated")
        if key in needed:
            contents[key] = data.read(size)
        else:
            data.seek(size, io.SEEK_CUR)
    return _arrays(tensors, contents)


def _state_dict(root: object) -> dict[str, _Tensor]:
    """The dictionary with the most tensors by name: checkpoints have it under "state_dict", "model" or another key."""
    found, seen, level = [], set(), [root]
    for _ in range(MAX_DEPTH):
        dictionaries = []
        for item in level:
            if isinstance(item, dict) and id(item) not in seen:
                seen.add(id(item))
                dictionaries.append(item)
        found += map(_tensors, dictionaries)
        level = [value for item in dictionaries for key, value in item.items() if isinstance(key, str)]
    tensors = max(found, key=len, default={})
    if not tensors:
        raise ValueError("it holds no tensors by name")
    return tensors


def _tensors(entries: dict) -> dict[str, _Tensor]:
    return {key: value for key, value in entries.items() if isinstance(key, str) and isinstance(value, _Tensor)}


def _arrays(tensors: dict[str, _Tensor], contents: dict[str, bytes]) -> dict[str, np.ndarray]:
    for key in {tensor.storage.key for tensor in tensors.values() if tensor.storage.dtype == BFLOAT16} & set(contents):
        values = np.frombuffer(contents[key], BFLOAT16, len(contents[key]) // BFLOAT16.itemsize)
        contents[key] = values.astype(np.float32).tobytes()  # once, however many tensors share it
    return {name: _array(tensor, contents.get(tensor.storage.key, b"")) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, content: bytes) -> np.ndarray:
    """A view of the storage's bytes. That it lies inside the storage was seen to when the tensor was made."""
    storage, offset, size, stride = tensor
    dtype = np.dtype(np.float32) if storage.dtype == BFLOAT16 else storage.dtype
    item = dtype.itemsize
    if (storage.start + storage.count) * item > len(content):
        raise ValueError(f"the storage {storage.key!r} has {len(content):,} bytes, too few")
    if 0 in size:
        return np.zeros(size, dtype)
    strides = [step * item if n > 1 else 0 for n, step in zip(size, stride, strict=True)]
    return np.ndarray(size, dtype, content, (storage.start + offset) * item, strides)


# Opcodes (names of pickletools) that put a number or a text on the stack.
_NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"})
_TEXTS = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"})


def _interpret(stream: io.BytesIO | mmap.mmap, item_sizes: dict[str, int]) -> object:
    """The object that a pickle describes; leaves the stream behind it.

    Args:
      stream: at the start of the pickle.
      item_sizes: is filled with bytes per value of every storage, by key.

    Returns:
      Dictionaries, lists, tuples, numbers, texts, and `_Tensor` for tensors.
    """
    stack, marks, memo = [], [], {}
    for count, (opcode, value, _) in enumerate(pickletools.genops(stream)):
        if count == MAX_INSTRUCTIONS:
            raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions")
        match opcode.name:
            case "STOP":
                return stack.pop()
            case "PROTO" | "FRAME":
                pass
            case name if name in _NUMBERS or name in _TEXTS:
                stack.append(value)
            case "NONE" | "NEWTRUE" | "NEWFALSE" as name:
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                memo[len(memo) if value is None else value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" as name:
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[name]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.append(tuple(_cut(stack, len(stack) - int(name[-1]))))
            case "TUPLE":
                stack.append(tuple(_cut(stack, marks.pop())))
            case "APPEND" | "APPENDS" as name:
                _extend(_cut(stack, len(stack) - 1 if name == "APPEND" else marks.pop()), stack[-1])
            case "SETITEM" | "SETITEMS" as name:
                _set_items(_cut(stack, len(stack) - 2 if name == "SETITEM" else marks.pop()), stack[-1])
            case "GLOBAL":
                stack.append(_global(value.replace(" ", ".")))
            case "STACK_GLOBAL":
                stack.append(_global(".".join(_cut(stack, len(stack) - 2))))
            case "REDUCE":
                stack.append(_call(*_cut(stack, len(stack) - 2)))
            case "BUILD":  # attributes of the dictionary, such as a state dict's _metadata
                stack.pop()
            case "BINPERSID":
                stack.append(_storage(stack.pop(), item_sizes))
            case name:
                raise ValueError(f"the instruction {name}, which a state dict does not need")
    raise ValueError("truncated")


def _cut(stack: list, start: int) -> list:
    """Takes the top of the stack off, from index `start` on."""
    if not 0 <= start <= len(stack):
        raise ValueError("more taken off the stack than is there")
    top = stack[start:]
    del stack[start:]
    return top


def _extend(items: list, target: object) -> None:
    if not isinstance(target, list):
        raise ValueError("an item for something that is no list")
    target.extend(items)


def _set_items(items: list, target: object) -> None:
    """Puts key, value, key, value, ... into a dictionary."""
    if not isinstance(target, dict):
        raise ValueError("an entry for something that is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Before the key is hashed: the hash of a deeply nested tuple overruns the stack of the process.
        if not isinstance(key, str | int):
            raise ValueError("a dictionary's key that is neither text nor a whole number")
        target[key] = value


def _ordered_dict(pairs: object = ()) -> dict:
    """OrderedDict(): empty as Python 3 writes it, with a list of lists [key, value] as Python 2 does."""
    entries: dict = {}
    if pairs == ():
        return entries
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("an OrderedDict of something that is no list of pairs")
    _set_items([value for pair in pairs for value in pair], entries)
    pairs.clear()  # nothing else uses it; one list given to a million calls would take memory without end
    return entries


def _rebuild_tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> _Tensor:
    """torch._utils._rebuild_tensor and, with further arguments on gradients, _rebuild_tensor_v2."""
    if not isinstance(storage, _Storage) or not _is_size(offset):
        raise ValueError("a tensor without storage")
    for sizes in (size, stride):
        if not isinstance(sizes, tuple) or len(sizes) > MAX_AXES or not all(map(_is_size, sizes)):
            raise ValueError("a tensor whose shape is no list of sizes")
    if len(size) != len(stride):
        raise ValueError("a tensor with more strides than axes, or fewer")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # Also not more values than the storage has: a stride of 0 would make a terabyte out of one of them.
    if (0 not in size and last >= storage.count) or math.prod(n or 1 for n in size) > max(1, storage.count):
        raise ValueError("a tensor that reaches beyond its storage")
    return _Tensor(storage, offset, size, stride)


def _rebuild_parameter(tensor: object, *_: object) -> object:
    return tensor


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value >= 0


_GLOBALS = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}
_STORAGE_TYPES = {
    f"{module}.{name}Storage": _StorageType(np.dtype(code))
    for module in ("torch", "torch.cuda")
    for name, code in {
        "Double": "<f8",
        "Float": "<f4",
        "Half": "<f2",
        "BFloat16": BFLOAT16,
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "i1",
        "Byte": "u1",
        "Bool": "?",
    }.items()
}


def _global(name: str) -> FunctionType | _StorageType:
    known = _GLOBALS.get(name) or _STORAGE_TYPES.get(name)
    if known is None:
        raise ValueError(f"it asks for {name[:100]!r}, which is not run; a state dict does not need it")
    return known


def _call(function: object, arguments: object) -> object:
    # Every function on the stack is one of _GLOBALS.
    if not isinstance(function, FunctionType) or not isinstance(arguments, tuple):
        raise ValueError("a call of something that is no function")
    return function(*arguments)


def _storage(identity: object, item_sizes: dict[str, int]) -> _Storage:
    """From ("storage", type, key, device, values[, None or (key, first value, values) of a view])."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ValueError("a reference to something that is no storage")
    _, kind, key, _, count, view = (*identity, None)[:6]
    if not isinstance(kind, _StorageType) or not isinstance(key, str) or not _is_size(count):
        raise ValueError("a storage without type, key or size")
    if item_sizes.setdefault(key, kind.dtype.itemsize) != kind.dtype.itemsize:
        raise ValueError(f"the storage {key[:100]!r} has two types")
    if view is None:
        return _Storage(key, kind.dtype, 0, count)
    if not isinstance(view, tuple) or len(view) != 3 or not all(map(_is_size, view[1:])) or sum(view[1:]) > count:
        raise ValueError("a part that reaches beyond its storage")
    return _Storage(key, kind.dtype, *view[1:])
