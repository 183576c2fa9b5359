"""Workers end when the program that started them is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import multiprocessing, sys, time
from deconvnet_jax import data
split = data.open_split(data.prepare_voc_layout(*sys.argv[1:3]), "train")
def tell(*_):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
if sys.argv[3] == "batches":
    batches = data.training_batches(split, data.training_windows(split), batch_size=2, workers=2)
    next(batches)
    tell()
else:
    data.compute_proposals(split, sys.argv[4], method="grid", processes=2, progress=lambda done, _: done and tell())
"""


def ended(pid):
    """Gone, or a zombie that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("kind", ["batches", "proposals"])
def test_killed(kind, scenes, train_split, tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(scenes), str(scenes.parent / "tfds"), kind, str(tmp_path / "p.npz")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        workers = [int(word) for word in running.stdout.readline().split()]
        assert len(workers) == 2
        assert not any(ended(pid) for pid in workers)
        os.kill(running.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not all(ended(pid) for pid in workers):
        assert time.monotonic() < deadline, "the workers live on"
        time.sleep(0.1)
