"""Tests the Markdown of a GPU report against the numbers that it shows."""

import re

import pytest

from experiments.benchmarks.markdown import markdown
from experiments.benchmarks.parts import FAILED, FINISHED


def middle(value):
    return {"median": value, "min": 0.9 * value, "max": 1.1 * value}


RATES = {"flops": 8e14, "copy_bytes": 4e12}
AGAINST = {"alternative": "PyTorch 2", "no_alternative": None, "cores": 16, "device": "NVIDIA H200"}
STEP = {
    "images_per_second": {"deconvnet_jax": middle(2000.0), "PyTorch": middle(1000.0)},
    "ratio": middle(2.0),
    "peak_bytes": {"deconvnet_jax": 10.2e9, "PyTorch": 12e9},
    "mode": {"deconvnet_jax": "jit", "PyTorch": "torch.compile"},
}
SIDES = {"deconvnet_jax": middle(0.5), "pydensecrf2": middle(2.0)}
TIMES = {"seconds": SIDES, "build_seconds": SIDES, "iterations_seconds": SIDES, "ratio": middle(4.0)}
TIMES |= {"vertices": [[1000, 2000], [3000, 4000]], "agreement": 99.9987, "no_alternative": None}
STAGE = {"seconds": {"deconvnet_jax": middle(0.03), "PyTorch, OpenCV": middle(0.09)}, "ratio": middle(3.0)}
ALONE = {"seconds": {"deconvnet_jax": middle(0.001), "deconvnet_jax, any window": middle(0.002)}, "ratio": {}}
REPEATED = {"dtype": "bfloat16", "steps": 20, "batch_size": 8, "xla_flags": "", "device": "NVIDIA H200"}
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
        "costs": {"10": {"seconds": 0.01, "seconds_per_proposal": 0.001, "peak_bytes": 5e9}},
    },
    "crf": {**AGAINST, "iterations": 10, "classes": 21, "results": {"released": TIMES}},
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
        "milliseconds_and_core_per_crop_by_windows": {},
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
    text = markdown(report(**{name: outcome(NUMBERS[name]) for name in names}))
    for lines in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({line.count("|") for line in lines.splitlines()}) == 1, lines
    assert "None" not in text
    assert "All of these parts finished." in text


def test_numbers_of_the_report():
    text = markdown(report(**{name: outcome(numbers) for name, numbers in NUMBERS.items()}))
    assert text.startswith("# Measured on NVIDIA H200\n")
    assert "rehearsal" not in text
    for expected in (
        "66 passed, 1 failed, 1 skipped: `tests/a.py::test_b[x/y]`",
        "2,000 images/s, 2 times as fast as PyTorch 2",
        "| deconvnet_jax, bfloat16 | 2,000 (1,800 to 2,200) | 393 | 49 % | 10.2 GB | 2 (1.8 to 2.2) | jit |",
        "| NOT equal: losses differ from step 3 on |",
        "| --x | bfloat16 | equal bit for bit |",
        "| total | 0.03 (0.027 to 0.033) | 0.09 (0.081 to 0.099) | 3 (2.7 to 3.3) |",
        "99.9987 %",
        "Pooling and unpooling of 8 images; NVIDIA H200, 16 cores; no comparison: no PyTorch",
        "| 1 ms |",
        "9,000 crops/s, 3 times as fast",
        "| measured | 32 | 2 |",
        "9.5 GB of memory as compiled, 10.2 GB measured",
        "| device memory | 150.0 GB |",
    ):
        assert expected in text


def test_parts_that_did_not_finish_are_reported():
    parts = {
        "crf": outcome(None, FAILED, "error: a | b"),
        "input": outcome(None, "too slow", "stopped after 9 seconds"),
    }
    text = markdown(report(0.125, **parts))
    assert "| A part | failed | 10 | `crf.log` | `error: a / b` |" in text
    assert "| A part | too slow | 10 | `input.log` | stopped after 9 seconds |" in text
    assert "python -m x\npython -m x\n" in text
    assert "Rehearsal: all layers are 0.125 times as wide" in text


def test_unexpected_numbers_do_not_end_the_run():
    parts = {"prediction": outcome({"step": {}}), "crf": outcome({"results": []}), "repeat": outcome(NUMBERS["repeat"])}
    text = markdown(report(**parts))
    assert text.count("not shown (") == 4
    assert "| NOT equal: losses differ from step 3 on |" in text
