"""The records of our packed data sets: their features, and random access to them. TensorFlow is never imported."""

import contextlib
import functools
import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from PIL import Image

from deconvnet_jax.data.windows import Objects, instance_boxes
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.images import Example, Examples, image_size, open_image, read_image, read_mask

_READ_THREADS = 4
_ENCODED = {feature: tfds.decode.SkipDecoding() for feature in ("image", "label", "instances")}


@functools.cache
def record_features() -> tfds.features.FeaturesDict:
    """Returns the features of a record.

    "name"; "image", the original JPEG, or a PNG of what is no RGB JPEG; "label" and "instances", PNGs of mode L (a
    palette PNG would come out of OpenCV as colours); "has_instances", without which "instances" is zero; "height" and
    "width"; and of the objects "boxes" (tight; x0, y0, x1, y1 in pixels, x1 and y1 exclusive), "class_ids", and
    "instance_ids", their numbers in "instances" (`windows.instance_boxes`).

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


class _Records:
    """The records of a stored split, images and masks encoded."""

    def __init__(self, files: Sequence[Any]):
        """`files`: what TFDS calls file instructions."""
        self._source = ArrayRecordDataSource(files)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        found: Any = record_features().deserialize_example_np(self._source[index], decoders=_ENCODED)
        return found


class DatasetSplit:
    """The examples of one split: `len(split)`, `split[i]`; safe for threads, and can be sent to other processes."""

    def __init__(self, parts: Sequence[_Records], folder: Path = Path()):
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


def damaged(folder: Path, error: BaseException) -> InputError:
    """Returns the error to raise for packed data that cannot be used."""
    reason = one_line(error, 160)
    return InputError(f"the packed data in {folder} is damaged ({reason}); delete that folder to pack the data again")


@contextlib.contextmanager
def intact(folder: Path) -> Iterator[None]:
    """Turns every error of the block, which reads packed data, into an InputError that names its folder."""
    try:
        yield
    except Exception as error:  # the libraries raise whatever a damaged file leads them to
        raise damaged(folder, error) from error


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


def class_pixels(source: Examples, num_classes: int) -> np.ndarray:
    """Returns the number of pixels of each class in whole images, int64 [num_classes]; 255 is not counted."""
    label = source.label if isinstance(source, DatasetSplit) else lambda i: source[i].label
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        counts = pool.map(lambda i: np.bincount(label(i).ravel(), minlength=256), range(len(source)))
        return sum(counts, np.zeros(256, np.int64))[:num_classes]


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
