"""Recognises the kind of a file by its content, because names and suffixes may be wrong.

The kind follows from the first bytes, and for containers (zip, HDF5, protobuf) from the list of what they hold.
"""

import contextlib
import mmap
import re
import sys
import zipfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import no_file
from deconvnet_jax.protobuf import BYTES, Field, WireError, fields


class FileKind(NamedTuple):
    """Kind of a file, with the phrases that error messages need.

    Attributes:
      what: a noun with its article, e.g. "a gzip archive".
      remedy: advice for a user who gave such a file where another kind was expected.
    """

    what: str
    remedy: str


_FETCH = "download it again"
_UNPACK = "unpack it and give the file inside"
_SAVE_KERAS = "save its weights with Keras: model.save_weights('vgg16.weights.h5')"
_SAVE_STATE = "save its tensors: torch.save(model.state_dict(), FILE)"

EMPTY = FileKind("an empty file", _FETCH)
FOLDER = FileKind("a folder", "give the file inside")
UNKNOWN = FileKind("a file of an unknown kind", "check its origin and download it again")

# Kinds that hold arrays which this package reads.
CAFFEMODEL = FileKind("a caffemodel", "convert it with experiments.import_weights --caffemodel=FILE")
CAFFE_HDF5 = FileKind("Caffe's HDF5 snapshot (.caffemodel.h5)", CAFFEMODEL.remedy)
HDF5 = FileKind("an HDF5 file, as Keras writes them", "give it as VGG-16 weights if it is a VGG-16")
KERAS = FileKind("a Keras 3 model (.keras)", HDF5.remedy)
NPZ = FileKind("an .npz file of NumPy", HDF5.remedy)
SAFETENSORS = FileKind("a .safetensors file", HDF5.remedy)
TORCH_ZIP = FileKind("a PyTorch file (torch.save)", HDF5.remedy)
TORCH_LEGACY = FileKind("a PyTorch file (torch.save before 1.6)", HDF5.remedy)

# Kinds that this package does not read.
ZIP = FileKind("a zip archive", _UNPACK)
BROKEN_HDF5 = FileKind("an incomplete HDF5 file", _FETCH)
BROKEN_ZIP = FileKind("an incomplete zip file (.npz, .pth and .keras are zip files)", _FETCH)
TORCHSCRIPT = FileKind("a TorchScript program", "save its tensors: torch.save(torch.jit.load(FILE).state_dict(), NEW)")
TORCH_TAR = FileKind("a PyTorch file from before 0.1.10", "save it again: torch.save(torch.load(FILE), NEW)")
PICKLE = FileKind("a pickle, which is not loaded because it could run any program", _SAVE_STATE)
NPY = FileKind("an .npy file of NumPy", "save the arrays by name: numpy.savez(FILE, **arrays)")
SOLVERSTATE = FileKind("a Caffe solver state", "give the .caffemodel beside it, which has the weights")
MEAN_IMAGE = FileKind("a Caffe mean image (.binaryproto)", "give the .caffemodel, which has the weights")
MATLAB = FileKind("a MATLAB file", "give the weights as .caffemodel, .pth, .safetensors, .h5 or .npz")
ONNX = FileKind("an ONNX model", "give the file that it was exported from")
SAVED_MODEL = FileKind("a TensorFlow SavedModel", _SAVE_KERAS)
GRAPH = FileKind("a TensorFlow graph", _SAVE_KERAS)
TF_CHECKPOINT = FileKind("a TensorFlow checkpoint", _SAVE_KERAS)
LFS_POINTER = FileKind("a Git LFS pointer, not the file itself", "fetch the file: git lfs pull")
WEB_PAGE = FileKind("a web page (HTML or XML), perhaps from a failed download", _FETCH)
PROTOTXT = FileKind("a Caffe .prototxt, the description of a network", "give the .caffemodel, which has the weights")
TEXT = FileKind("a text file", _FETCH)
IMAGE = FileKind("an image or a document", "give the file with the weights")

# What to do if a file with VGG-16's weights is missing.
GET_VGG16 = "download torchvision's: curl -LO https://download.pytorch.org/models/vgg16-397923af.pth"

