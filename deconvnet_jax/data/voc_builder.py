"""The TFDS data set of a folder in the VOC layout: checked, packed, with random access. TensorFlow is never imported.

builder = prepare_voc_layout("VOCdevkit/VOC2012", "~/tensorflow_datasets")
example = open_split(builder, "train")[0]
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deconvnet_jax.data.records import FORMAT, build, dataset_info, record, silence
from deconvnet_jax.data.voc_layout import class_names, image_file, read_example, split_files, split_names
from deconvnet_jax.errors import InputError

Progress = Callable[[int, int], None]

_PARTS = ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation", "classes.txt")


class VocLayout(tfds.core.GeneratorBasedBuilder):
    """A folder in the VOC layout as a TFDS data set, examples in the order of the split files; see `dataset_info`."""

    name = "voc_layout"
    VERSION = FORMAT
    code_path = Path(__file__)  # TFDS looks it up with importlib_resources, which it does not depend on

    def __init__(self, *, voc_root: str | Path, progress: Progress | None = None, **kwargs: Any):
        self._root = Path(voc_root)
        self._progress = progress
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        description = "Photographs with class and instance masks, from a folder in the VOC layout."
        folder = str(self._root / "ImageSets/Segmentation")
        return dataset_info(self, description, class_names(self._root), split_files=folder)

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
            example = read_example(self._root, name, num_classes)
            yield i, record(example, image_file(self._root, name).read_bytes())
            if self._progress:
                self._progress(start + i + 1, total)


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
    with silence():
        builder = VocLayout(progress=progress, **options)
        if builder.data_path.exists():
            return builder
        annotated_splits(root)
        build(builder)
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
