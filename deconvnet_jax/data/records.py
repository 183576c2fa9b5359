"""What our TFDS data sets have in common: the features of a record, building without TensorFlow, random access."""

import contextlib
import functools
import hashlib
import io
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from PIL import Image

from deconvnet_jax.data.windows import Objects, instance_boxes
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import write_text
from deconvnet_jax.images import Example, image_size, open_image, read_image, read_mask

FORMAT = tfds.core.Version("1.1.0")  # of the records: raise it when they change
_NOTED, _SMALL = "files.json", 2**20  # bytes
_ENCODED = {feature: tfds.decode.SkipDecoding() for feature in ("image", "label", "instances")}


def dataset_info(
    builder: tfds.core.DatasetBuilder, description: str, class_names: Sequence[str], **metadata: Any
) -> tfds.core.DatasetInfo:
    """The description of a data set of ours.

    Features: "name"; "image", the original JPEG, or a PNG of what is no RGB JPEG; "label" and "instances", PNGs of
    mode L (a palette PNG would come out of OpenCV as colours); "has_instances", without which "instances" is zero;
    "height" and "width"; and of the objects "boxes" (tight; x0, y0, x1, y1 in pixels, x1 and y1 exclusive),
    "class_ids", and "instance_ids", their numbers in "instances" (`windows.instance_boxes`).

    Args:
      builder: of the data set.
      description: of it, a line.
      class_names: in the order of their ids.
      **metadata: "combined_splits", the stored splits that others consist of; "split_files", the folder with the files
        that name a split's images; "left_out", why other splits are not there.
    """
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=record_features(),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(class_names=list(class_names), **metadata),
    )


@functools.cache
def record_features() -> tfds.features.FeaturesDict:
    """Returns the features of a record (`dataset_info`).

    They are not read from a packed data set's features.json: that names classes, whose modules TFDS would import.
    """
    mask = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
    return tfds.features.FeaturesDict(
        {
            "name": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": mask,
            "instances": mask,
            "has_instances": np.bool_,
            "height": np.int32,
            "width": np.int32,
            "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "class_ids": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "instance_ids": tfds.features.Tensor(shape=(None,), dtype=np.int32),
        }
    )


def record(example: Example, encoded: bytes) -> dict[str, Any]:
    """The record of an example whose image file has these bytes."""
    instances = np.zeros_like(example.label) if example.instances is None else example.instances
    objects = instance_boxes(example.label, example.instances)
    height, width = example.label.shape
    return {
        "name": example.name,
        "image": encoded if _is_rgb_jpeg(encoded) else _png(example.image),
        "label": _png(example.label),
        "instances": _png(instances),
        "has_instances": example.instances is not None,
        "height": height,
        "width": width,
        "boxes": objects.boxes.astype(np.float32),
        "class_ids": objects.class_ids.astype(np.int32),
        "instance_ids": objects.instance_ids.astype(np.int32),
    }


