"""The command as people run it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def prepare(*flags):
    command = [sys.executable, "-m", "experiments.prepare_data", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_scenes_then_the_same_folder_as_voc_layout(tmp_path):
    flags = ("--dataset=scenes", f"--data_dir={tmp_path}", "--train_scenes=2", "--val_scenes=1")
    done = prepare(*flags)
    assert done.returncode == 0, done.stderr
    what, where = done.stdout.splitlines()
    assert all(part in what for part in ("6 classes", "train 2", "trainval 3", "val 1"))
    assert where.startswith(f"packed in {tmp_path / 'tfds'}")
    again = prepare(*flags)
    assert (again.stdout, again.stderr) == (done.stdout, "")
    packed = prepare("--dataset=voc_layout", f"--voc_root={tmp_path / 'scenes'}", f"--data_dir={tmp_path / 'other'}")
    assert f"packed in {tmp_path / 'other'}" in packed.stdout


def test_wrong_use_is_one_line(tmp_path):
    cases = {
        "unknown; expected scenes or voc_layout or": ("--dataset=scene",),
        "--dataset=voc_layout needs --voc_root": ("--dataset=voc_layout",),
        "there is no folder": ("--dataset=voc_layout", f"--voc_root={tmp_path / 'nothing'}"),
    }
    for message, flags in cases.items():
        done = prepare(*flags, f"--data_dir={tmp_path}")
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
        assert message in done.stderr
