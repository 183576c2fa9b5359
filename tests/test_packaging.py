"""Tests that the wheel holds the package with its programs, and that its commands work outside the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from experiments.common import scripts

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[1]
PACKAGES = ("deconvnet_jax", "experiments")
# PYTHONPATH is removed, because pip and the commands would find the checkout and metadata of older builds through it.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
ENVIRONMENT |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}
TINY = [
    *("--config.batch_size=4", "--config.num_steps=2", "--config.eval_images=1", "--config.bn_group=0"),
    *("--config.data.resize_size=36", "--config.data.crop_size=32", "--config.data.voc_root=data/scenes"),
    *("--config.data.data_dir=data/tfds", "--config.model.width=0.03125", "--config.model.fc_features=4"),
    "--config.model.fc_window=1",
]
OWN = """
from experiments.configs import default

def get_config():
    config = default.get_config()
    config.data.windows, config.data.label_mode = ("image",), "all"
    return config
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy with the setuptools of this environment, so that no package index is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, f"--wheel-dir={folder}", str(folder)], check=True, env=ENVIRONMENT)
    (path,) = folder.glob("deconvnet_jax-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of commands in a fresh environment with the wheel; all other packages come from this environment."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True, env=ENVIRONMENT)
    (packages,) = folder.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others))
    return folder / "bin"


def run(command, *arguments, folder):
    return subprocess.run([str(command), *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def test_contents(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = [path.relative_to(ROOT) for top in PACKAGES for path in (ROOT / top).rglob("*.py")]
    expected = {str(path) if path.parts[0] == "deconvnet_jax" else f"deconvnet_jax/{path}" for path in modules}
    assert {name for name in names if name.endswith(".py")} == expected
    arrays = {"deconvnet_jax/proposals/edge_network.npz", "deconvnet_jax/weights/vgg16_first_layers.npz"}
    targets = {f"deconvnet_jax/{path.relative_to(ROOT)}" for path in (ROOT / "experiments/compiled/targets").iterdir()}
    assert {"deconvnet_jax/py.typed", *arrays, *targets} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"deconvnet_jax"}
    assert wheel.stat().st_size < 2_000_000


HELP = """
import os, sys
from importlib.metadata import entry_points
for entry in entry_points(group="console_scripts"):
    if entry.name.startswith("deconvnet-"):
        print(f"== {entry.name}", flush=True)
        if os.fork() == 0:
            sys.argv = [entry.name, "--help"]
            entry.load()()
        os.wait()
"""


def test_every_command_has_help_that_names_it(installed, tmp_path):
    """Programs that need a checkout have no command."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert declared == {
        name: f"deconvnet_jax.experiments.common.scripts:{program}" for program, name in scripts.COMMANDS.items()
    }
    programs = {path.stem for path in (ROOT / "experiments").glob("*.py") if "__main__" in path.read_text()}
    assert programs - set(scripts.COMMANDS) == {"gpu_report"}
    found = run(installed / "python", "-c", HELP, folder=tmp_path)
    shown = dict(part.split("\n", 1) for part in found.stdout.split("== ")[1:])
    assert set(shown) == set(declared), found.stderr
    for name, text in shown.items():
        assert f"    {name} " in text
        assert "python -m" not in text
        assert re.search(r"^  --(\[no\])?\w+", text, re.M), "no flags"


def test_a_small_network_from_data_to_predictions(installed, tmp_path):
    """The commands take a config of the project by its name, and a user's config that imports the defaults."""

    def done(name, *arguments):
        found = run(installed / name, *arguments, folder=tmp_path)
        assert found.returncode == 0, found.stderr
        return found.stdout

    done("deconvnet-prepare", "--dataset=scenes", "--data_dir=data", "--train_scenes=2", "--val_scenes=1")
    done("deconvnet-train", "--config=demo", "--workdir=run", *TINY)
    photograph = next((tmp_path / "data/scenes/JPEGImages").iterdir())
    assert str(photograph) in done("deconvnet-predict", "--checkpoint=run", "--output=out", str(photograph))
    assert (tmp_path / f"out/{photograph.stem}.png").is_file()
    (tmp_path / "own.py").write_text(OWN)
    browse = ("deconvnet_jax.experiments.browse_data", "--config=own.py", "--output=shown", "--sample=4", *TINY)
    assert json.loads(done("python", "-m", *browse).splitlines()[-1])["images"] == 2
    where = "import deconvnet_jax, importlib.util as u; print(deconvnet_jax.__file__, u.find_spec('experiments'))"
    file, outside = done("python", "-c", where).split()
    assert Path(file).is_relative_to(installed.parent)
    assert outside == "None"
