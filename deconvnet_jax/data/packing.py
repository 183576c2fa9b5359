"""Packs data sets with TFDS, whole or not at all; removes what killed processes left."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import tensorflow_datasets as tfds

from deconvnet_jax.data.contents import contents_of
from deconvnet_jax.data.records import note_files, silence
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import in_bucket, local_copy, not_written, remove_unfinished, user_path, whole_folder

_REASONS = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)]


def pack(make: Callable[[Path], tfds.core.DatasetBuilder], data_dir: Path) -> None:
    """Packs a data set whose generators need no download.

    Two processes that pack the same data at once both finish; the first result stays.

    Args:
      make: returns the builder that writes to a folder.
      data_dir: where TFDS keeps data sets.

    Raises:
      InputError: if the data cannot be used or the data set cannot be written; nothing is left then.
    """
    with silence():
        path = Path(make(data_dir).data_path)
        try:
            with whole_folder(path) as folder:
                _pack_into(folder, path, make)
        except InputError:
            if not path.exists():
                raise


def _pack_into(folder: Path, path: Path, make: Callable[[Path], tfds.core.DatasetBuilder]) -> None:
    inside = folder / "tfds"
    inside.mkdir()
    builder = make(inside)
    try:
        with not_written(path):
            builder.download_and_prepare(download_dir=inside)  # TFDS insists on a folder for downloads
    except RuntimeError as error:  # of the library that writes ArrayRecord files
        reason = next((text for text in _REASONS if text in str(error)), " ".join(str(error).split())[:120])
        raise InputError(f"{path} could not be written ({reason}); make room there or name another folder") from error
    for file in list(Path(builder.data_path).iterdir()):
        file.rename(folder / file.name)
    shutil.rmtree(inside)
    note_files(folder)


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
        place = hashlib.sha256(str(folder.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]
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


def check_origin(
    builder: tfds.core.DatasetBuilder, find: Callable[[Path, Path], Origin], given: Path | None, data_dir: Path
) -> None:
    """Compares a packed data set with the files that it was packed from, if they are still there.

    Args:
      builder: of the packed data set.
      find: returns the files in a folder, given that and the folder for notes.
      given: the folder with the files; None for the one that it was packed from.
      data_dir: where TFDS keeps data sets.

    Raises:
      InputError: if the files hold something else now.
    """
    packed = (builder.info.metadata or {}).get("packed_from")
    if not packed:  # by an older version
        return
    try:
        origin = find(given or Path(packed["folder"]), data_dir / builder.name)
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


def packed_data_dir(data_dir: str | Path, name: str, pack_it: bool) -> Path:
    """Returns the folder in which TFDS keeps data sets; for one in a bucket, a local folder with a copy of a data set.

    Records are read in random order in every epoch, which from a bucket takes a request each.

    Args:
      data_dir: the folder.
      name: of the data set.
      pack_it: whether it is to be packed, if it is not yet.

    Raises:
      InputError: if the folder is in a bucket, and the data set is not there or is to be packed.
    """
    folder = user_path(data_dir, "the data folder", in_bucket=True)
    if not in_bucket(folder):
        return folder
    if pack_it or not (folder / name).is_dir():
        raise InputError(
            f"{folder} has no packed {name}, and it cannot be packed into a bucket; pack it into a local folder with "
            f"experiments.prepare_data, then gcloud storage cp -r LOCAL_FOLDER/{name} {folder}/"
        )
    return local_copy(folder / name).parent


def remove_leftovers(data_dir: Path, name: str) -> None:
    """Removes what killed processes left of a data set in `data_dir`, of all its configurations."""
    folder = data_dir / name
    for config in folder.iterdir() if folder.is_dir() else ():
        remove_unfinished(config)
