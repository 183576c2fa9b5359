"""Short rounds, and processes that are calls."""

from functools import partial

import pytest

from experiments.benchmarks import harness


@pytest.fixture
def short(monkeypatch):
    """Two rounds of one step, little arithmetic for the machine's own rates."""
    for name, value in {"ROUNDS": 2, "SECONDS": 0.0, "WARM": 1, "RATE_ROUNDS": 1, "COPY_BYTES": 2**20}.items():
        monkeypatch.setattr(harness, name, value)


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setattr(harness, "find_torch", lambda platform: (None, "PyTorch is not installed"))


@pytest.fixture
def in_this_process(monkeypatch):
    """What would be called in a new process is called here; returns the environments asked for."""
    environments = []

    def start_process(function, *arguments, **environment):
        environments.append(environment)
        return partial(function, *arguments)

    def result_of(call):
        try:
            return call()
        except Exception as error:
            raise RuntimeError(str(error)) from error

    monkeypatch.setattr(harness, "start_process", start_process)
    monkeypatch.setattr(harness, "result_of", result_of)
    return environments


@pytest.fixture
def check_spread():
    """Median and range of a positive number."""

    def check(spread):
        assert 0 < spread["min"] <= spread["median"] <= spread["max"]

    return check
