"""Packs data sets with TFDS, completely or not at all, and detects that packed files have changed since.

`PackedBuilder` is the base class of the builders of all data sets. TensorFlow is never imported.
"""

import abc
import contextlib
import errno
import io
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from deconvnet_jax.data.contents import Origin
from deconvnet_jax.data.mask_ids import SplitIds, check_ids, is_trained_on
from deconvnet_jax.data.records import check_masks, damaged, data_folder, record, record_features
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import (
    in_bucket,
    local_copy,
    not_written,
    remove_unfinished,
    user_path,
    whole_folder,
    write_text,
)
from deconvnet_jax.images import Example

Progress = Callable[[int, int], None]
Item = TypeVar("Item")

_REASONS = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)]
_NOTED = "files.json"  # Holds the sizes and checksums of the packed files.
_SMALL = 2**20  # Files of up to this many bytes get a checksum.


class PackedBuilder(tfds.core.GeneratorBasedBuilder, Generic[Item], skip_registration=True):
    """Builder of a data set of this package. Data that is packed already is checked before it is used.

    A subclass has a `name` and defines with `items` and `read` what is packed. Records (`record_features`) keep the
    order of the items. Its class names and the function that calls `prepare` belong into `data.DOWNLOADED`.

    Id 0 means background: it has no objects, so no window is cut around it, and in the window of an object every other
    pixel becomes 0. A data set without background trains with data.windows=("image",) and data.label_mode="all".
    """

    VERSION = tfds.core.Version("1.1.0")  # Version of the records. Increase it when their content changes.
    code_path = epath.Path(__file__)  # TFDS would find it with importlib_resources, which need not be installed.

    def __init__(
        self,
        data_dir: Path,
        description: str,
        class_names: Sequence[str],
        progress: Progress | None = None,
        config: tfds.core.BuilderConfig | None = None,
        **metadata: Any,
    ):
        """Prepares the builder and checks the data if it is packed already.

        Args:
          data_dir: folder in which TFDS keeps data sets.
          description: one line that describes the data set.
          class_names: class names in the order of their ids.
          progress: function that is called with the number of packed examples and of all examples.
          config: configuration of the data set. None if it has only one.
          **metadata: what is stored with the data set. "combined_splits" maps a split to the stored splits that it
            consists of, "split_files" is the folder with the lists of the splits, "left_out" maps a missing split to
            the reason, and "packed_from" describes the original files (`Origin`).

        Raises:
          InputError: if data is packed already and is damaged.
        """
        self._progress, self._description = progress, description
        self.found: dict[str, SplitIds] = {}  # What the masks of each split hold, while they are packed.
        self._metadata = {"class_names": list(class_names), **metadata}
        try:
            with silence():
                super().__init__(data_dir=data_dir, config=config, file_format="array_record")
                if self.data_path.exists():
                    _check_files(Path(self.data_path))
                    dict(self.info.metadata or {})  # TFDS reads it on first use; damage must show here.
                    if not self.info.splits:
                        raise ValueError("it has no split")
        except InputError:
            raise
        except Exception as error:  # TFDS raises many kinds of errors for damaged files.
            raise damaged(Path(getattr(self, "_data_dir", data_dir)), error) from error

    @abc.abstractmethod
    def items(self) -> Mapping[str, Sequence[Item]]:
        """Returns one item for each example, by the split that stores it. `read` turns an item into an example."""

    @abc.abstractmethod
    def read(self, split: str, item: Item) -> tuple[Example, bytes]:
        """Reads one example, and the bytes of its image file.

        Args:
          split: stored split that the example belongs to.
          item: one of `items`.

        Returns:
          The example and the content of the image file. The example has a name that no other image of the split has, an
          image (uint8 RGB [H, W, 3]), a label (uint8 [H, W]) and instances (uint8 [H, W]). `instances` is None where no
          objects are annotated; then every connected part of a class counts as an object. RGB JPEGs are stored
          unchanged; the pixels of other files are stored as PNG.

        Raises:
          InputError: if a file is not usable. Check masks with `check_mask_size` and `check_mask_ids` of `images`.
        """

    def finish(self, split: str) -> None:
        """Does nothing. Subclasses override it to check a split after all its examples were read."""

    def add_metadata(self, **metadata: Any) -> None:
        """Adds entries to the metadata of the data set while it is being packed."""
        if self.info.metadata is not None:
            self.info.metadata.update(metadata)

    def close(self) -> None:
        """Does nothing. Subclasses override it to release resources when packing ends, even after an error."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._description,
            features=record_features(),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(self._metadata),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        items = self.items()
        *starts, total = np.cumsum([0] + [len(members) for members in items.values()]).tolist()
        return {
            split: self._generate_examples(split, members, start, total, is_trained_on(split, list(items)))
            for (split, members), start in zip(items.items(), starts, strict=True)
        }

    def _generate_examples(
        self, split: str, items: Sequence[Item], start: int, total: int, trained: bool
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        ids = self.found[split] = SplitIds()
        for i, item in enumerate(items):
            example, encoded = self.read(split, item)
            ids.add(example.name, example.label)
            yield i, record(example, encoded)
            if self._progress:
                self._progress(start + i + 1, total)
        check_ids(ids.ids, data_folder(self), split, self._metadata["class_names"], trained)
        self.add_metadata(ids_in_masks={split: sorted(found.ids) for split, found in self.found.items()})
        self.finish(split)


Builder = TypeVar("Builder", bound=PackedBuilder)


def prepare(
    make: Callable[[Path, dict[str, Any] | None], Builder],
    data_dir: Path,
    manual_dir: Path | None,
    files: Callable[[Path], dict[str, list[Path]]],
    not_built: str,
) -> Builder:
    """Opens a data set that is made of downloaded files, and packs it first if necessary.

    Args:
      make: function that returns the builder, given the folder of TFDS's data sets and the description of the files.
      data_dir: folder in which TFDS keeps data sets.
      manual_dir: folder with the downloaded files. None opens only what was packed before.
      files: function that returns the files of each part of the data, given the folder with the downloaded files.
      not_built: error message for data that is not packed yet when `manual_dir` is None.

    Returns:
      A builder whose data is ready to read.

    Raises:
      InputError: if the data is not usable, cannot be written, or was packed from other files than there are now.
    """
    builder = make(data_dir, None)
    notes = data_dir / builder.name
    if builder.data_path.exists():
        _check_origin(builder, files, manual_dir, notes)
        check_masks(builder)
        return builder
    if manual_dir is None:
        raise InputError(not_built)
    origin = Origin(manual_dir, files(manual_dir), notes)
    pack(lambda folder: make(folder, origin.described), data_dir)
    origin.keep()
    return make(data_dir, None)


def pack(make: Callable[[Path], PackedBuilder], data_dir: Path) -> None:
    """Packs a data set. If two processes pack the same data at once, both succeed and the first result is kept.

    Args:
      make: function that returns the builder that writes to a folder.
      data_dir: folder in which TFDS keeps data sets.

    Raises:
      InputError: if the data is not usable or the data set cannot be written; nothing is left behind then.
    """
    path = Path(make(data_dir).data_path)
    try:
        with whole_folder(path) as folder:
            _pack_into(folder, path, make)
    except InputError:
        if not path.exists():
            raise


def _pack_into(folder: Path, path: Path, make: Callable[[Path], PackedBuilder]) -> None:
    inside = folder / "tfds"
    inside.mkdir()
    builder = make(inside)
    try:
        with silence(), not_written(path), contextlib.closing(builder):
            builder.download_and_prepare(download_dir=inside)  # TFDS requires a folder for downloads.
    except RuntimeError as error:  # The library that writes ArrayRecord files raises it.
        reason = next((text for text in _REASONS if text in str(error)), one_line(error, 120))
        raise InputError(f"{path} could not be written ({reason}); make room there or name another folder") from error
    for file in list(Path(builder.data_path).iterdir()):
        file.rename(folder / file.name)
    shutil.rmtree(inside)
    noted = {file.name: _described(file) for file in folder.iterdir() if file.is_file()}
    write_text(folder / _NOTED, json.dumps(noted))


def _check_files(folder: Path) -> None:
    """Checks that the packed files are still those that were written.

    Raises:
      ValueError: if a file is missing or has changed.
    """
    note = folder / _NOTED
    if not note.exists():  # An older version packed the data.
        return
    for name, described in json.loads(note.read_text()).items():
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        if _described(folder / name) != described:
            raise ValueError(f"{name} has changed")


def _described(path: Path) -> list[int]:
    """Returns the size of a file and, if it is small, a checksum. Large files hold records, which have checksums."""
    size = path.stat().st_size
    return [size] if size > _SMALL else [size, zlib.crc32(path.read_bytes())]


def packed_data_dir(data_dir: str | Path, name: str, pack_it: bool) -> Path:
    """Returns the folder in which to look for a packed data set, and removes what killed processes left of it there.

    Data in a bucket is copied to a local folder first, because training reads records in random order and every read
    from a bucket is a request.

    Args:
      data_dir: folder in which TFDS keeps data sets, local or gs://.
      name: name of the data set.
      pack_it: whether the data set will be packed if it is not there.

    Returns:
      `data_dir`, or for a bucket the local folder with the copy.

    Raises:
      InputError: if `data_dir` is in a bucket and does not hold the data set, or the data set is to be packed.
    """
    folder = user_path(data_dir, "the data folder", in_bucket=True)
    if in_bucket(folder):
        if pack_it or not (folder / name).is_dir():
            raise InputError(
                f"{folder} has no packed {name}, and it cannot be packed into a bucket; pack it into a local folder "
                f"with experiments.prepare_data, then gcloud storage cp -r LOCAL_FOLDER/{name} {folder}/"
            )
        return local_copy(folder / name).parent
    remove_leftovers(folder, name)
    return folder


def remove_leftovers(data_dir: Path, name: str) -> None:
    """Removes the unfinished folders that killed processes left of a data set.

    Args:
      data_dir: folder in which TFDS keeps data sets.
      name: name of the data set. All its configurations are cleaned.
    """
    folder = data_dir / name
    for config in folder.iterdir() if folder.is_dir() else ():
        remove_unfinished(config)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps TFDS from printing progress bars, messages and warnings about its own conventions."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _check_origin(
    builder: PackedBuilder, files: Callable[[Path], dict[str, list[Path]]], given: Path | None, notes: Path
) -> None:
    """Raises InputError if the original files of a packed data set still exist but have another content now.

    Args:
      builder: builder of the packed data set.
      files: function as for `prepare`.
      given: folder with the files. None checks the folder that the data set was packed from, if it still exists.
      notes: folder for the notes with digests.
    """
    packed = (builder.info.metadata or {}).get("packed_from")
    if not packed:  # An older version packed the data.
        return
    folder = given or Path(packed["folder"])
    try:
        origin = Origin(folder, files(folder), notes)
    except InputError:
        if given is None:
            return
        raise
    origin.keep()
    for part, digest in origin.described["contents"].items():
        if packed["contents"].get(part, digest) != digest:
            raise InputError(
                f"{builder.data_path} was packed from other files than {origin.described['folder']} has now ({part} "
                "differs); delete the packed folder to pack these, or name another data folder"
            )
