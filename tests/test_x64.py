"""Tests the public functions in a process that computes in 64 bits by default."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parent.parent


def test_float32_stays_float32_under_jax_enable_x64():
    """JAX refuses loops that widen their values, and products and convolutions of mixed types."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "tests/support/public_surface.py"],
        cwd=ROOT,
        env={**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
