"""The report of a GPU: what it asks for exists, what it says is in the numbers, what it refuses."""

import json
import re
from pathlib import Path

import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import flatten
from experiments import benchmark, gpu_report, report_tables
from experiments.configs import voc_stage1
from experiments.parts import FAILED, FINISHED, Part

ROOT = Path(__file__).resolve().parents[2]


def middle(value):
    return {"median": value, "min": 0.9 * value, "max": 1.1 * value}


RATES = {"flops": 8e14, "copy_bytes": 4e12}
AGAINST = {"alternative": "PyTorch 2", "no_alternative": None, "cores": 16}
STEP = {
    "images_per_second": {"deconvnet_jax": middle(2000.0), "PyTorch": middle(1000.0)},
    "ratio": middle(2.0),
    "peak_bytes": {"deconvnet_jax": 10.2e9, "PyTorch": 12e9},
    "mode": {"deconvnet_jax": "jit", "PyTorch": "torch.compile"},
}
TIMES = {"seconds": {"deconvnet_jax": middle(0.5), "pydensecrf2": middle(2.0)}, "ratio": middle(4.0)}
STAGE = {"seconds": {"deconvnet_jax": middle(0.03), "PyTorch, OpenCV": middle(0.09)}, "ratio": middle(3.0)}
ALONE = {"seconds": {"deconvnet_jax": middle(0.001), "deconvnet_jax, any window": middle(0.002)}, "ratio": {}}
REPEATED = {"dtype": "bfloat16", "steps": 20, "batch_size": 8, "xla_flags": ""}
NUMBERS = {
    "environment": {
        "platform": "gpu",
        "device": "NVIDIA H200",
        "device_memory_bytes": 150e9,
        "nvidia_smi": {"name": "NVIDIA H200", "driver_version": "580.1"},
        "versions": {"jax": "0.12.0"},
    },
    "tests": {"passed": 66, "failed": 1, "skipped": 1, "failures": ["tests/a.py::test_b[x|y]"]},
    "repeat": {**REPEATED, "equal": False, "first_step_that_differs": 3},
    "repeat_deterministic": {**REPEATED, "xla_flags": "--x", "equal": True, "first_step_that_differs": None},
    "prediction": {
        "batch_per_device": 64,
        "step": {
            "bound_seconds": 0.016,
            "arithmetic_seconds": 0.012,
            "memory_seconds": 0.015,
            "memory": {"total_bytes": 9.5e9},
        },
    },
    "train_bfloat16": {
        **AGAINST,
        "batch_size": 64,
        "gflop_per_image": 196.5,
        "rates": {"bfloat16": RATES},
        "results": {"bfloat16": STEP},
    },
    "infer": {
        **AGAINST,
        "image": [500, 375],
        "proposals": 50,
        "batch_size": 50,
        "stages": {"network": STAGE, "total": STAGE},
        "crf": TIMES,
    },
    "crf": {**AGAINST, "results": {"released": {**TIMES, "agreement": 99.9987}}},
    "unpool": {
        **AGAINST,
        "alternative": None,
        "no_alternative": "no PyTorch",
        "batch_size": 8,
        "results": {"7x7": ALONE},
    },
    "forward": {**AGAINST, "gflop_per_image": 65.5, "rates": RATES, "results": {"64": STEP}},
    "input": {
        **AGAINST,
        "crops_per_second": {"deconvnet_jax": 9000.0, "without cache": 4000.0, "PyTorch DataLoader, OpenCV": 3000.0},
        "ratio": {"deconvnet_jax": middle(3.0), "without cache": middle(1.3)},
    },
}


def outcome(numbers, status=FINISHED, error=None):
    return {
        "title": "A part",
        "command": "python -m x",
        "status": status,
        "seconds": 9.5,
        "limit": 20.0,
        "error": error,
        "numbers": numbers,
    }


def report(width=1.0, **parts):
    return {"started": "2026-11-28T23:00:00+00:00", "seconds": 480.2, "width": width, "parts": parts}


@pytest.mark.parametrize("names", [[*NUMBERS][:count] for count in range(len(NUMBERS) + 1)])
def test_every_beginning_of_a_report_can_be_read(names):
    text = report_tables.markdown(report(**{name: outcome(NUMBERS[name]) for name in names}))
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in lines.splitlines()}) == 1, lines
    assert "None" not in text
    assert "All of these finished." in text


