"""Packs data sets with TFDS, whole or not at all, and notices when the files that were packed have changed.

`PackedBuilder` is what the builders of all data sets have in common. TensorFlow is never imported.
"""

import abc
import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from deconvnet_jax.data.records import damaged, record, record_features
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
_NOTED, _SMALL = "files.json", 2**20  # bytes


class PackedBuilder(tfds.core.GeneratorBasedBuilder, Generic[Item], skip_registration=True):
    """Builder of a data set of ours; what is packed already is checked before it is used.

    A subclass has a `name` and says with `items` and `read` what is packed. The records (`record_features`) are in the
    order of the items. Its classes and its function that calls `prepare` stand in `data.DOWNLOADED`.

    Id 0 is background: it has no objects, so no window is cut around it, and in the window of an object every other
    pixel becomes 0. A data set without background trains with data.windows=("image",) and data.label_mode="all".
    """

    VERSION = tfds.core.Version("1.1.0")  # of the records: raise it when they change
    code_path = epath.Path(__file__)  # TFDS looks it up with importlib_resources, which it does not depend on

    def __init__(
        self,
        data_dir: Path,
        description: str,
        class_names: Sequence[str],
        progress: Progress | None = None,
        config: tfds.core.BuilderConfig | None = None,
        **metadata: Any,
    ):
        """
        Args:
          data_dir: where TFDS keeps data sets.
          description: of the data set, a line.
          class_names: in the order of their ids.
          progress: called with the number of examples done and of all examples.
          config: of the data set, if it has several.
          **metadata: "combined_splits", the stored splits that others consist of; "split_files", the folder with the
            files that name a split's images; "left_out", why other splits are not there; "packed_from", `Origin`.
        """
        self._progress, self._description = progress, description
        self._metadata = {"class_names": list(class_names), **metadata}
        try:
            with silence():
                super().__init__(data_dir=data_dir, config=config, file_format="array_record")
                if self.data_path.exists():
                    _check_files(Path(self.data_path))
                    dict(self.info.metadata or {})  # read when it is needed first
                    if not self.info.splits:
                        raise ValueError("it has no split")
        except InputError:
            raise
        except Exception as error:  # TFDS raises whatever a damaged file leads it to
            raise damaged(Path(getattr(self, "_data_dir", data_dir)), error) from error

    @abc.abstractmethod
    def items(self) -> Mapping[str, Sequence[Item]]:
        """Returns what stands for each example, by the split that it is stored in."""

    @abc.abstractmethod
    def read(self, split: str, item: Item) -> tuple[Example, bytes]:
        """Returns an example, and the bytes of its image file as they are on the disk.

        Args:
          split: that the example is stored in.
          item: one of `items`.

        Returns:
          The example: a name that no other image of the split has, image uint8 RGB [H, W, 3], label uint8 [H, W] and
          instances uint8 [H, W]. `instances` is None where no objects are annotated; then every connected part of a
          class counts as an object.
          The encoded image file. A JPEG is kept; the pixels of other files are packed as PNG.

        Raises:
          InputError: if a file cannot be used. Masks are checked with `check_mask_size` and `check_mask_ids` of
            `images`.
        """

    def finish(self, split: str) -> None:
        """Called once all examples of a split were read."""

    def add_metadata(self, **metadata: Any) -> None:
        """Adds to what is kept with the data set, while it is packed."""
        if self.info.metadata is not None:
            self.info.metadata.update(metadata)

    def close(self) -> None:
        """Called when packing ends, however it does."""

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
            split: self._generate_examples(split, members, start, total)
            for (split, members), start in zip(items.items(), starts, strict=True)
        }

    def _generate_examples(
        self, split: str, items: Sequence[Item], start: int, total: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, item in enumerate(items):
            yield i, record(*self.read(split, item))
            if self._progress:
                self._progress(start + i + 1, total)
        self.finish(split)


Builder = TypeVar("Builder", bound=PackedBuilder)


def prepare(
    make: Callable[[Path, dict[str, Any] | None], Builder],
    data_dir: Path,
    manual_dir: Path | None,
    files: Callable[[Path], dict[str, list[Path]]],
    not_built: str,
) -> Builder:
    """Returns a data set of files that were downloaded; packs it if it is not packed yet.

    Args:
      make: returns the builder for a folder in which TFDS keeps data sets, and the description of the files.
      data_dir: where TFDS keeps data sets.
      manual_dir: the folder with the files; None: only what was packed before.
      files: returns the files of each part of the data in such a folder.
      not_built: the message where there is neither.

    Raises:
      InputError: if the data cannot be used or written, or the files are others than those that were packed.
    """
    builder = make(data_dir, None)
    notes = data_dir / builder.name
    if builder.data_path.exists():
        _check_origin(builder, files, manual_dir, notes)
        return builder
    if manual_dir is None:
        raise InputError(not_built)
    origin = Origin(manual_dir, files(manual_dir), notes)
    pack(lambda folder: make(folder, origin.described), data_dir)
    origin.keep()
    return make(data_dir, None)


def pack(make: Callable[[Path], PackedBuilder], data_dir: Path) -> None:
    """Packs a data set.

    Two processes that pack the same data at once both finish; the first result stays.

    Args:
      make: returns the builder that writes to a folder.
      data_dir: where TFDS keeps data sets.

    Raises:
      InputError: if the data cannot be used or the data set cannot be written; nothing is left then.
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
            builder.download_and_prepare(download_dir=inside)  # TFDS insists on a folder for downloads
    except RuntimeError as error:  # of the library that writes ArrayRecord files
        reason = next((text for text in _REASONS if text in str(error)), one_line(error, 120))
        raise InputError(f"{path} could not be written ({reason}); make room there or name another folder") from error
    for file in list(Path(builder.data_path).iterdir()):
        file.rename(folder / file.name)
    shutil.rmtree(inside)
    noted = {file.name: _described(file) for file in folder.iterdir() if file.is_file()}
    write_text(folder / _NOTED, json.dumps(noted))


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


def _described(path: Path) -> list[int]:
    """Returns a file's size, and of small ones a checksum; large ones hold records, which have their own."""
    size = path.stat().st_size
    return [size] if size > _SMALL else [size, zlib.crc32(path.read_bytes())]


def packed_data_dir(data_dir: str | Path, name: str, pack_it: bool) -> Path:
    """Returns the folder in which TFDS keeps data sets; for one in a bucket, a local folder with a copy of a data set.

    Records are read in random order in every epoch, which from a bucket takes a request each. What killed processes
    left of the data set is removed.

    Args:
      data_dir: the folder.
      name: of the data set.
      pack_it: whether it is to be packed, if it is not yet.

    Raises:
      InputError: if the folder is in a bucket, and the data set is not there or is to be packed.
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
    """Removes what killed processes left of a data set in `data_dir`, of all its configurations."""
    folder = data_dir / name
    for config in folder.iterdir() if folder.is_dir() else ():
        remove_unfinished(config)


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


# What files hold, so that data which changed is never taken for what was packed before.


def signature(files: Iterable[Path]) -> str:
    """Returns a digest of paths, sizes, inodes and times, which changes whenever a file may have changed.

    A file that was replaced with its size and time of modification kept (rsync -t, cp -p, unzip) still has another
    time of status change.
    """
    digest = hashlib.sha256()
    for path in files:
        with _readable(path):
            status = path.stat()
        entry = (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        digest.update(repr(entry).encode(errors="surrogateescape"))
    return digest.hexdigest()


class Contents(NamedTuple):
    """What files hold.

    Attributes:
      signature: of the files when they were read.
      digest: of their bytes, in the files' order; equal for files that were only copied, moved or touched.
    """

    signature: str
    digest: str

    def keep(self, note: Path) -> None:
        """Writes a note for `contents_of`; does nothing where that is impossible."""
        text = json.dumps(self._asdict())
        with contextlib.suppress(InputError, OSError, ValueError):
            if not note.exists() or note.read_text(encoding="utf-8") != text:
                note.parent.mkdir(parents=True, exist_ok=True)
                write_text(note, text)


def contents_of(files: Sequence[Path], note: Path) -> Contents:
    """Returns what files hold; reads them unless a note about the same signature was kept.

    Raises:
      InputError: if a file cannot be read.
    """
    now = signature(files)
    with contextlib.suppress(OSError, ValueError, TypeError):  # none yet, or damaged
        kept = Contents(**json.loads(note.read_text(encoding="utf-8")))
        if kept.signature == now:
            return kept
    digest = hashlib.sha256()
    for path in files:
        with _readable(path), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return Contents(now, digest.hexdigest())


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); correct its permissions, or get it again"
        ) from error


class Origin:
    """The files that a data set is packed from, and what they hold."""

    def __init__(self, folder: Path, parts: dict[str, list[Path]], notes: Path):
        """
        Args:
          folder: that the user gave.
          parts: files of each part of the data, such as VOC and SBD.
          notes: folder for notes of what the files hold, so that they are read once.

        Raises:
          InputError: if a file cannot be read.
        """
        place = path_digest(folder)
        self._notes = {part: notes / f".{part}-{place}.json" for part in parts}
        self._contents = {part: contents_of(files, self._notes[part]) for part, files in parts.items()}
        self.described = {
            "folder": str(folder.absolute()),
            "contents": {part: found.digest for part, found in self._contents.items()},
        }

    def keep(self) -> None:
        """Writes the notes."""
        for part, found in self._contents.items():
            found.keep(self._notes[part])


def path_digest(folder: Path) -> str:
    """Returns a digest of a folder's path, for the names of notes about it."""
    return hashlib.sha256(str(folder.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]


def _check_origin(
    builder: PackedBuilder, files: Callable[[Path], dict[str, list[Path]]], given: Path | None, notes: Path
) -> None:
    """Raises InputError if the files that a data set was packed from are still there, and hold something else now.

    Args:
      builder: of the packed data set.
      files: as for `prepare`.
      given: the folder with the files; None for the one that it was packed from.
      notes: folder for notes of what the files hold.
    """
    packed = (builder.info.metadata or {}).get("packed_from")
    if not packed:  # by an older version
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
