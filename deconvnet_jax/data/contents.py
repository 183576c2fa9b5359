"""Digests of what files hold, so that data which changed is never taken for what was packed before."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import write_text


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
        with suppress(InputError, OSError, ValueError):
            if not note.exists() or note.read_text(encoding="utf-8") != text:
                note.parent.mkdir(parents=True, exist_ok=True)
                write_text(note, text)


def contents_of(files: Sequence[Path], note: Path) -> Contents:
    """Returns what files hold; reads them unless a note about the same signature was kept.

    Raises:
      InputError: if a file cannot be read.
    """
    now = signature(files)
    with suppress(OSError, ValueError, TypeError):  # none yet, or damaged
        kept = Contents(**json.loads(note.read_text(encoding="utf-8")))
        if kept.signature == now:
            return kept
    digest = hashlib.sha256()
    for path in files:
        with _readable(path), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return Contents(now, digest.hexdigest())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); correct its permissions, or get it again"
        ) from error
