"""Defines the records of packed data sets and gives random access to them. TensorFlow is never imported."""

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

from deconvnet_jax.data.mask_ids import check_ids, is_trained_on
from deconvnet_jax.data.windows import Objects, instance_boxes
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.images import Example, Examples, image_size, open_image, read_image, read_mask
from deconvnet_jax.labels import IGNORE

_READ_THREADS = 4
_LOOKED_AT = 32  # Number of masks that are read first, where the ids of a split were not stored with it.
_ENCODED = {feature: tfds.decode.SkipDecoding() for feature in ("image", "label", "instances")}


@functools.cache
def record_features() -> tfds.features.FeaturesDict:
    """Returns the features of a record.

    - "name": image name as in the split's file.
    - "image": the original file if it is an RGB JPEG, otherwise a PNG of the decoded photograph.
    - "label", "instances": masks as PNGs of mode L. OpenCV would decode a palette PNG to colours instead of ids.
    - "has_instances": whether there is an instance mask. If not, "instances" is all zero.
    - "height", "width": size of the image, in pixels.
    - "boxes": tight boxes of the objects, x0, y0, x1, y1 in pixels; x1 and y1 are exclusive (`windows.instance_boxes`).
    - "class_ids", "instance_ids": classes of the objects and their numbers in "instances".

    The features are not read from the features.json of packed data. That file names classes whose modules TFDS would
    import, which would run code that the file chooses.
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
    """Returns the record of an example.

    Args:
      example: photograph with its masks.
      encoded: bytes of the photograph's file. They are stored unchanged if they are an RGB JPEG.

    Returns:
      A dict with the keys of `record_features`.
    """
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
    """Records of one stored split, with encoded images and masks."""

    def __init__(self, files: Sequence[Any]):
        """Opens the files of a split.

        Args:
          files: TFDS's file instructions of the split.
        """
        self._source = ArrayRecordDataSource(files)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        found: Any = record_features().deserialize_example_np(self._source[index], decoders=_ENCODED)
        return found


class DatasetSplit:
    """Examples of one split, with `len(split)` and `split[i]`.

    It can be used from several threads and sent to other processes. `split[i]` decodes an `images.Example`; the other
    methods read only what they return.
    """

    def __init__(self, parts: Sequence[_Records], folder: Path = Path()):
        """Joins stored splits to one.

        Args:
          parts: records of the stored splits, in order.
          folder: folder of the packed data, for error messages.
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
        """Returns the annotated objects of an image without decoding it."""
        found = self._record(index)
        ids = (found[key].astype(np.int64) for key in ("class_ids", "instance_ids"))
        return Objects(found["boxes"].astype(np.float64).reshape(-1, 4), *ids)

    def has_object_mask(self, index: int) -> bool:
        """Returns whether the objects of an image are annotated. If not, `objects` are connected parts of classes."""
        return bool(self._record(index)["has_instances"])

    def size(self, index: int) -> tuple[int, int]:
        """Returns the height and the width of an image in pixels, without decoding it."""
        found = self._record(index)
        return int(found["height"]), int(found["width"])

    def name(self, index: int) -> str:
        """Returns the name of an image as in the split's file."""
        found = self._record(index)
        with intact(self._folder):
            return found["name"].decode()

    def digest(self, index: int, masks: bool = False) -> str:
        """Returns a digest that changes with the bytes of an image, without decoding it.

        Args:
          index: position of the image in the split.
          masks: whether the digest also covers the masks.

        Returns:
          16 hexadecimal digits.
        """
        found = self._record(index)
        parts = ("image", "label", "instances") if masks else ("image",)
        return hashlib.sha256(b"".join(found[part] for part in parts)).hexdigest()[:16]

    def label(self, index: int) -> np.ndarray:
        """Returns only the class mask of an image, uint8 [H, W]; 255 marks ignored pixels."""
        found = self._record(index)
        with intact(self._folder):
            return read_mask(io.BytesIO(found["label"]))

    def _record(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]
        part = int(np.searchsorted(self._ends, index, side="right"))
        with intact(self._folder):
            return self._parts[part][index - (int(self._ends[part - 1]) if part else 0)]


def damaged(folder: Path, error: BaseException) -> InputError:
    """Returns the InputError to raise for packed data that is not usable.

    Args:
      folder: folder of the packed data.
      error: exception that shows the damage; its text becomes part of the message.

    Returns:
      The exception, not raised yet.
    """
    reason = one_line(error, 160)
    return InputError(f"the packed data in {folder} is damaged ({reason}); delete that folder to pack the data again")


@contextlib.contextmanager
def intact(folder: Path) -> Iterator[None]:
    """Turns every error in a block that reads packed data into an InputError that names the folder.

    Raises:
      InputError: if the block raises any exception.
    """
    try:
        yield
    except Exception as error:  # The libraries raise many kinds of errors for damaged files.
        raise damaged(folder, error) from error


