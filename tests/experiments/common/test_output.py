"""Folders for results."""

import json
import sys

import pytest

from deconvnet_jax.errors import InputError
from experiments.common.output import claim_output, output_file, output_folder


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


def test_home_is_expanded_and_addresses_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_folder("~/a [1]") == tmp_path / "a [1]"
    with pytest.raises(InputError, match="--output=s3://bucket/a is an address"):
        output_folder("s3://bucket/a")


def test_files_that_can_be_written(tmp_path):
    assert output_file(tmp_path / "a.PNG", "--picture", ".png") == tmp_path / "a.PNG"
    (tmp_path / "folder.png").mkdir()
    for path, message in (
        (tmp_path / "no/a.png", "there is no folder .*no; make it first"),
        (tmp_path / "a.pdf", "expected the name of a file that ends in .png"),
        (tmp_path / "folder.png", "expected the name of a file that ends in .png"),
        ("", "--picture is empty"),
        ("s3://a/b.png", "is an address"),
    ):
        with pytest.raises(InputError, match=message):
            output_file(path, "--picture", ".png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png"]


RUN = {"checkpoint": "/runs/a", "step": 2, "split": "val", "inference": {"mode": "paper"}}


@pytest.mark.parametrize("damage", [b"", b'{"step": 2', b"\xff\xfe\0", b"[]", b"[" * 100_000])
def test_a_damaged_note_blocks_no_results(tmp_path, capsys, damage):
    claim_output(tmp_path, RUN)
    (tmp_path / "metrics.json").write_text(json.dumps({"step": 2, "split": "val"}))
    (tmp_path / "run.json").write_bytes(damage)
    claim_output(tmp_path, RUN)
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path / 'run.json'} is damaged and is written again")
    assert json.loads((tmp_path / "run.json").read_text()) == RUN


def test_results_of_another_evaluation_are_not_mixed(tmp_path):
    claim_output(tmp_path, RUN)
    claim_output(tmp_path, RUN)
    with pytest.raises(InputError, match=r"inference\.mode is 'paper' there and 'released' now"):
        claim_output(tmp_path, {**RUN, "inference": {"mode": "released"}})
    claim_output(tmp_path, {**RUN, "inference": {"mode": "paper", "scales": (1.0,)}})  # a setting newer than the note
    with pytest.raises(InputError, match=r"inference\.scales is \[1\.0\] there and \[1\.0, 2\.0\] now"):
        claim_output(tmp_path, {**RUN, "inference": {"mode": "paper", "scales": (1.0, 2.0)}})
    claim_output(tmp_path, {**RUN, "inference": {"mode": "paper", "scales": (1.0,)}})
    (tmp_path / "metrics.json").write_text(json.dumps({"step": 1, "split": "val"}))
    (tmp_path / "run.json").write_text("")
    with pytest.raises(InputError, match="step is 1 there and 2 now"):
        claim_output(tmp_path, RUN)
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match=r"holds other results already \(metrics\.json\)"):
        claim_output(tmp_path, RUN)
