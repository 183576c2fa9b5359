"""Tests that folders of checkpoints are found, and that a wrong folder leads to the run that may be meant."""

import subprocess
import sys
from pathlib import Path

import pytest

from deconvnet_jax.checkpoint_places import checkpoint_directory
from deconvnet_jax.errors import InputError


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with a run of one step and a folder without any."""
    (tmp_path / "runs/mine/checkpoints/7").mkdir(parents=True)
    (tmp_path / "runs/mine/pictures").mkdir()
    (tmp_path / "runs/empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_a_run_or_its_checkpoints(runs):
    expected = runs / "mine/checkpoints"
    assert checkpoint_directory(runs / "mine") == checkpoint_directory(expected) == expected


@pytest.mark.parametrize(
    "given",
    [
        "mine/calibrated",  # not made yet
        "mine/pictures",
        "mine/checkpoints/7",
        "mnie",
        "",  # the folder of all runs
    ],
)
def test_a_wrong_folder_near_a_run(runs, given):
    with pytest.raises(InputError) as caught:
        checkpoint_directory(runs / given)
    assert str(caught.value) == (
        f"no checkpoint in {runs / given}; expected the 'checkpoints' folder of a training run, with one folder per "
        f"step; did you mean {runs / 'mine'}?"
    )


def test_a_similar_folder_is_preferred_to_the_one_above(runs):
    (runs / "mine/calibrated/0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"did you mean .*/mine/calibrated\?$"):
        checkpoint_directory(runs / "mine/calibratd")


def test_a_wrong_folder_far_from_any_run(runs, tmp_path):
    with pytest.raises(InputError, match=r"with one folder per step$"):
        checkpoint_directory(tmp_path / "other/place/x")
    with pytest.raises(InputError, match=rf"^no checkpoint in none \(looked for in {tmp_path}\); expected"):
        checkpoint_directory(Path("none"))


def test_finding_checkpoints_takes_neither_jax_nor_orbax():
    code = "import sys, deconvnet_jax.checkpoint_places; sys.exit(bool({'jax', 'orbax', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
