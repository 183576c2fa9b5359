"""Fixtures that make benchmarks short and replace new processes by calls."""

from functools import partial

import pytest

from experiments.benchmarks import harness


@pytest.fixture
def short(monkeypatch):
    """Makes two rounds of one step, and little arithmetic for the rates of the machine."""
    for name, value in {"ROUNDS": 2, "SECONDS": 0.0, "WARM": 1, "RATE_ROUNDS": 1, "COPY_BYTES": 2**20}.items():
        monkeypatch.setattr(harness, name, value)


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setattr(harness, "find_torch", lambda platform: (None, "PyTorch is not installed"))


@pytest.fixture
def in_this_process(monkeypatch):
    """Calls functions in this process instead of a new one; returns the environments that were requested."""
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
    """Returns a check that median and range are positive and in order."""

    def check(spread):
        assert 0 < spread["min"] <= spread["median"] <= spread["max"]

    return check
