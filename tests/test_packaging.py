"""The wheel holds what the package needs, and works away from the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheel(tmp_path):
    """Needs a package index: pip builds in an environment of its own."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={tmp_path}", str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("deconvnet_jax-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        str(path.relative_to(ROOT)) for folder in ("deconvnet_jax", "experiments") for path in folder_files(folder)
    }
    assert modules <= names
    arrays = {"deconvnet_jax/proposals/edge_network.npz", "deconvnet_jax/weights/vgg16_first_layers.npz"}
    assert {"deconvnet_jax/py.typed", *arrays} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "launch"))]
    assert wheel.stat().st_size < 2_000_000

    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run([*pip, "install", "--no-deps", f"--target={installed}", str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = "import deconvnet_jax, experiments.common.cli as cli; print(deconvnet_jax.__file__, cli.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert all(path.startswith(str(installed)) for path in found.stdout.split()), found
    quick = [
        str(ROOT / name)
        for name in ("tests/ops/test_boxes.py", "tests/proposals/test_edge_boxes.py", "tests/evaluation")
    ]
    subprocess.run([sys.executable, "-m", "pytest", "-q", *quick], cwd=elsewhere, env=environment, check=True)
    command = [sys.executable, "-m", "experiments.prepare_data", "--dataset=scenes", "--data_dir=data"]
    command += ["--train_scenes=2", "--val_scenes=1"]
    subprocess.run(command, cwd=elsewhere, env=environment, check=True)


def folder_files(folder):
    return [path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts]
