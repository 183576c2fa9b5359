"""The TFDS data set of a folder in the VOC layout: checked, packed, with random access. TensorFlow is never imported.

builder = prepare_voc_layout("VOCdevkit/VOC2012", "~/tensorflow_datasets")
example = open_split(builder, "train")[0]
"""

import contextlib
import hashlib
import io
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from deconvnet_jax.data.voc_layout import (
    Example,
    class_names,
    image_file,
    read_example,
    read_image,
    read_mask,
    split_files,
    split_names,
)
from deconvnet_jax.errors import InputError

Progress = Callable[[int, int], None]

_PARTS = ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation", "classes.txt")
_ENCODED = {feature: tfds.decode.SkipDecoding() for feature in ("image", "label", "instances")}


class VocLayout(tfds.core.GeneratorBasedBuilder):
    """A folder in the VOC layout as a TFDS data set, examples in the order of the split files.

    Features: "name"; "image", the original JPEG, or a PNG of what is no RGB JPEG; "label" and "instances", PNGs of
    mode L (a palette PNG would come out of OpenCV as colours); "has_instances", without which "instances" is zero.
    """

    name = "voc_layout"
    VERSION = tfds.core.Version("1.0.0")
    code_path = Path(__file__)  # TFDS looks it up with importlib_resources, which it does not depend on

    def __init__(self, *, voc_root: str | Path, progress: Progress | None = None, **kwargs: Any):
        self._root = Path(voc_root)
        self._progress = progress
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        mask = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs with class and instance masks, from a folder in the VOC layout.",
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": mask,
                    "instances": mask,
                    "has_instances": np.bool_,
                }
            ),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(class_names(self._root))),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        names = annotated_splits(self._root)
        starts = np.cumsum([0] + [len(members) for members in names.values()]).tolist()
        return {
            split: self._generate_examples(members, start, starts[-1])
            for (split, members), start in zip(names.items(), starts, strict=False)
        }

    def _generate_examples(self, names: Sequence[str], start: int, total: int) -> Iterator[tuple[int, dict[str, Any]]]:
        num_classes = len(class_names(self._root))
        for i, name in enumerate(names):
            yield i, _record(self._root, read_example(self._root, name, num_classes))
            if self._progress:
                self._progress(start + i + 1, total)


class VocSplit(Sequence[Example]):
    """The examples of one split: `len(split)`, `split[i]`; safe to read from several threads."""

    def __init__(self, records: Sequence[dict[str, Any]]):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        record = self._records[range(len(self))[index]]
        instances = read_mask(io.BytesIO(record["instances"])) if record["has_instances"] else None
        image, label = read_image(io.BytesIO(record["image"])), read_mask(io.BytesIO(record["label"]))
        return Example(record["name"].decode(), image, label, instances)


def prepare_voc_layout(
    voc_root: str | Path, data_dir: str | Path, progress: Progress | None = None
) -> tfds.core.DatasetBuilder:
    """The data set of a folder; built on the first call and whenever a file in the folder has changed since.

    Args:
      voc_root: folder in the VOC layout (`voc_layout`).
      data_dir: where TFDS keeps data sets; this one goes to voc_layout/FOLDER-FINGERPRINT.
      progress: called with the number of examples done and of all examples while building; what it writes to
        stdout is lost.

    Returns:
      A builder whose data is ready to read.

    Raises:
      InputError: for the first unusable file; nothing half-built is left.
    """
    root, data_dir = Path(voc_root).expanduser(), Path(data_dir).expanduser()
    class_names(root)
    config = tfds.core.BuilderConfig(name=f"{_slug(root)}-{_fingerprint(root)}")
    options = {"voc_root": root, "config": config, "data_dir": data_dir, "file_format": "array_record"}
    with _silence():
        builder = VocLayout(progress=progress, **options)
        if builder.data_path.exists():
            return builder
        annotated_splits(root)
        try:
            _build(builder)
        except OSError as error:
            if not builder.data_path.exists():  # it does if another process was faster
                reason = error.strerror or error
                raise InputError(f"{data_dir}: cannot write the data set ({reason}); choose another") from error
        return VocLayout(**options)


def annotated_splits(root: str | Path) -> dict[str, list[str]]:
    """The names in each split whose images have masks; splits without any mask (VOC's test) are left out.

    Raises:
      InputError: if there is no such split, or the name of one has other characters than letters, digits and _.
    """
    root = Path(root)
    names = {split: split_names(root, split) for split in split_files(root)}
    annotated = {
        split: members
        for split, members in names.items()
        if any((root / "SegmentationClass" / f"{member}.png").is_file() for member in members)
    }
    if not annotated:
        raise InputError(f"{root / 'ImageSets/Segmentation'}: no split whose images have masks in SegmentationClass")
    for split in annotated:
        if not re.fullmatch(r"[A-Za-z]\w*", split, re.ASCII) or split == "all":
            raise InputError(
                f"{root / 'ImageSets/Segmentation' / split}.txt: '{split}' cannot name a split; rename the file, "
                "with letters, digits and _ only, not 'all'"
            )
    return annotated


def open_split(builder: tfds.core.DatasetBuilder, split: str) -> VocSplit:
    """The examples of a split, with random access.

    Raises:
      InputError: if the data set has no such split.
    """
    if split not in builder.info.splits:
        have = ", ".join(builder.info.splits)
        raise InputError(f"no split '{split}': there is no ImageSets/Segmentation/{split}.txt; the data set has {have}")
    # Read without the builder that wrote it: worker processes get a copy that needs nothing but the files.
    files = tfds.builder_from_directory(builder.data_path)
    return VocSplit(files.as_data_source(split, decoders=_ENCODED))


def _build(builder: VocLayout) -> None:
    with tempfile.TemporaryDirectory() as unused:  # TFDS insists on a folder for downloads
        builder.download_and_prepare(download_dir=unused)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
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


def _record(root: Path, example: Example) -> dict[str, Any]:
    instances = np.zeros_like(example.label) if example.instances is None else example.instances
    return {
        "name": example.name,
        "image": _encoded_image(image_file(root, example.name), example.image),
        "label": _png(example.label),
        "instances": _png(instances),
        "has_instances": example.instances is not None,
    }


def _encoded_image(path: Path, image: np.ndarray) -> bytes:
    with Image.open(path) as file:
        as_is = file.format == "JPEG" and file.mode == "RGB"
    return path.read_bytes() if as_is else _png(image)


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _slug(root: Path) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", root.resolve().name.lower()) or "root"


def _fingerprint(root: Path) -> str:
    """Changes with the files' names, sizes and times of change."""
    digest = hashlib.sha256()
    for part in _PARTS:
        for path in sorted([root / part, *(root / part).rglob("*")]):
            if path.is_file():
                status = path.stat()
                entry = (path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns)
                digest.update(repr(entry).encode())
    return digest.hexdigest()[:16]
