"""Tests paths of users, files that are whole or absent, and locks."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deconvnet_jax import files
from deconvnet_jax.errors import InputError


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.user_path("~/runs/a", "--workdir") == tmp_path / "runs/a"


def test_a_missing_file_is_named_with_the_folder_in_which_it_was_looked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert files.no_file(Path("a.jpg")) == f"no file a.jpg in {tmp_path}; correct the name"
    assert files.no_file(tmp_path / "a.jpg") == f"no file {tmp_path}/a.jpg; correct the name"
    assert files.no_file(Path("a"), "folder", "make it") == f"no folder a in {tmp_path}; make it"


@pytest.mark.parametrize("address", ["gs://bucket/run", "s3://b", "file:///tmp/x", "hf:/a", "memory://"])
def test_addresses_are_refused(address):
    with pytest.raises(InputError, match=r"--workdir=.* is an address; expected a path on a local or mounted disk"):
        files.user_path(address, "--workdir")


@pytest.mark.parametrize("text", ["C:/runs", "a:b", "lr[0.1]", "with space", "back\\slash", "1e-3:/x"])
def test_odd_names_are_paths(text):
    assert files.user_path(text, "--output") == Path(text)


@pytest.mark.parametrize("text", ["", "  ", "a\0b", "~nobody_of_that_name/x"])
def test_paths_that_are_none(text):
    with pytest.raises(InputError, match="--output"):
        files.user_path(text, "--output")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.whole_file(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_reader_that_looks_for_files_finds_finished_ones_only(tmp_path):
    with files.whole_file(tmp_path / "step_1_image0.png") as temporary:
        temporary.write_text("half")
        assert not list(tmp_path.glob("*image0.png")) + list(tmp_path.glob("*.png"))
    assert [path.name for path in tmp_path.glob("*image0.png")] == ["step_1_image0.png"]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"a\.json could not be written \(No space left on device\); free disk space"):
        files.write_text(path, "all")
    assert not os.listdir(tmp_path)


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match=r"a/b could not be written"), files.whole_folder(tmp_path / "a/b"):
        pass


def test_errors_of_other_files_are_left(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"), files.whole_file(tmp_path / "a") as temporary:
        temporary.write_text(Path("/absent/b").read_text())


@pytest.mark.parametrize("name", ["x" * 245 + ".png", "ü" * 120 + ".jpg", "a.npz"])
def test_long_names_and_suffixes(tmp_path, name):
    with files.whole_file(tmp_path / name) as temporary:
        assert temporary.suffix == Path(name).suffix
        temporary.write_text("all")
    assert os.listdir(tmp_path) == [name]


def test_folders_appear_whole(tmp_path):
    with files.whole_folder(tmp_path / "a/b") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a/b").exists()
    assert (tmp_path / "a/b/x").read_text() == "1"
    with pytest.raises(ZeroDivisionError), files.whole_folder(tmp_path / "a/c"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "a") == ["b"]


KILLED = """
import os, signal, sys
from pathlib import Path
from deconvnet_jax import files
with files.whole_folder(Path(sys.argv[1]) / "made") as folder:
    (folder / "half").write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=Path(__file__).parents[1], check=False)
    assert len(os.listdir(tmp_path)) == 1
    # `whole_folder` removes the folder of the killed process; `remove_unfinished` must keep the new one.
    with files.whole_folder(tmp_path / "made") as mine:
        files.remove_unfinished(tmp_path)
        assert os.listdir(tmp_path) == [mine.name]


def start_holder(folder):
    """Starts a process that holds the lock of a folder until it is killed."""
    code = "import sys, time; from pathlib import Path; from deconvnet_jax.files import locked\n"
    code += "with locked(Path(sys.argv[1]), '--x'): print('held', flush=True); time.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_locked_folder_is_refused_until_its_holder_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    holder = start_holder(tmp_path / "run")
    try:
        message = r"--workdir=run is in use by another process; wait until it has ended, or name another folder"
        with pytest.raises(InputError, match=message), files.locked(tmp_path / "run", "--workdir=run"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with files.locked(tmp_path / "run", "--workdir=run"):
        assert (tmp_path / "run/.lock").exists()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_program_waits_for_one_that_is_about_to_end(tmp_path):
    holder = start_holder(tmp_path / "run")
    killer = threading.Timer(0.5, holder.kill)
    killer.start()
    with files.locked(tmp_path / "run", "--x"):
        pass
    holder.communicate()


def test_a_locked_folder_that_stays_empty_is_removed(tmp_path):
    with files.locked(tmp_path / "run", "--x"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with files.locked(tmp_path, "--x"):
        pass
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path} cannot be locked (No locks available); do not")
