"""Tests that sums over processes are exact, and that workers end when their program is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deconvnet_jax import processes

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import multiprocessing, sys, time
from deconvnet_jax import data
data.write_scenes(sys.argv[1], 2, 1, 0)
split = data.open_split(data.prepare_voc_layout(*sys.argv[1:3]), "train")
def tell(*_):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(600)
if sys.argv[3] == "batches":
    batches = data.training_batches(split, data.training_windows(split), data.CropSettings(workers=2), batch_size=2)
    next(batches)
    tell()
else:
    data.compute_proposals(split, sys.argv[4], method="grid", processes=2, progress=lambda done, _: done and tell())
"""


def ended(pid):
    """Returns whether a process has ended, or is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("kind", ["batches", "proposals"])
def test_killed(kind, tmp_path):
    folders = [str(tmp_path / name) for name in ("scenes", "tfds")]
    command = [sys.executable, "-c", PROGRAM, *folders, kind, str(tmp_path / "p.npz")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        workers = [int(word) for word in running.stdout.readline().split()]
        assert len(workers) == 2
        assert not any(ended(pid) for pid in workers)
        os.kill(running.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not all(ended(pid) for pid in workers):
        assert time.monotonic() < deadline, "the workers still run"
        time.sleep(0.1)


def test_counts_beyond_32_bits_are_summed_exactly(monkeypatch, rng):
    """JAX sends 32 bits; a patched gather stands for the other process."""
    ours, theirs = (rng.integers(0, 2**40, (3, 3)) for _ in range(2))

    def gather(parts):
        others = (theirs >> 24, theirs & 0xFFFFFF)
        assert all(part.dtype == np.int32 for part in parts)
        return tuple(np.stack([part, other.astype(np.int32)]) for part, other in zip(parts, others, strict=True))

    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gather)
    np.testing.assert_array_equal(processes.sum_over_processes(ours), ours + theirs)


def test_numbers_with_fractions_are_summed_too(monkeypatch, rng):
    ours, theirs = (rng.random((4, 2)) * 100 for _ in range(2))

    def gather(share):
        assert share.dtype == np.float32
        return np.stack([share, theirs.astype(np.float32)])

    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gather)
    np.testing.assert_allclose(processes.sum_over_processes(ours), ours + theirs, rtol=1e-6)
