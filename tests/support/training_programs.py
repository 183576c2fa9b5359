"""Training in processes of its own, as people start it: what they log, how far they are, how they end."""

import json
import os
import time


def with_devices(count):
    """The environment of a program with so many virtual devices; of two such flags XLA takes the last."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags.strip()}


def metric_lines(folder):
    """What is in metrics.jsonl, as far as whole lines are written."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def wait_for_step(processes, folder, step):
    """Until that step is logged; fails if a process ends before."""
    deadline = time.monotonic() + 240
    while max((line["step"] for line in metric_lines(folder)), default=0) < step:
        for process in processes:
            assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.005)


def finish(*processes, status=0):
    """What each says on stderr; fails unless all end with this status."""
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), "\n".join(errors)
    return errors