def test_numbers_of_the_report():
    text = report_tables.markdown(report(**{name: outcome(numbers) for name, numbers in NUMBERS.items()}))
    assert text.startswith("# Measured on NVIDIA H200\n")
    assert "rehearsal" not in text
    for expected in (
        "66 passed, 1 failed, 1 skipped: `tests/a.py::test_b[x/y]`",
        "2,000 images/s, 2 times as fast as PyTorch 2",
        "| bfloat16, 64 images | deconvnet_jax | 2,000 (1,800 to 2,200) | 393 | 49 % | 10.2 GB |",
        "| no; losses from step 3 on |",
        "| --x | bfloat16 | yes |",
        "With CRF: 530 ms.",
        "99.9987 %",
        "Compared with nothing: no PyTorch.",
        "7x7: 1 ms |",
        "9,000 crops/s, 3 times as fast",
        "| measured | 32 | 2 |",
        "9.5 GB of memory as compiled, 10.2 GB measured",
        "| device memory | 150.0 GB |",
    ):
        assert expected in text


def test_what_did_not_work_is_said():
    parts = {
        "crf": outcome(None, FAILED, "error: a | b"),
        "input": outcome(None, "too slow", "stopped after 9 seconds"),
    }
    text = report_tables.markdown(report(0.125, **parts))
    assert "| A part | failed | 10 | `crf.log` | `error: a / b` |" in text
    assert "| A part | too slow | 10 | `input.log` | stopped after 9 seconds |" in text
    assert "python -m x\npython -m x\n" in text
    assert "A rehearsal: all layers are 0.125 times as wide" in text


def test_numbers_of_another_form_do_not_end_the_run():
    parts = {"prediction": outcome({"step": {}}), "crf": outcome({"results": []}), "repeat": outcome(NUMBERS["repeat"])}
    text = report_tables.markdown(report(**parts))
    assert text.count("not shown (") == 4
    assert "| no; losses from step 3 on |" in text


def test_the_shares_are_nine_minutes():
    total = gpu_report.ENVIRONMENT_SHARE + gpu_report.CHECKS_SHARE + sum(gpu_report.SHARES.values())
    assert total <= 60 * gpu_report.DEFAULT_MINUTES <= 530
    assert [part.name for part in gpu_report.measurements(Path(), 1.0, False)] == [*gpu_report.SHARES]


@pytest.mark.parametrize("on_cpu", [False, True])
def test_commands_exist(on_cpu):
    parts = gpu_report.measurements(Path("out"), 0.5, on_cpu) + gpu_report.checks(Path("out"), 0.5, "NVIDIA H200")
    flags = set(re.findall(r'(?:DEFINE_\w+|define_path)\(\s*"(\w+)"', Path(benchmark.__file__).read_text()))
    for part in parts:
        if "experiments.benchmark" in part.command:
            name, *given = part.command[3:]
            assert name in benchmark.NAMES
            assert {re.match(r"--(\w+)", flag)[1] for flag in given} <= flags
            for flag, names in benchmark.FLAGS_OF_SOME.items():
                assert name in names or not any(word.startswith(f"--{flag}") for word in given)
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


def fake(script):
    return lambda folder, name, *_, **__: Part(name, name, ("bash", "-c", script.format(file=folder / f"{name}.json")))


def test_from_parts_to_files(tmp_path, monkeypatch, capsys):
    environment = json.dumps(NUMBERS["environment"]).replace("{", "{{").replace("}", "}}")
    monkeypatch.setattr(gpu_report, "benchmark", fake(f"echo '{environment}' >{{file}}"))
    crf = Part("crf", "Dense CRF", ("bash", "-c", "echo 'error: no luck'; exit 1"))
    monkeypatch.setattr(
        gpu_report, "checks", lambda *_: [Part("tests", "T", ("true",), numbers_of_log=gpu_report.count_tests)]
    )
    monkeypatch.setattr(gpu_report, "measurements", lambda *_: [crf, Part("unpool", "U", ("env",))])
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
    environment = json.dumps({**NUMBERS["environment"], "platform": "cpu"}).replace("{", "{{").replace("}", "}}")
    monkeypatch.setattr(gpu_report, "benchmark", fake(f"echo '{environment}' >{{file}}"))
    with pytest.raises(InputError, match=r"^JAX sees no GPU here.*pip install .jax\[cuda13\]==0.12.0.$"):
        gpu_report.measure(tmp_path, 8.8, 1.0, False, tmp_path)


def test_a_gpu_that_jax_cannot_use(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_report, "benchmark", fake("echo 'error: no plugin'; exit 1"))
    with pytest.raises(InputError, match=r"^JAX cannot compute here: no plugin$"):
        gpu_report.measure(tmp_path, 8.8, 1.0, False, tmp_path)
    assert "no plugin" in (tmp_path / "report.md").read_text()
