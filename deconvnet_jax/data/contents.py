"""Digests of files, so that changed data is never mistaken for the data that was packed before."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import write_text


def signature(files: Iterable[Path]) -> str:
    """Returns a digest of the paths, sizes, inodes and times of files. It changes whenever a file may have changed.

    The size and the time of modification may survive a replacement (rsync -t, cp -p, unzip); the time of status change
    does not.

    Raises:
      InputError: if a file does not exist or is not accessible.
    """
    digest = hashlib.sha256()
    for path in files:
        with _readable(path):
            status = path.stat()
        entry = (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        digest.update(repr(entry).encode(errors="surrogateescape"))
    return digest.hexdigest()


class Contents(NamedTuple):
    """Digests of a group of files.

    Attributes:
      signature: `signature` of the files when they were read.
      digest: digest of their bytes, in the order of the files. It stays equal when files are copied, moved or touched.
    """

    signature: str
    digest: str

    def keep(self, note: Path) -> None:
        """Writes the digests to a note for `contents_of`. Does nothing if the note cannot be written."""
        text = json.dumps(self._asdict())
        with contextlib.suppress(InputError, OSError, ValueError):
            if not note.exists() or note.read_text(encoding="utf-8") != text:
                note.parent.mkdir(parents=True, exist_ok=True)
                write_text(note, text)


def contents_of(files: Sequence[Path], note: Path) -> Contents:
    """Returns the digests of files. Reads the files only if the note has none for their present signature.

    Args:
      files: files to read, in a fixed order.
      note: file in which `Contents.keep` stored earlier digests. It may be missing.

    Returns:
      The digests; the caller stores them with `keep`.

    Raises:
      InputError: if a file cannot be read.
    """
    now = signature(files)
    with contextlib.suppress(OSError, ValueError, TypeError):  # The note may be missing or damaged.
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
            f"{path} cannot be read ({error.strerror}); correct its permissions or get it again"
        ) from error


class Origin:
    """Files that a data set is packed from, and their digests.

    Attributes:
      described: folder and digests of the files, as stored with the packed data set.
    """

    def __init__(self, folder: Path, parts: dict[str, list[Path]], notes: Path):
        """Computes the digests of the files, or takes them from notes.

        Args:
          folder: folder that the user gave.
          parts: files of each part of the data, such as "VOC" and "SBD".
          notes: folder for the notes with digests, so that large files are read only once.

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
        """Writes the notes with the digests."""
        for part, found in self._contents.items():
            found.keep(self._notes[part])


def path_digest(folder: Path) -> str:
    """Returns a digest of a folder's absolute path, 16 hexadecimal digits, for the names of notes about it."""
    return hashlib.sha256(str(folder.absolute()).encode(errors="surrogateescape")).hexdigest()[:16]
