"""The TFDS data set of a folder in the VOC layout: checked, packed, with random access. TensorFlow is never imported.

builder = prepare_voc_layout("VOCdevkit/VOC2012", "~/tensorflow_datasets")
example = open_split(builder, "train")[0]
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from deconvnet_jax.data.packing import (
    Contents,
    PackedBuilder,
    Progress,
    contents_of,
    pack,
    path_digest,
    remove_leftovers,
    signature,
)
from deconvnet_jax.data.voc_layout import (
    AnnotatedSplits,
    ExampleFiles,
    VocFolder,
    annotated_splits,
    class_names,
    read_files,
)
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from deconvnet_jax.images import Example
from deconvnet_jax.labels import IGNORE, Palettes


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


class VocLayout(PackedBuilder[ExampleFiles]):
    """A folder in the VOC layout as a TFDS data set."""

    name = "voc_layout"

    def __init__(self, data_dir: Path, config: tfds.core.BuilderConfig, source: FolderData, progress: Progress | None):
        self._source = source
        self._palettes = Palettes(source.class_names)
        self._ids: dict[str, set[int]] = {}  # that the masks of each split show
        super().__init__(
            data_dir,
            "Photographs with class and instance masks, from a folder in the VOC layout.",
            source.class_names,
            progress,
            config,
            split_files=str(source.root / "ImageSets/Segmentation"),
            left_out=source.splits.left_out,
        )

    def items(self) -> dict[str, list[ExampleFiles]]:
        """Returns the files of the examples of every split."""
        return self._source.splits.examples

    def read(self, split: str, item: ExampleFiles) -> tuple[Example, bytes]:
        """Returns an example, checked."""
        example = read_files(item, len(self._source.class_names))
        self._palettes.add(item.label, example.label)
        self._ids.setdefault(split, set()).update(np.unique(example.label).tolist())
        return example, item.image.read_bytes()

    def finish(self, split: str) -> None:
        """Checks the masks of a split; after the last one, that the files are still those that were to be packed."""
        ids, source = self._ids[split], self._source
        if IGNORE in ids and ids <= {0, IGNORE}:
            raise InputError(
                f"{source.root}: the masks of the split '{split}' hold only 0 and {IGNORE}, which marks ignored "
                f"pixels, so there is no object; save class ids 0, 1, ...: mask // {IGNORE} if {IGNORE} is the object"
            )
        if len(self._ids) < len(source.splits.examples):
            return
        if signature(source.files) != source.contents.signature:
            raise InputError(f"{source.root}: files were changed while they were packed; run it again")
        shown = {split: [source.class_names[i] for i in ids - {IGNORE}] for split, ids in self._ids.items()}
        single = [
            f"the masks of the split '{split}' show only '{names[0]}'; check them before training"
            for split, names in shown.items()
            if len(names) == 1
        ]
        self.add_metadata(palettes=[*self._palettes.warnings(), *single])


def prepare_voc_layout(
    voc_root: str | Path,
    data_dir: str | Path,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda text: print(f"warning: {text}", file=sys.stderr),
) -> VocLayout:
    """Returns the data set of a folder; packed on the first call and whenever a file in the folder has changed since.

    A file has changed if its bytes have, whatever its size and time say.

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
    note = data_dir / VocLayout.name / f".{_slug(root)}-{path_digest(root)}.json"
    source = _look_at(root, note)
    config = tfds.core.BuilderConfig(name=f"{_slug(root)}-{_fingerprint(source)}")

    def make(folder: Path) -> VocLayout:
        return VocLayout(folder, config, source, progress)

    remove_leftovers(data_dir, VocLayout.name)
    if not make(data_dir).data_path.exists():
        pack(make, data_dir)
    source.contents.keep(note)
    builder = make(data_dir)
    for text in (*source.splits.warnings, *((builder.info.metadata or {}).get("palettes") or ())):
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
        split: [[found.name, *(number.get(path) if path else None for path in found[1:])] for found in members]
        for split, members in source.splits.examples.items()
    }
    described = json.dumps([source.class_names, members, sorted(source.splits.left_out), source.contents.digest])
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _slug(root: Path) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", root.resolve().name.lower()) or "root"
