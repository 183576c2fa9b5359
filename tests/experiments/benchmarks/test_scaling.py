"""Tests the scaling of compiled programs against cases computed by hand."""

import json

import pytest

from deconvnet_jax.errors import InputError
from experiments.benchmarks import scaling
from experiments.compiled.hardware import ACCELERATORS, all_reduce_seconds

EXCHANGE = {"name": "a", "kind": "all-reduce", "times": 1, "asynchronous": True, "start_product": 5, "end_product": 9}
EXCHANGE |= {"before_backward_end": True, "flops_between": 1, "num_bytes": 10**9}


def report(start, end):
    """Returns the report of a program with a bound of 10 ms and one all-reduce of a gigabyte."""
    return {
        "topology": "h100:8",
        "batch_per_device": 8,
        "config": {"dtype": "bfloat16", "all_reduce_dtype": "float32"},
        "step": {
            "bound_seconds": 0.010,
            "early_share": 1.0,
            "collectives": [{**EXCHANGE, "start_seconds": start, "end_seconds": end}],
        },
    }


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "report.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def scaled(write, start, end, step_ms):
    (case,) = scaling.run(write(report(start, end)), step_ms)["cases"]
    return case


def test_an_all_reduce_beside_other_work_costs_nothing(write):
    found = scaled(write, 0.002, 0.009, 20.0)  # twice the bound: 14 ms for an all-reduce of 4.9 ms
    assert found["step_seconds"] == pytest.approx(0.020)
    assert found["scaling"]["8"]["step"] == pytest.approx(0.020)
    assert found["scaling"]["8"]["efficiency"] == pytest.approx(1)
    assert (found["batch_per_device"], found["dtype"], found["gradients"]) == (8, "bfloat16", "float32")


def test_an_all_reduce_that_the_step_waits_for_costs_its_time(write):
    found = scaled(write, 0.009, 0.009, 20.0)
    for size, numbers in found["scaling"].items():
        seconds = all_reduce_seconds(1e9, ACCELERATORS["h100"].levels(int(size)))
        assert numbers["all_reduce"] == pytest.approx(seconds)
        assert numbers["step"] == pytest.approx(0.020 + seconds)
        assert numbers["efficiency"] == pytest.approx(0.020 / (0.020 + seconds))
    assert list(found["scaling"]) == ["8", "64", "256"]


def test_half_of_an_all_reduce_beside_other_work(write):
    seconds = all_reduce_seconds(1e9, ACCELERATORS["h100"].levels(8))
    found = scaled(write, 0.006, 0.006 + seconds / 4, 20.0)  # half of its time, at twice the bound
    assert found["scaling"]["8"]["step"] == pytest.approx(0.020 + seconds / 2)


def test_without_a_measured_step(write):
    found = scaled(write, 0.002, 0.009, None)
    assert found["step_seconds"] == pytest.approx(0.010 * 38.4 / 26.8)


def test_the_stored_reports():
    found = scaling.run(None, None)["cases"]
    assert {"h100:8", "v5p:2x2x2"} <= {case["topology"] for case in found}
    for case in found:
        assert all(0 < numbers["efficiency"] <= 1 for numbers in case["scaling"].values())


@pytest.mark.parametrize(
    ("given", "step_ms", "message"),
    [
        (True, 0.0, "--step_ms=0: expected the milliseconds of a step, above 0"),
        (True, -3.0, "--step_ms=-3: expected the milliseconds of a step, above 0"),
        (False, 50.0, "--step_ms=50 needs the compiled program of that step; give --report=FILE too"),
    ],
)
def test_wrong_use(write, given, step_ms, message):
    with pytest.raises(InputError) as error:
        scaling.run(write(report(0.002, 0.009)) if given else None, step_ms)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", json.dumps({"topology": "h100:8", "step": {"collectives": [{"name": "a"}]}})]
)
def test_a_file_that_is_no_report(write, content):
    path = write(content)
    with pytest.raises(InputError) as error:
        scaling.run(path, None)
    assert str(error.value) == (f"--report={path} is no report of experiments.compile --json; name another file")


def test_no_reports(monkeypatch, tmp_path):
    monkeypatch.setattr(scaling, "REPORTS", tmp_path)
    with pytest.raises(InputError, match=r"holds no reports; give --report=FILE, which experiments\.compile"):
        scaling.run(None, None)