class DatasetSplit(Sequence[Example]):
    """The examples of one split: `len(split)`, `split[i]`; safe for threads, and can be sent to other processes."""

    def __init__(self, parts: Sequence[Sequence[dict[str, Any]]], folder: Path = Path()):
        """
        Args:
          parts: records, read one after the other.
          folder: of the packed data, for messages.
        """
        self._parts, self._folder = parts, folder
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Example:
        found = self._record(index)
        with intact(self._folder):
            instances = read_mask(io.BytesIO(found["instances"])) if found["has_instances"] else None
            label = read_mask(io.BytesIO(found["label"]))
            return Example(found["name"].decode(), _decoded(found["image"]), label, instances)

    def objects(self, index: int) -> Objects:
        """The annotated objects of an image; no pixels are decoded."""
        found = self._record(index)
        ids = (found[key].astype(np.int64) for key in ("class_ids", "instance_ids"))
        return Objects(found["boxes"].astype(np.float64).reshape(-1, 4), *ids)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image; no pixels are decoded."""
        found = self._record(index)
        return int(found["height"]), int(found["width"])

    def name(self, index: int) -> str:
        """The name of an image in the split's file."""
        found = self._record(index)
        with intact(self._folder):
            return found["name"].decode()

    def digest(self, index: int, masks: bool = False) -> str:
        """Returns a digest of an image's bytes, with those of its masks or without; no pixels are decoded."""
        found = self._record(index)
        parts = ("image", "label", "instances") if masks else ("image",)
        return hashlib.sha256(b"".join(found[part] for part in parts)).hexdigest()[:16]

    def label(self, index: int) -> np.ndarray:
        """The class mask alone, uint8 [H, W]."""
        found = self._record(index)
        with intact(self._folder):
            return read_mask(io.BytesIO(found["label"]))

    def _record(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        part = int(np.searchsorted(self._ends, index, side="right"))
        with intact(self._folder):
            return self._parts[part][index - (int(self._ends[part - 1]) if part else 0)]


class PackedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builder of a data set of ours; what is packed already is checked before it is used."""

    def __init__(self, *, data_dir: Path, **kwargs: Any):
        try:
            super().__init__(data_dir=data_dir, **kwargs)
            if self.data_path.exists():
                _check_files(Path(self.data_path))
                dict(self.info.metadata or {})  # read when it is needed first
                if not self.info.splits:
                    raise ValueError("it has no split")
        except InputError:
            raise
        except Exception as error:  # TFDS raises whatever a damaged file leads it to
            raise damaged(Path(getattr(self, "_data_dir", data_dir)), error) from error


def damaged(folder: Path, error: BaseException) -> InputError:
    """Returns the error to raise for packed data that cannot be used."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return InputError(f"the packed data in {folder} is damaged ({reason}); delete that folder to pack the data again")


@contextlib.contextmanager
def intact(folder: Path) -> Iterator[None]:
    """Turns every error of the block, which reads packed data, into an InputError that names its folder."""
    try:
        yield
    except Exception as error:  # the libraries raise whatever a damaged file leads them to
        raise damaged(folder, error) from error


def note_files(folder: Path) -> None:
    """Writes down what files a packed data set has, to compare them when it is read."""
    noted = {path.name: _described(path) for path in folder.iterdir() if path.is_file()}
    write_text(folder / _NOTED, json.dumps(noted))


def _described(path: Path) -> list[int]:
    """Returns a file's size, and of small ones a checksum; large ones hold records, which have their own."""
    size = path.stat().st_size
    return [size] if size > _SMALL else [size, zlib.crc32(path.read_bytes())]


def _check_files(folder: Path) -> None:
    """Raises an error for files that are missing or others than those that were packed."""
    note = folder / _NOTED
    if not note.exists():  # by an older version
        return
    for name, described in json.loads(note.read_text()).items():
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        if _described(folder / name) != described:
            raise ValueError(f"{name} has changed")


class _Records(Sequence[dict[str, Any]]):
    """The records of a stored split, images and masks encoded."""

    def __init__(self, files: Sequence[Any]):
        """`files`: what TFDS calls file instructions."""
        self._source = ArrayRecordDataSource(files)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return record_features().deserialize_example_np(self._source[index], decoders=_ENCODED)


def open_split(builder: tfds.core.DatasetBuilder, split: str) -> DatasetSplit:
    """The examples of a split, with random access; needs nothing but the files, also in another process.

    Raises:
      InputError: if the data set has no such split, or is damaged; also when an example is read.
    """
    folder = Path(builder.data_path)
    parts = split_parts(builder, split)
    with intact(folder):
        return DatasetSplit([_Records(builder.info.splits[part].file_instructions) for part in parts], folder)


def split_parts(builder: tfds.core.DatasetBuilder, split: str) -> list[str]:
    """The stored splits that a split consists of: itself, or those that it combines.

    Raises:
      InputError: if the data set has no such split.
    """
    metadata = builder.info.metadata or {}
    combined = metadata.get("combined_splits", {})
    if split not in builder.info.splits and split not in combined:
        have = ", ".join([*builder.info.splits, *combined])
        folder, reason = metadata.get("split_files"), metadata.get("left_out", {}).get(split)
        remedy = f"; write {folder}/{split}.txt, one image name a line" if folder else ""
        remedy = f"; '{split}' is left out: {reason}" if reason else remedy
        raise InputError(f"no split '{split}' in {builder.name}; there are {have}{remedy}")
    return list(combined.get(split, [split]))


def split_counts(builder: tfds.core.DatasetBuilder) -> dict[str, int]:
    """The number of examples of every split."""
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    combined = (builder.info.metadata or {}).get("combined_splits", {})
    return counts | {split: sum(counts[part] for part in parts) for split, parts in combined.items()}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps TFDS from writing to the terminal: progress bars, prints, warnings about its own conventions."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _is_rgb_jpeg(encoded: bytes) -> bool:
    with open_image(io.BytesIO(encoded)) as image:
        return image.format == "JPEG" and image.mode == "RGB"


def _decoded(encoded: bytes) -> np.ndarray:
    """As `read_image`, which checked the file when it was packed; OpenCV decodes JPEGs faster, to the same pixels."""
    if encoded.startswith(b"\xff\xd8"):
        image_size(io.BytesIO(encoded))  # refuses what is too large
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return read_image(io.BytesIO(encoded))


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