def open_split(builder: tfds.core.DatasetBuilder, split: str) -> DatasetSplit:
    """Opens a split of a packed data set for random access.

    The result needs only the packed files, so it also works in another process.

    Args:
      builder: builder from `prepare_voc_layout`, `prepare_voc2012` or `prepare_camvid`.
      split: name of a stored or combined split, such as "train" or "trainval".

    Returns:
      The examples of the split, in the order of its list.

    Raises:
      InputError: if the data set has no such split or is damaged. Reading an example later raises it, too.

    Example:
      >>> from deconvnet_jax.data import open_split, prepare_voc_layout
      >>> split = open_split(prepare_voc_layout("scenes", "tfds"), "train")
      >>> len(split), split[0].name, str(split[0].label.dtype)
      (2, 'train_0000', 'uint8')
    """
    folder = Path(builder.data_path)
    parts = split_parts(builder, split)
    with intact(folder):
        return DatasetSplit([_Records(builder.info.splits[part].file_instructions) for part in parts], folder)


def split_parts(builder: tfds.core.DatasetBuilder, split: str) -> list[str]:
    """Returns the stored splits that a split consists of: itself, or those that it combines.

    Args:
      builder: builder of a packed data set.
      split: name of a stored or combined split.

    Returns:
      Names of stored splits, in order.

    Raises:
      InputError: if the data set has no such split.
    """
    metadata = builder.info.metadata or {}
    combined = metadata.get("combined_splits", {})
    if split not in builder.info.splits and split not in combined:
        have = ", ".join([*builder.info.splits, *combined])
        folder, reason = metadata.get("split_files"), metadata.get("left_out", {}).get(split)
        remedy = f"; write {folder}/{split}.txt with one image name per line" if folder else ""
        remedy = f"; '{split}' is left out: {reason}" if reason else remedy
        raise InputError(f"no split '{split}' in {builder.name}; there are {have}{remedy}")
    return list(combined.get(split, [split]))


def split_counts(builder: tfds.core.DatasetBuilder) -> dict[str, int]:
    """Returns the number of examples of every split, stored or combined."""
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    combined = (builder.info.metadata or {}).get("combined_splits", {})
    return counts | {split: sum(counts[part] for part in parts) for split, parts in combined.items()}


def class_pixels(source: Examples, num_classes: int) -> np.ndarray:
    """Returns the number of pixels of each class in whole images.

    Args:
      source: annotated images. Of a `DatasetSplit`, only the class masks are decoded.
      num_classes: number of classes. Ids from it upwards, such as 255, are not counted.

    Returns:
      Numbers of pixels, int64 [num_classes].
    """
    label = source.label if isinstance(source, DatasetSplit) else lambda i: source[i].label
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        counts = pool.map(lambda i: np.bincount(label(i).ravel(), minlength=256), range(len(source)))
        return sum(counts, np.zeros(256, np.int64))[:num_classes]


def ids_in_masks(builder: tfds.core.DatasetBuilder, split: str) -> set[int]:
    """Returns the ids in the masks of a split, 255 included.

    They are stored with the data. Data that an older version packed lacks them; then they come from some of the masks,
    or from all of them if those show fewer than two classes.

    Args:
      builder: builder of a packed data set.
      split: name of a stored or combined split.

    Returns:
      The ids. At least two differ from 255 if the masks show two classes.

    Raises:
      InputError: if the data set has no such split or is damaged.
    """
    stored = (builder.info.metadata or {}).get("ids_in_masks", {})
    ids: set[int] = set()
    for part in split_parts(builder, split):
        ids |= set(stored[part]) if part in stored else _read_ids(open_split(builder, part))
    return ids


def _read_ids(source: DatasetSplit) -> set[int]:
    some = np.unique(np.linspace(0, len(source) - 1, _LOOKED_AT).round().astype(int)).tolist()
    ids = set().union(*(np.unique(source.label(i)).tolist() for i in some))
    if len(ids - {IGNORE}) > 1:
        return ids
    return set(np.flatnonzero(class_pixels(source, IGNORE + 1)).tolist())


def check_masks(builder: tfds.core.DatasetBuilder, trained_split: str | None = None) -> None:
    """Raises InputError if nothing can be learned from the masks of packed data (`mask_ids.check_ids`).

    Args:
      builder: builder of a packed data set.
      trained_split: split to train on, stored or combined. None checks all stored splits; those whose names begin with
        "train" are probably trained on.

    Raises:
      InputError: if the masks hold only 0 and 255, or no class at all, or only one class in a split to train on.
    """
    names, splits = (builder.info.metadata or {})["class_names"], list(builder.info.splits)
    for split in splits if trained_split is None else [trained_split]:
        trained = trained_split is not None or is_trained_on(split, splits)
        check_ids(ids_in_masks(builder, split), data_folder(builder), split, names, trained)


def data_folder(builder: tfds.core.DatasetBuilder) -> Path:
    """Returns the folder that a data set is made of, for messages; that of the packed data if no other is known."""
    metadata = builder.info.metadata or {}
    if metadata.get("split_files"):
        return Path(metadata["split_files"]).parents[1]
    return Path((metadata.get("packed_from") or {}).get("folder", builder.data_path))


def _is_rgb_jpeg(encoded: bytes) -> bool:
    with open_image(io.BytesIO(encoded)) as image:
        return image.format == "JPEG" and image.mode == "RGB"


def _decoded(encoded: bytes) -> np.ndarray:
    """Returns the pixels of a stored photograph, uint8 RGB [H, W, 3], like `read_image`.

    The file was checked when it was packed. OpenCV decodes JPEGs faster than Pillow, to the same pixels.
    """
    if encoded.startswith(b"\xff\xd8"):
        image_size(io.BytesIO(encoded))  # This refuses images that are too large.
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return read_image(io.BytesIO(encoded))


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
