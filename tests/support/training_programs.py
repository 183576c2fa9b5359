"""Follows training programs in separate processes: their metrics, their progress and how they end."""

import json
import os
import time


def with_devices(count):
    """Returns the environment of a program with `count` virtual devices; XLA uses the last of two such flags."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags.strip()}


def metric_lines(folder):
    """Returns the complete lines of metrics.jsonl as dictionaries."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def wait_for_step(processes, folder, step):
    """Waits until a step is logged; fails if a process ends before."""
    deadline = time.monotonic() + 240
    while max((line["step"] for line in metric_lines(folder)), default=0) < step:
        for process in processes:
            assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.005)


def finish(*processes, status=0):
    """Waits for the processes and returns their stderr; fails unless all end with this status."""
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), "\n".join(errors)
    return errors
