"""The TFDS data set of a folder in the VOC layout: checked, packed, with random access. TensorFlow is never imported.

builder = prepare_voc_layout("VOCdevkit/VOC2012", "~/tensorflow_datasets")
example = open_split(builder, "train")[0]
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from deconvnet_jax.data.annotated import AnnotatedSplits, annotated_splits
from deconvnet_jax.data.contents import Contents, contents_of, signature
from deconvnet_jax.data.packing import pack, remove_leftovers
from deconvnet_jax.data.records import FORMAT, PackedBuilder, dataset_info, record, silence
from deconvnet_jax.data.voc_layout import ExampleFiles, VocFolder, class_names, read_files
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.labels import IGNORE, Palettes

Progress = Callable[[int, int], None]


class FolderData(NamedTuple):
    """A folder in the VOC layout as it was found.

    Attributes:
      root: the folder.
      class_names: in the order of the ids.
      splits: the images.
      files: all files of the images.
      contents: of the files.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: AnnotatedSplits
    files: list[Path]
    contents: Contents


class VocLayout(PackedBuilder):
    """A folder in the VOC layout as a TFDS data set, examples in the order of the split files; see `dataset_info`."""

    name = "voc_layout"
    VERSION = FORMAT
    code_path = Path(__file__)  # TFDS looks it up with importlib_resources, which it does not depend on

    def __init__(self, *, source: FolderData, progress: Progress | None = None, **kwargs: Any):
        self._source, self._progress = source, progress
        self._palettes = Palettes(source.class_names)
        self._single: list[str] = []  # warnings of splits whose masks show one class
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        source = self._source
        return dataset_info(
            self,
            "Photographs with class and instance masks, from a folder in the VOC layout.",
            source.class_names,
            split_files=str(source.root / "ImageSets/Segmentation"),
            left_out=source.splits.left_out,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        examples = self._source.splits.examples
        starts = np.cumsum([0] + [len(files) for files in examples.values()]).tolist()
        return {
            split: self._generate_examples(split, files, start, starts[-1])
            for (split, files), start in zip(examples.items(), starts, strict=False)
        }

    def _generate_examples(
        self, split: str, examples: Sequence[ExampleFiles], start: int, total: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        ids: set[int] = set()
        for i, files in enumerate(examples):
            example = read_files(files, len(self._source.class_names))
            self._palettes.add(files.label, example.label)
            ids.update(np.unique(example.label).tolist())
            yield i, record(example, files.image.read_bytes())
            if self._progress:
                self._progress(start + i + 1, total)
        if IGNORE in ids and ids <= {0, IGNORE}:
            raise InputError(
                f"{self._source.root}: the masks of the split '{split}' hold only 0 and {IGNORE}, which marks ignored "
                f"pixels, so there is no object; save class ids 0, 1, ...: mask // {IGNORE} if {IGNORE} is the object"
            )
        shown = [self._source.class_names[found] for found in ids - {IGNORE}]
        if len(shown) == 1:
            self._single.append(f"the masks of the split '{split}' show only '{shown[0]}'; check them before training")
        if start + len(examples) == total:
            self._finish()

    def _finish(self) -> None:
        """Checks that the files are still those that the data set is named after, and keeps what to warn of."""
        if signature(self._source.files) != self._source.contents.signature:
            raise InputError(f"{self._source.root}: files were changed while they were packed; run it again")
        self.info.metadata["palettes"] = [*self._palettes.warnings(), *self._single]


def prepare_voc_layout(
    voc_root: str | Path,
    data_dir: str | Path,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda text: print(f"warning: {text}", file=sys.stderr),
) -> tfds.core.DatasetBuilder:
    """The data set of a folder; built on the first call and whenever a file in the folder has changed since.

    A file has changed if its bytes have, whatever its size and time say; see `contents`.

    Args:
      voc_root: folder in the VOC layout (`voc_layout`).
      data_dir: where TFDS keeps data sets; this one goes to voc_layout/FOLDER-FINGERPRINT.
      progress: called with the number of examples done and of all examples while building; what it writes to
        stdout is lost.
      warn: called with a line about each split that is left out, and about data that is seldom meant so.

    Returns:
      A builder whose data is ready to read.

    Raises:
      InputError: for the first unusable file; nothing half-built is left.
    """
    root, data_dir = user_path(voc_root, "the VOC folder"), user_path(data_dir, "the data folder")
    place = hashlib.sha256(str(root.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]
    note = data_dir / VocLayout.name / f".{_slug(root)}-{place}.json"
    source = _look_at(root, note)
    config = tfds.core.BuilderConfig(name=f"{_slug(root)}-{_fingerprint(source)}")

    def make(folder: Path) -> VocLayout:
        return VocLayout(source=source, progress=progress, config=config, data_dir=folder, file_format="array_record")

    remove_leftovers(data_dir, VocLayout.name)
    with silence():
        if not make(data_dir).data_path.exists():
            pack(make, data_dir)
        source.contents.keep(note)
        builder = make(data_dir)
    for text in (*source.splits.warnings, *(builder.info.metadata.get("palettes") or ())):
        warn(text)
    return builder


def _look_at(root: Path, note: Path) -> FolderData:
    """Returns what is in a folder; files that are as the note says are not read again."""
    names, splits = class_names(root), annotated_splits(VocFolder(root))
    examples = [files for members in splits.examples.values() for files in members]
    files = list(dict.fromkeys(path for example in examples for path in example[1:] if path))
    return FolderData(root, names, splits, files, contents_of(files, note))


def _fingerprint(source: FolderData) -> str:
    """Returns a digest that changes with everything that is packed, and with nothing else."""
    number = {path: i for i, path in enumerate(source.files)}
    members = {
        split: [[found.name, *(number.get(path) for path in found[1:])] for found in members]
        for split, members in source.splits.examples.items()
    }
    described = json.dumps([source.class_names, members, sorted(source.splits.left_out), source.contents.digest])
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _slug(root: Path) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", root.resolve().name.lower()) or "root"
