"""Tests the program that measures a GPU: its commands exist, what it writes, and what it refuses."""

import json
import re
from pathlib import Path

import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import flatten
from experiments.benchmarks.parts import FAILED, FINISHED, Part
from experiments.benchmarks.registry import BENCHMARKS
from experiments.configs import voc_stage1
from experiments.tasks import gpu_report

ROOT = Path(__file__).resolve().parents[2]


def test_the_shares_are_nine_minutes():
    shares = [share for share, _ in gpu_report.measurements(Path(), 1.0, False)]
    total = gpu_report.ENVIRONMENT_SHARE + gpu_report.CHECKS_SHARE + sum(shares)
    assert total <= 60 * gpu_report.DEFAULT_MINUTES <= 530


@pytest.mark.parametrize("on_cpu", [False, True])
def test_commands_exist(on_cpu):
    parts = [part for _, part in gpu_report.measurements(Path("out"), 0.5, on_cpu)]
    parts += gpu_report.checks(Path("out"), 0.5, "NVIDIA H200")
    for part in parts:
        if "experiments.benchmark" in part.command:
            name, *given = part.command[3:]
            assert {re.match(r"--(\w+)", flag)[1] for flag in given} <= {*BENCHMARKS[name].flags, "json"}
            assert part.name.partition("_")[0] == name  # The report finds its tables by this name.
    (tests,) = (part for part in parts if part.name == "tests")
    assert all((ROOT / word).is_dir() for word in tests.command if word.startswith("tests/"))


def test_the_prediction_is_of_the_step_that_is_measured():
    (part,) = (
        part for part in gpu_report.checks(Path("out"), 0.5, "NVIDIA H100 80GB HBM3") if part.name == "prediction"
    )
    assert "--topology=h100:1" in part.command
    settings = flatten(voc_stage1.get_config().to_dict())
    given = {word.removeprefix("--config.").split("=")[0] for word in part.command if word.startswith("--config.")}
    assert given <= set(settings)
    assert "--config.batch_size=64" in part.command
    assert "--config.model.fc_features=2048" in part.command
    assert all(part.name != "prediction" for part in gpu_report.checks(Path("out"), 1.0, "Tesla T4"))


LOG = """
tests/a.py::test_one PASSED                        [  1%]
tests/a.py::test_two[a b-1] FAILED                 [  2%]
tests/a.py::test_three SKIPPED (there is no GPU)   [  3%]
tests/b.py::test_four ERROR                        [  4%]
tests/b.py::test_five
FAILED tests/a.py::test_two[a b-1] - AssertionError
"""


def test_tests_are_counted_in_logs_that_end_early():
    found = gpu_report.count_tests(LOG)
    assert found == {
        "passed": 1,
        "failed": 1,
        "skipped": 1,
        "failures": ["tests/a.py::test_two[a b-1]", "tests/b.py::test_four"],
    }


# What a part writes, in place of FILE.
ENVIRONMENT = """echo '{"platform": "gpu", "device": "NVIDIA H200", "versions": {"jax": "0.12.0"}}' >FILE"""


def fake(script):
    def part(folder, name, *_, **__):
        return Part(name, name, ("bash", "-c", script.replace("FILE", str(folder / f"{name}.json"))))

    return part


def test_from_parts_to_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_report, "benchmark", fake(ENVIRONMENT))
    crf = Part("crf", "Dense CRF", ("bash", "-c", "echo 'error: no luck'; exit 1"))
    monkeypatch.setattr(
        gpu_report, "checks", lambda *_: [Part("tests", "T", ("true",), numbers_of_log=gpu_report.count_tests)]
    )
    monkeypatch.setattr(gpu_report, "measurements", lambda *_: [(30, crf), (0, Part("unpool", "U", ("env",)))])
    gpu_report.measure(tmp_path, 8.8, 1.0, False, tmp_path / "compiled")
    found = json.loads((tmp_path / "report.json").read_text())
    assert {name: part["status"] for name, part in found["parts"].items()} == {
        "environment": FINISHED,
        "tests": FINISHED,
        "crf": FAILED,
        "unpool": FINISHED,
    }
    assert "JAX_PLATFORMS=cuda,cpu\n" in (tmp_path / "unpool.log").read_text()
    assert f"JAX_COMPILATION_CACHE_DIR={tmp_path / 'compiled'}\n" in (tmp_path / "unpool.log").read_text()
    assert "# Measured on NVIDIA H200" in (tmp_path / "report.md").read_text()
    assert "crf failed after 0 s: error: no luck" in capsys.readouterr().err


def test_jax_without_its_plugin_for_gpus(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_report, "benchmark", fake(ENVIRONMENT.replace('"gpu"', '"cpu"')))
    with pytest.raises(InputError, match=r"^JAX sees no GPU here.*pip install .jax\[cuda13\]==0.12.0.$"):
        gpu_report.measure(tmp_path, 8.8, 1.0, False, tmp_path)


def test_a_gpu_that_jax_cannot_use(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_report, "benchmark", fake("echo 'error: no plugin'; exit 1"))
    with pytest.raises(InputError, match=r"^JAX cannot compute here: no plugin$"):
        gpu_report.measure(tmp_path, 8.8, 1.0, False, tmp_path)
    assert "no plugin" in (tmp_path / "report.md").read_text()
