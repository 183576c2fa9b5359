"""Tests the notebook: its committed outputs, the decisions of its installation, and whole executions with few steps."""

import ast
import copy
import importlib
import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from demo_notebook import EXECUTED, NOTEBOOK, ROOT, digest, execute, pictures, texts
from PIL import Image

PICTURES = 7  # examples, curves, an evaluation, a result, three ways to segment, figures 4 and 6


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def check_outputs(notebook):
    """All code cells were executed in their order, and nothing in their outputs belongs to one machine or run."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    for text in texts(notebook):
        assert "\x1b" not in text
        assert "\r" not in text
        assert "warning" not in text.lower(), text
    assert len(nbformat.writes(notebook)) < 1_000_000  # A network of four steps draws noise, which takes most bytes.


def test_the_committed_outputs(notebook):
    check_outputs(notebook)
    assert NOTEBOOK.stat().st_size < 600_000
    assert len(list(pictures(notebook))) == PICTURES
    for text in texts(notebook):
        assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|usr|opt|mnt|content)\b", text), text
    shown = "\n".join(texts(notebook))
    assert re.search(r"^deconvnet_jax \S+, JAX \S+\ndevices: \S", shown)
    scores = json.loads(re.findall(r"^{\"mean_iou.*}$", shown, re.M)[-1])
    assert scores["mean_iou"] > 0.6


def test_the_code_is_what_was_executed(notebook):
    assert notebook.metadata[EXECUTED] == digest(notebook), "run python tests/support/demo_notebook.py"


def test_functions_of_programs_exist():
    """Programs are imported by a name that depends on the installation, so other tests do not see what is used."""
    used = set(re.findall(r"visualize\.(\w+)\(", NOTEBOOK.read_text()))
    visualize = importlib.import_module("experiments.tasks.visualize")
    assert used
    assert all(hasattr(visualize, name) for name in used)


@pytest.fixture
def installation(notebook, monkeypatch, tmp_path):
    """The functions of the installation cell, on a machine without accelerators and packages, in an empty folder."""
    (cell,) = [cell for cell in notebook.cells if "def install(" in cell.source]
    tree = ast.parse(cell.source)
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef)
    tree.body = [node for node in tree.body if isinstance(node, kept) or "OLDEST_JAX =" in ast.unparse(node)]
    tree.body += [node for node in ast.parse(cell.source).body if ast.unparse(node).startswith("CHECK =")]
    scope = {}
    exec(compile(tree, "cell", "exec"), scope)
    monkeypatch.chdir(tmp_path)
    for name in ("JAX_PLATFORMS", "TPU_ACCELERATOR_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(scope["shutil"], "which", lambda name: None)
    scope["installed"], scope["pip"] = {}, []
    scope["version"] = lambda package: scope["installed"].get(package)
    scope["python"] = lambda program: subprocess.CompletedProcess("", 1, "", "")
    return scope


def machine(scope, monkeypatch, nvidia_smi=None, **installed):
    """Gives the machine a driver, and packages."""
    scope["installed"].update(installed)
    if nvidia_smi is not None:
        monkeypatch.setattr(scope["shutil"], "which", lambda name: name)

    def run(command, **_):
        if command[0] == "nvidia-smi":
            return subprocess.CompletedProcess(command, 0, nvidia_smi, "")
        scope["pip"].append((command[5:], Path(command[-1]).read_text().split()))
        return subprocess.CompletedProcess(command, scope.get("status", 0), "", "no space left")

    monkeypatch.setattr(scope["subprocess"], "run", run)


@pytest.mark.parametrize(
    ("output", "extra"),
    [
        ("580.82.07, 8.0\n", "cuda13"),
        ("595.10, 9.0\n595.10, 9.0\n", "cuda13"),
        ("580.82.07, 7.0\n", "cuda12"),  # a V100, which CUDA 13 does not know
        ("550.54.15, 7.5\n", "cuda12"),  # a T4 in Colab
        ("470.199.02, 7.5\n", ""),
        ("No devices were found\n", ""),
        ("", ""),
    ],
)
def test_cuda_by_the_driver(installation, monkeypatch, output, extra):
    machine(installation, monkeypatch, output)
    assert installation["accelerator"]() == extra


def test_other_accelerators(installation, monkeypatch):
    assert installation["accelerator"]() == ""
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    assert installation["accelerator"]() == "tpu"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert installation["accelerator"]() == ""


@pytest.mark.parametrize(
    ("extra", "jax", "backend", "needed", "kept", "reason"),
    [
        ("cuda12", None, "", ["jax[cuda12]>=0.10"], 0, "not installed yet"),
        ("", None, "", [], 0, "not installed yet"),
        ("cuda12", "0.10.2", "gpu", [], 2, "is kept, because it sees the gpu"),
        ("tpu", "0.12.0.1", "tpu", [], 2, "is kept"),
        ("", "0.10.2", "cpu", [], 2, "is kept"),
        ("cuda13", "0.10.2", "cpu", ["jax[cuda13]==0.10.2"], 2, "gets its plugin"),
        ("cuda12", "0.7.2", "gpu", ["jax[cuda12]>=0.10"], 0, "is older than 0.10 and is replaced"),
        ("", "0.9", "cpu", ["jax>=0.10"], 0, "is replaced"),
    ],
)
def test_jax_is_kept_where_it_works(installation, extra, jax, backend, needed, kept, reason):
    if jax:
        installation["installed"].update(jax=jax, jaxlib=jax)
    installation["python"] = lambda program: subprocess.CompletedProcess("", 0, f"{backend}\n", "")
    found, keep, said = installation["jax_to_install"](extra)
    assert found == needed
    assert keep == ([f"jax=={jax}", f"jaxlib=={jax}"] if kept else [])
    assert reason in said


def test_where_the_project_comes_from(installation, tmp_path):
    project, checkout = installation["project"], installation["checkout"]
    assert project("https://host/user/project.git", None) == ["git+https://host/user/project.git"]
    assert project("https://host/project.zip", None) == ["https://host/project.zip"]
    assert project("git+ssh://git@host/project", None) == ["git+ssh://git@host/project"]
    with pytest.raises(SystemExit, match=r"there is no project here; write its git address"):
        project("", None)
    with pytest.raises(SystemExit, match=r"there is no project missing\.zip"):
        project("missing.zip", None)
    assert checkout() is None
    (tmp_path / "deconvnet_jax-0.2.0-py3-none-any.whl").write_text("")
    assert project("", None) == [str(tmp_path / "deconvnet_jax-0.2.0-py3-none-any.whl")]
    (tmp_path / "main.zip").write_text("")
    assert project("main.zip", None) == [str(tmp_path / "main.zip")]
    for name in ("deconvnet_jax/deconvnet_jax/__init__.py", "deconvnet_jax/experiments/voc_train.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    clone = tmp_path / "deconvnet_jax"  # has the name of the package
    assert checkout() == clone
    assert project("", clone) == ["--editable", str(clone)]


def test_the_notebook_finds_the_checkout_that_holds_it(installation, monkeypatch):
    for folder in (ROOT, ROOT / "experiments"):
        monkeypatch.chdir(folder)
        assert installation["checkout"]() == ROOT


def test_installation(installation, monkeypatch, capsys):
    """The first run installs the project and keeps JAX; the second one does nothing."""
    machine(installation, monkeypatch, "550.54.15, 7.5\n", jax="0.10.2", jaxlib="0.10.2")
    works = []

    def python(program):
        if "default_backend" in program:
            return subprocess.CompletedProcess("", 0, "gpu\n", "")
        return subprocess.CompletedProcess("", 0 if works else 1, "", "")

    installation["python"] = python
    installation["install"]("https://host/project", None)
    arguments, constraints = installation["pip"].pop()
    assert arguments[:2] == ["--disable-pip-version-check", "git+https://host/project"]
    assert constraints == ["jax==0.10.2", "jaxlib==0.10.2"]
    assert "JAX 0.10.2 is kept, because it sees the gpu; installing" in capsys.readouterr().out
    works.append(True)
    installation["install"]("https://host/project", None)
    assert not installation["pip"]
    assert not capsys.readouterr().out


def test_installation_that_fails_or_changes_what_is_loaded(installation, monkeypatch):
    machine(installation, monkeypatch)
    installation["status"] = 1
    with pytest.raises(SystemExit, match=r"pip failed:\nno space left"):
        installation["install"]("https://host/project", None)
    installation["status"] = 0
    versions = iter(["0.9", "0.9", "0.9", "0.9", "0.9", "0.9"])
    installation["version"] = lambda package: next(versions, "0.12")
    with pytest.raises(SystemExit, match=r"jax, .*changed while in use: restart the runtime"):
        installation["install"]("https://host/project", None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of Jupyter
def test_runs_from_top_to_bottom_and_again(notebook, tmp_path, rng, monkeypatch):
    photo = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype="uint8")).save(photo)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    small = {"steps": 4, "train_scenes": 6, "val_scenes": 2, "run": str(tmp_path / "run"), "your_image": str(photo)}
    for _ in range(2):
        executed = copy.deepcopy(notebook)
        execute(executed, tmp_path, timeout=600, **small)
        check_outputs(executed)
        assert len(list(pictures(executed))) == PICTURES + 1  # and yours
        assert (tmp_path / "run/evaluation/metrics.json").exists()
    assert "resumed at step 4 of 4" in "\n".join(texts(executed))
