"""Tests what trackers get, that a resumed run continues theirs, and that no failure of theirs stops a training.

The fakes have the parameters of the real packages, which a test compares where a real one is installed. Real packages
are used without a network.
"""

import inspect
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import trackers
from deconvnet_jax.training.interruption import Preempted
from deconvnet_jax.training.metric_writer import MetricWriter
from deconvnet_jax.training.trackers import TRACKERS, Tracker, check_tracker
from deconvnet_jax.training.workdir import flatten

FAKES = Path(__file__).resolve().parents[1] / "support/fake_trackers"
CONFIG = {"seed": 3, "optimizer": {"learning_rate": 0.1}}


def open_tracker(name, folder, project="birds"):
    folder.mkdir(exist_ok=True)
    return Tracker(name, project, folder, CONFIG, flatten(CONFIG))


def short_run(name, folder, step=1, error=None):
    """Sends what a run of one step sends, and ends it with an exception if one is given."""
    with open_tracker(name, folder) as tracker:
        writer = MetricWriter(folder, after_step=step - 1, tracker=tracker)
        writer.write_scalars(step, {"train/loss": 1.5, "eval/iou/cat (wild)": float("nan")})
        writer.write_images(step, {"eval/image0": np.full((5, 7, 3), 100, np.uint8)})
        writer.close()
        if error:
            raise error


@pytest.fixture
def fake(monkeypatch):
    """Puts the fakes in the place of the packages; returns the calls of one of them."""
    for name in TRACKERS:
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(FAKES)
    yield lambda name: import_module(name).CALLS
    for name in TRACKERS:
        sys.modules.pop(name, None)


def test_weights_and_biases(tmp_path, fake):
    folder = tmp_path / "voc"
    short_run("wandb", folder)
    run = json.loads((folder / "tracker.json").read_text())["wandb/birds"]
    start, *metrics, scalars, images, end = fake("wandb")
    assert start == ("init", "birds", str(folder), run, "voc", CONFIG, True, "allow")
    assert metrics == [("define_metric", "step", None), ("define_metric", "*", "step")]
    assert scalars == ("log", {"step": 1, "train/loss": 1.5})
    assert images[1]["eval/image0"].shape == (5, 7, 3)
    assert end == ("finish", 0)
    fake("wandb").clear()
    with pytest.raises(Preempted):
        short_run("wandb", folder, 2, Preempted(2, 15))
    assert fake("wandb")[0][3] == run
    assert fake("wandb")[-2:] == [("mark_preempting",), ("finish", 1)]


def test_mlflow(tmp_path, fake):
    folder = tmp_path / "voc"
    short_run("mlflow", folder)
    run = json.loads((folder / "tracker.json").read_text())["mlflow/birds"]
    assert fake("mlflow") == [
        ("create_run", "0", "voc"),
        ("log_param", run, "seed", 3),
        ("log_param", run, "optimizer.learning_rate", 0.1),
        ("log_dict", run, CONFIG, "config.json"),
        ("log_metric", run, "train/loss", 1.5, 1),
        ("log_image", run, (5, 7, 3), "eval/image0", 1),
        ("set_terminated", run, "FINISHED"),
    ]
    fake("mlflow").clear()
    with pytest.raises(InputError):
        short_run("mlflow", folder, 2, InputError("diverged"))
    first, *_, last = fake("mlflow")
    assert (first, last) == (("update_run", run, "RUNNING"), ("set_terminated", run, "FAILED"))
    with open_tracker("mlflow", folder) as tracker:
        tracker.log_scalars(3, {"eval/iou/cat (wild)": 0.5})
    assert ("log_metric", run, "eval/iou/cat _wild_", 0.5, 3) in fake("mlflow")


def test_trackio(tmp_path, fake, capsys):
    short_run("trackio", tmp_path / "stage1")
    start, scalars, images, end = fake("trackio")
    assert start[1:] == ("birds", start[2], flatten(CONFIG), "allow", False)
    assert start[2].startswith(f"{tmp_path.name}-stage1-")
    assert scalars == ("log", {"train/loss": 1.5}, 1)
    assert images[1]["eval/image0"].shape == (5, 7, 3)
    assert end == ("finish",)
    short_run("trackio", tmp_path / "stage1", 2)
    assert fake("trackio")[4] == start
    assert not capsys.readouterr().out  # stdout is for results


def test_another_project_or_tracker_starts_another_run(tmp_path, fake):
    short_run("wandb", tmp_path / "a")
    short_run("trackio", tmp_path / "a")
    with open_tracker("wandb", tmp_path / "a", project="cats"):
        pass
    assert len(set(json.loads((tmp_path / "a/tracker.json").read_text()).values())) == 3
    assert len({call[3] for call in fake("wandb") if call[0] == "init"}) == 2


class Backend:
    """A tracker whose server is not reached any more, or does not answer."""

    run = "1"

    def __init__(self, wait=None):
        self.calls, self.wait, self.ended = 0, wait, None

    def log_scalars(self, step, scalars):
        self.calls += 1
        if self.wait:
            self.wait.wait()
        raise ConnectionError("no route\nto host")

    def finish(self, status):
        self.ended = status
        raise ConnectionError("still no route")


def connect(monkeypatch, backend):
    def start(_):
        if isinstance(backend, Exception):
            raise backend
        return backend

    monkeypatch.setitem(TRACKERS, "wandb", TRACKERS["wandb"]._replace(connect=start))


def test_a_tracker_that_fails_is_left_out_with_one_warning(tmp_path, monkeypatch, capsys):
    connect(monkeypatch, backend := Backend())
    with open_tracker("wandb", tmp_path) as tracker:
        for step in range(3):
            tracker.log_scalars(step, {"a": 1.0})
    assert backend.calls == 1
    assert backend.ended == trackers.FINISHED  # Otherwise a failed call would leave MLflow's run running.
    assert (
        capsys.readouterr().err == "warning: Weights & Biases failed (no route to host); the run continues without it\n"
    )