_START = 4096  # bytes that are read from the start of a file
_MAX_FIELDS = 2000  # fields that are read of a protobuf message
_MAGIC = {
    b"\x1f\x8b": FileKind("a gzip archive", _UNPACK),
    b"BZh": FileKind("a bzip2 archive", _UNPACK),
    b"\xfd7zXZ\0": FileKind("an xz archive", _UNPACK),
    b"\x28\xb5\x2f\xfd": FileKind("a Zstandard archive", _UNPACK),
    b"\x04\x22\x4d\x18": FileKind("an LZ4 archive", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": FileKind("a 7z archive", _UNPACK),
    b"Rar!": FileKind("a RAR archive", _UNPACK),
    b"\x93NUMPY": NPY,
    b"(dp": PICKLE,
    b"}q\0": PICKLE,
    b"MATLAB 5.0 MAT-file": MATLAB,
    b"MATLAB 7.3 MAT-file": MATLAB._replace(what="a MATLAB 7.3 file"),
    b"\x89PNG": IMAGE,
    b"\xff\xd8\xff": IMAGE,
    b"GIF8": IMAGE,
    b"II*\0": IMAGE,
    b"%PDF": IMAGE,
    b"GGUF": FileKind("a GGUF file", MATLAB.remedy),
}
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the first number in files of PyTorch before 1.6
_TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # the last bytes of TensorFlow's tables
_TEXTS = (
    (re.compile(rb"version https://git-lfs"), LFS_POINTER),
    (re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype|html|head|body|\?xml|error)", re.I | re.S), WEB_PAGE),
    (re.compile(rb"model_checkpoint_path:"), TF_CHECKPOINT),
    (re.compile(rb"(\s*#.*\n)*\s*(name|input|layers?|input_dim|net|force_backward)\s*[:{]", re.I), PROTOTXT),
)


def file_kind(path: Path) -> FileKind:
    """Returns the kind of a file or folder by its content.

    Only the first bytes are read, and the table of contents of a container.

    Args:
      path: the file. The name of a TensorFlow checkpoint without its suffix counts as `TF_CHECKPOINT`.

    Returns:
      One of the kinds of this module; `UNKNOWN` if the content is not recognised.

    Raises:
      InputError: if there is no such file, or it cannot be read.
    """
    try:
        if path.is_dir():
            return SAVED_MODEL if (path / "saved_model.pb").is_file() else FOLDER
        if path.is_file():
            with path.open("rb") as stream:
                return _stream_kind(stream, path)
        if path.with_name(f"{path.name}.index").is_file():  # TensorFlow's checkpoint NAME is stored as NAME.index, ...
            return TF_CHECKPOINT
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    raise InputError(no_file(path))


def wrong_kind(path: Path, kind: FileKind, expected: str) -> str:
    """Returns the error message for a file of an unexpected kind.

    Args:
      path: the file.
      kind: its kind.
      expected: a noun with its article, e.g. "a .caffemodel".
    """
    return f"{path} is {kind.what}; expected {expected}: {kind.remedy}"


def _stream_kind(stream: BinaryIO, path: Path) -> FileKind:
    start = stream.read(_START)
    if not start:
        return EMPTY
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return _zip_kind(stream)
    if kind := next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None):
        return kind
    if _HDF5_MAGIC in (start[:8], start[512:520], start[1024:1032], start[2048:2056]):
        return _hdf5_kind(path)
    if start[257:262] == b"ustar":
        names = (b"sys_info", b"pickle", b"storages", b"tensors")
        return TORCH_TAR if start[:100].rstrip(b"\0") in names else FileKind("a tar archive", _UNPACK)
    if start[:1] == b"\x80" and start[1:2] in b"\1\2\3\4\5":
        return TORCH_LEGACY if _TORCH_MAGIC in start[:40] else PICKLE
    if start[8:10] in (b'{"', b"{}", b"{ "):
        return SAFETENSORS
    if _is_text(start):
        return next((kind for pattern, kind in _TEXTS if pattern.match(start)), TEXT)
    data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    if data[-8:] == _TABLE_MAGIC or re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        return TF_CHECKPOINT
    return _protobuf_kind(data)


