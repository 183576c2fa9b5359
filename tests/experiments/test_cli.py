"""How a program ends that cannot go on."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from deconvnet_jax.errors import InputError
from experiments import cli
def main(argv):
    raise {error}
cli.run(main)
"""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("InputError('no file a.txt; make it')", 1, "error: no file a.txt; make it"),
        (
            "OSError(28, 'No space left on device', 'b.npz')",
            1,
            "error: [Errno 28] No space left on device: 'b.npz'; make room, or write elsewhere",
        ),
        ("KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_one_line_and_an_exit_status(error, code, message):
    command = [sys.executable, "-c", PROGRAM.format(error=error)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (code, message, "")


def test_memory_of_the_device():
    """What JAX raises then; another of its errors is a bug, and shows where."""
    for text, traceback in (("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.", False), ("INTERNAL: x", True)):
        error = f"__import__('jax').errors.JaxRuntimeError({text!r})"
        command = [sys.executable, "-c", PROGRAM.format(error=error)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == traceback
        if not traceback:
            assert done.stderr.startswith("error: the device's memory does not suffice (RESOURCE_EXHAUSTED: Out of")
            assert "--config.micro_batch" in done.stderr
            assert len(done.stderr.splitlines()) == 1
