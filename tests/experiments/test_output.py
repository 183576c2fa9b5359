"""Folders for results."""

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
