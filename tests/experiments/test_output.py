"""Folders for results."""

import sys

import pytest

from deconvnet_jax.errors import InputError
from experiments.output import output_folder


def test_folders_are_made(tmp_path):
    assert output_folder(tmp_path / "a/b").is_dir()
    assert output_folder(tmp_path / "a/b") == tmp_path / "a/b"


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(InputError, match="cannot be a folder"):
            output_folder(path)


def test_an_empty_name_is_refused():
    with pytest.raises(InputError, match="--output is empty"):
        output_folder("")


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that nobody can write to")
def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(InputError, match=r"--output=/proc cannot be a folder for results \(.*\); name another"):
        output_folder("/proc")