def _is_text(start: bytes) -> bool:
    """Returns whether bytes are text in UTF-8 or UTF-16."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return b"\0" in start
    try:
        start.decode()
    except UnicodeDecodeError as error:
        if error.start < _START - 4:  # Later errors may come from a character that is cut off at the end.
            return False
    return not re.search(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]", start)


def _zip_kind(stream: BinaryIO) -> FileKind:
    try:
        with zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
    # zipfile raises NotImplementedError for archives that need a newer version of the format.
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, LookupError, NotImplementedError, UnicodeError):
        return BROKEN_ZIP
    if any(re.fullmatch(r"[^/]*/data\.pkl", name) for name in names):
        return TORCHSCRIPT if any(name.endswith("/constants.pkl") for name in names) else TORCH_ZIP
    if "model.weights.h5" in names:
        return KERAS
    return NPZ if names and all(name.endswith(".npy") for name in names) else ZIP


def _hdf5_kind(path: Path) -> FileKind:
    try:
        import h5py

        with h5py.File(path, "r") as file:
            names = set(file)
            if {"iter", "history"} <= names:
                return SOLVERSTATE
            if isinstance(file.get("data"), h5py.Group) and not file.attrs and names <= {"data", "diff"}:
                return CAFFE_HDF5
    except ImportError:
        pass  # The function that reads the file reports that h5py is missing.
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError):
        return BROKEN_HDF5
    return HDF5


def _protobuf_kind(data: memoryview) -> FileKind:
    """Returns the kind of a protobuf message by its fields, because Caffe, ONNX and TensorFlow use no magic number."""
    firsts: dict[int, Field] = {}  # the first field of each number
    counts: Counter[int] = Counter()
    with contextlib.suppress(WireError, IndexError):
        for field in islice(fields(data, 0, sys.maxsize), _MAX_FIELDS):  # The last field of a damaged file may be cut.
            firsts.setdefault(field.number, field)
            counts[field.number] += 1
    numbers = {number for number, field in firsts.items() if field.wire_type == BYTES}
    content = {number: bytes(data[firsts[number].start :][:200]) for number in numbers}
    if firsts and 1 in firsts and 1 not in numbers:  # Field 1 is a number.
        if numbers <= {2, 3} and set(firsts) <= {1, 2, 3, 4} and (3 in numbers or b"caffemodel" in content.get(2, b"")):
            return SOLVERSTATE
        if 5 in numbers:
            return MEAN_IMAGE
        if {7, 8} & numbers:
            return ONNX
        return SAVED_MODEL if numbers == {2} and set(firsts) == {1, 2} else UNKNOWN
    # In TensorFlow's messages field 1 holds nodes or the description of a graph; in a caffemodel the network's name.
    if counts[1] > 1 or content.get(1, b"")[:1] in (b"\n", b"\x12"):
        return GRAPH
    return CAFFEMODEL if {2, 100} & numbers else UNKNOWN


# What people give as a photograph, in no format of `images.FORMATS`: pattern of the first bytes, and a phrase.
_NO_PHOTOGRAPHS = (
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"%PDF", "a PDF document"),
    (rb"8BPS", "a Photoshop document"),
    (rb"gimp xcf", "a GIMP document"),
    (rb"....ftyp(?:hei|hev|mif1|msf1|avi)", "a HEIC or AVIF picture"),
    (rb"....ftypcrx|II\*\0....CR|II(?:RO|RS|U\0)|MMOR|FUJIFILMCCD-RAW|FOVb", "a camera's raw file"),
    (rb"....ftyp|RIFF....AVI |\x1aE\xdf\xa3", "a video"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (rb"#\?RADIANCE", "a Radiance picture"),
    (rb"SIMPLE  =", "a FITS picture"),
    (rb".{128}DICM", "a DICOM picture"),
    (rb"\0\0\x01\0", "an icon"),
    (rb"\0\x05\x16[\0\x07]", "a hidden file that macOS writes beside the photograph"),
    (rb"version https://git-lfs", "a pointer of Git LFS (fetch the file itself: git lfs pull)"),
    (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*)?(?:<!--.*)?<(?:svg|!DOCTYPE svg)", "an SVG drawing"),
    (rb"(?i)(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head)", "a web page"),
    (rb"PK\x03\x04", "a zip archive"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"\x89HDF|MATLAB", "a file of arrays"),
)


def picture_kind(stream: IO[bytes]) -> str | None:
    """Returns a phrase for the kind of a file that was given as a photograph, by its first bytes.

    Args:
      stream: the open file, which is read from its beginning.

    Returns:
      The phrase, such as "a PDF document"; None for an unknown kind.
    """
    stream.seek(0)
    head = stream.read(1024)
    if not head.strip(b"\0"):
        return "empty" if not head else "all zeros, as after an interrupted copy"
    return next((kind for pattern, kind in _NO_PHOTOGRAPHS if re.match(pattern, head, re.DOTALL)), None)
