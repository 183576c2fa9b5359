"""A data set is packed completely or not at all: after a kill, on a full disk, and by two processes at once."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deconvnet_jax.data import open_split, prepare_voc_layout, read_example
from deconvnet_jax.data.contents import contents_of
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import _host

ROOT = Path(__file__).resolve().parents[2]
PACK = """
import sys
from deconvnet_jax import data
from deconvnet_jax.errors import InputError
try:
    print(data.prepare_voc_layout(*sys.argv[1:3]).data_path)
except InputError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture
def folder(scenes, tmp_path):
    root = tmp_path / "scenes"
    shutil.copytree(scenes, root)
    return root


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def leftovers(folder):
    return [path for path in folder.rglob("*") if "unfinished" in path.name or path.name.startswith("incomplete")]


def kill_when(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    process.kill()
    process.communicate()


def test_what_a_killed_process_left_is_removed(folder, tmp_path):
    data_dir = tmp_path / "tfds"
    slow = PACK.replace("sys.argv[1:3]", "sys.argv[1:3], lambda *_: __import__('time').sleep(0.2)")
    kill_when(lambda: any(data_dir.rglob("incomplete.*")), start(slow, folder, data_dir))
    assert leftovers(data_dir)
    (folder / "ImageSets/Segmentation/val.txt").write_text(
        "val_0001\n"
    )  # The list differs, so this is another data set than the killed one.
    prepare_voc_layout(folder, data_dir)
    assert not leftovers(data_dir)


def test_the_work_of_others_is_left_alone(folder, tmp_path):
    """Covers a living process and another host, whose processes cannot be seen from here."""
    data_dir = tmp_path / "tfds"
    beside = Path(prepare_voc_layout(folder, data_dir).data_path).parent
    others = [beside / f".unfinished-{_host()}-{os.getppid()}-0-1.1.0", beside / ".unfinished-elsewhere-1-0-1.1.0"]
    for path in others:
        path.mkdir()
    prepare_voc_layout(folder, data_dir)
    assert sorted(leftovers(data_dir)) == sorted(others)


def test_two_processes_at_once(folder, tmp_path):
    both = [start(PACK, folder, tmp_path / "tfds") for _ in range(2)]
    paths = set()
    for process in both:
        out, err = process.communicate()
        assert process.returncode == 0, err
        paths.add(out)
    assert len(paths) == 1
    assert not leftovers(tmp_path)
    split = open_split(prepare_voc_layout(folder, tmp_path / "tfds"), "train")
    np.testing.assert_array_equal(split[9].label, read_example(folder, "train_0009", 6).label)


def test_no_room_is_one_line(folder, tmp_path):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    process = start(limited + PACK, folder, tmp_path / "tfds")
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("error: ")
    assert "could not be written (File too large); make room there or name another folder" in err
    assert "Traceback" not in err
    assert not [path for path in (tmp_path / "tfds").rglob("*") if path.is_file()]


# Changed content is detected whatever the size and time of a file are. Unchanged files are read only once.


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(path.name.encode() * 100)
    return paths


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
    contents_of(files[1:], tmp_path / "none").keep(
        tmp_path / "file/note.json"
    )  # The note cannot be written, which must not raise.