def test_a_tracker_that_cannot_be_reached_at_the_start(tmp_path, monkeypatch, capsys):
    connect(monkeypatch, ValueError("not logged in"))
    short_run("wandb", tmp_path)
    assert capsys.readouterr().err == "warning: Weights & Biases failed (not logged in); the run continues without it\n"
    assert (tmp_path / "metrics.jsonl").exists()
    assert not (tmp_path / "tracker.json").exists()


def test_the_end_of_a_run_does_not_wait_for_ever(tmp_path, monkeypatch, capsys):
    connect(monkeypatch, Backend(wait := threading.Event()))
    monkeypatch.setattr(trackers, "PATIENCE", 0.05)
    with open_tracker("wandb", tmp_path) as tracker:
        tracker.log_scalars(1, {"a": 1.0})
    assert "Weights & Biases has not answered for 0 seconds; what is not sent yet is lost" in capsys.readouterr().err
    wait.set()
    tracker._thread.join()


def test_a_damaged_file_starts_a_new_run(tmp_path, fake, capsys):
    (tmp_path / "tracker.json").write_text('{"wandb')
    short_run("wandb", tmp_path)
    assert "tracker.json cannot be read" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "tracker.json").read_text())) == ["wandb/birds"]


def test_only_the_first_process_sends(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    short_run("wandb", tmp_path)
    assert not fake("wandb")


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_one_line(name, tmp_path, monkeypatch):
    """A folder of that name, such as the one that W&B makes, is no package."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    for _ in range(2):
        with pytest.raises(InputError, match=rf"config\.tracker={name}: .* is not installed; pip install {name}, or"):
            check_tracker(name)
        (tmp_path / name).mkdir(exist_ok=True)


def test_an_unknown_tracker():
    with pytest.raises(InputError, match=r"config\.tracker=mlflw: unknown; .* mlflow, .*; did you mean mlflow\?"):
        check_tracker("mlflw")


def test_packages_are_imported_only_when_they_are_chosen():
    root = Path(__file__).resolve().parents[2]
    statement = re.compile(rf"^\s*(import|from) ({'|'.join(TRACKERS)})\b", re.M)
    files = [path for folder in ("deconvnet_jax", "experiments") for path in (root / folder).rglob("*.py")]
    assert not [path for path in files if statement.search(path.read_text())]


REAL = """
import sys
sys.path[:0] = sys.argv[3:]
import pathlib
from test_trackers import short_run
for step in (1, 2):
    short_run(sys.argv[1], pathlib.Path(sys.argv[2]), step)
"""


def real_run(name, folder, **environment):
    """Runs a run and its continuation in a new process with the real package, which is allowed no network."""
    if subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{name} is not installed")
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", REAL, name, str(folder), str(root), str(Path(__file__).parent)]
    done = subprocess.run(
        command, cwd=folder.parent, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    assert "warning:" not in done.stderr, done.stderr
    assert not done.stdout
    return json.loads((folder / "tracker.json").read_text())[f"{name}/birds"]


def test_real_weights_and_biases(tmp_path):
    run = real_run("wandb", tmp_path / "voc", WANDB_MODE="offline")
    stored = sorted((tmp_path / "voc/wandb").glob(f"offline-run-*-{run}"))
    assert len(stored) == 2  # `wandb sync` joins them.
    for folder in stored:
        data = (folder / f"run-{run}.wandb").read_bytes()
        assert b"train/loss" in data
        assert list(folder.glob("files/media/images/eval/image0*.png"))


def test_real_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    uri = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no other store without a server.
    run = real_run("mlflow", tmp_path / "voc", MLFLOW_TRACKING_URI=uri)
    found = mlflow.MlflowClient(uri).get_run(run)
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"train/loss": 1.5}
    assert found.data.params == {"seed": "3", "optimizer.learning_rate": "0.1"}
    steps = [metric.step for metric in mlflow.MlflowClient(uri).get_metric_history(run, "train/loss")]
    assert steps == [1, 2]
    assert len(list((tmp_path / "store").rglob("images/*.png"))) == 2


def test_real_trackio(tmp_path):
    run = real_run("trackio", tmp_path / "voc", TRACKIO_DIR=str(tmp_path / "trackio"))
    (database,) = (tmp_path / "trackio").glob("birds*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert [(name, step) for name, step, _ in rows] == [(run, 1), (run, 1), (run, 2), (run, 2)]
    assert json.loads(rows[0][2])["train/loss"] == 1.5
    assert len(list((tmp_path / "trackio").rglob("*.png"))) == 2


@pytest.mark.parametrize("name", TRACKERS)
def test_fakes_have_the_parameters_of_the_real_packages(name):
    real = pytest.importorskip(name)
    scope = {}
    exec((FAKES / name / "__init__.py").read_text(), scope)
    run = {"wandb": lambda: real.sdk.wandb_run.Run, "trackio": lambda: real.run.Run, "mlflow": lambda: None}[name]()
    pairs = [(scope[part], getattr(real, part)) for part in ("init", "Image", "MlflowClient") if part in scope]
    pairs += [(scope["Run"], run)] if run else []
    for fake, theirs in pairs:
        if inspect.isfunction(fake):
            assert set(inspect.signature(fake).parameters) <= set(inspect.signature(theirs).parameters)
            continue
        for method, code in vars(fake).items():
            if inspect.isfunction(code) and not (fake is scope.get("Run") and method == "__init__"):
                known = set(inspect.signature(getattr(theirs, method)).parameters)
                assert set(inspect.signature(code).parameters) <= known, method
