"""Packs a folder in the VOC layout after checking it. TensorFlow is never imported.

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

import tensorflow_datasets as tfds

from deconvnet_jax.data.contents import Contents, contents_of, path_digest, signature
from deconvnet_jax.data.packing import PackedBuilder, Progress, pack, remove_leftovers
from deconvnet_jax.data.records import check_masks, ids_in_masks
from deconvnet_jax.data.voc_layout import ExampleFiles, VocFolder, class_names, has_class_names, read_files
from deconvnet_jax.data.voc_splits import AnnotatedSplits, annotated_splits
from deconvnet_jax.errors import InputError, counted
from deconvnet_jax.files import user_path
from deconvnet_jax.images import Example
from deconvnet_jax.labels import IGNORE, VOC_CLASSES, Palettes

_OF_VOC = r"(\d{4}_)?\d{6}"  # names of VOC's photographs


class FolderData(NamedTuple):
    """Folder in the VOC layout as it was found.

    Attributes:
      root: the folder.
      class_names: class names in the order of their ids.
      splits: files of the images of every split.
      files: all photographs and masks, each once.
      contents: digests of `files`.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: AnnotatedSplits
    files: list[Path]
    contents: Contents


class VocLayout(PackedBuilder[ExampleFiles]):
    """Folder in the VOC layout as a packed data set."""

    name = "voc_layout"

    def __init__(self, data_dir: Path, config: tfds.core.BuilderConfig, source: FolderData, progress: Progress | None):
        self._source = source
        self._palettes = Palettes(source.class_names)
        self._named = has_class_names(source.root)
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
        """Reads one example and checks it.

        Args:
          split: split of the example.
          item: files of the example.

        Returns:
          The example and the content of its photograph's file.

        Raises:
          InputError: if a file is not usable.
        """
        example = read_files(item, len(self._source.class_names), self._named)
        self._palettes.add(item.label, example.label)
        return example, item.image.read_bytes()

    def finish(self, split: str) -> None:
        """Checks after the last split that no file changed while it was packed, and stores the warnings.

        Raises:
          InputError: if a file has changed.
        """
        source = self._source
        if len(self.found) < len(source.splits.examples):
            return
        if signature(source.files) != source.contents.signature:
            raise InputError(f"{source.root}: files changed while they were packed; run the command again")
        of_ids = [text for name, found in self.found.items() for text in found.warnings(name, source.class_names)]
        self.add_metadata(palettes=[*self._palettes.warnings(), *of_ids])


def prepare_voc_layout(
    voc_root: str | Path,
    data_dir: str | Path,
    progress: Progress | None = None,
    warn: Callable[[str], None] = lambda text: print(f"warning: {text}", file=sys.stderr),
) -> VocLayout:
    """Opens a folder in the VOC layout, and packs it on the first call and after every change of its files.

    A file has changed if its bytes have, whatever its size and time say.

    Args:
      voc_root: folder in the VOC layout (`voc_layout`).
      data_dir: folder in which TFDS keeps data sets. This one goes to voc_layout/FOLDER-FINGERPRINT.
      progress: function that is called with the number of packed examples and of all examples. Its output to stdout is
        suppressed.
      warn: function that is called with each warning: a split that is left out, or data that is probably a mistake. By
        default warnings go to stderr.

    Returns:
      A builder whose data is ready to read with `open_split`.

    Raises:
      InputError: for the first file that is not usable; no unfinished data is left behind.

    Example:
      >>> from deconvnet_jax.data import prepare_voc_layout, split_counts
      >>> split_counts(prepare_voc_layout("scenes", "tfds"))
      {'train': 2, 'trainval': 4, 'val': 2}
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
    check_masks(builder)
    stored = (builder.info.metadata or {}).get("palettes") or ()
    for text in (*source.splits.warnings, *_unnamed(source, builder), *stored):
        warn(text)
    return builder


def _unnamed(source: FolderData, builder: VocLayout) -> list[str]:
    """Returns a warning if the classes get VOC's names for lack of a classes.txt, but the data seems not to be VOC's.

    VOC's photographs have names like 2007_000032, and other data with VOC's classes shows most of them.
    """
    if has_class_names(source.root):
        return []
    ids = sorted(set().union(*(ids_in_masks(builder, split) for split in builder.info.splits)) - {0, IGNORE})
    names = (files.name for members in source.splits.examples.values() for files in members)
    if 2 * len(ids) >= len(VOC_CLASSES) or all(re.fullmatch(_OF_VOC, name.rpartition("/")[2]) for name in names):
        return []
    shown = ", ".join(f"{i} '{VOC_CLASSES[i]}'" for i in ids[:3])
    return [
        f"{source.root} has no classes.txt, so its {counted(len(VOC_CLASSES), 'class', 'classes')} have VOC's names "
        f"({shown}); if they are others, write classes.txt with one name per line, in the order of the ids, background "
        "first"
    ]


def _look_at(root: Path, note: Path) -> FolderData:
    """Returns what is in a folder. Files that have not changed since the note was written are not read."""
    names, splits = class_names(root), annotated_splits(VocFolder(root))
    examples = [files for members in splits.examples.values() for files in members]
    files = list(dict.fromkeys(path for example in examples for path in example[1:] if path))
    return FolderData(root, names, splits, files, contents_of(files, note))


def _fingerprint(source: FolderData) -> str:
    """Returns a digest that changes exactly when what is packed changes, 16 hexadecimal digits."""
    number = {path: i for i, path in enumerate(source.files)}
    members = {
        split: [[found.name, *(number.get(path) if path else None for path in found[1:])] for found in members]
        for split, members in source.splits.examples.items()
    }
    described = json.dumps([source.class_names, members, sorted(source.splits.left_out), source.contents.digest])
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _slug(root: Path) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", root.resolve().name.lower()) or "root"
