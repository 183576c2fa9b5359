"""What files hold is noticed whatever their size and time say; files that are the same are read once."""

import os
import shutil

import pytest

from deconvnet_jax.data.contents import contents_of, signature
from deconvnet_jax.errors import InputError


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    return paths


def replace(path, content):
    """With the time of modification that it had, as rsync -t, cp -p and unzip do."""
    status = path.stat()
    copy = path.with_name("copy")
    copy.write_bytes(content)
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_every_byte_counts(files, tmp_path):
    note = tmp_path / "notes/note.json"
    first = contents_of(files, note)
    first.keep(note)
    assert contents_of(files, note) == first
    replace(files[1], b"b" * 99 + b"c")
    changed = contents_of(files, note)
    assert changed.digest != first.digest
    assert contents_of(files[::-1], note).digest != changed.digest
    replace(files[1], b"b" * 100)
    assert contents_of(files, note).digest == first.digest


def test_copies_and_touched_files_are_the_same(files, tmp_path):
    note = tmp_path / "note.json"
    first = contents_of(files, note)
    copies = [shutil.copy(path, tmp_path / f"{path.name}_copy") for path in files]
    assert contents_of([path.absolute() for path in copies], note).digest == first.digest
    os.utime(files[0])
    assert signature(files) != first.signature
    assert contents_of(files, note).digest == first.digest


def test_unchanged_files_are_not_read(files, tmp_path):
    note = tmp_path / "note.json"
    contents_of(files, note)._replace(digest="kept").keep(note)
    assert contents_of(files, note).digest == "kept"
    for damage in (b"", b"[]", b"{", b'{"signature": 1}', b"\xff"):
        note.write_bytes(damage)
        assert len(contents_of(files, note).digest) == 64


def test_files_that_are_gone(files, tmp_path):
    files[0].unlink()
    with pytest.raises(InputError, match=r"a cannot be read \(No such file"):
        contents_of(files, tmp_path / "note.json")
    (tmp_path / "file").touch()
    contents_of(files[1:], tmp_path / "none").keep(tmp_path / "file/note.json")  # impossible, and no matter
