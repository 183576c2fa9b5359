"""Tests the parts of a report: shares of the time, failures, and the results that a killed program leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.benchmarks.parts import FAILED, FINISHED, NOT_STARTED, TOO_SLOW, Part, PartRunner

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[3]


def shell(name, script, **options):
    return Part(name, name.title(), ("bash", "-c", script), **options)


@pytest.fixture
def runner(tmp_path):
    kept = []
    made = PartRunner(tmp_path, lambda outcomes: kept.append(list(outcomes)), least=0.2)
    made.kept = kept
    return made


def test_outcomes_of_parts(runner, tmp_path):
    good = f"echo said; echo '{{\"speed\": 3}}' >{tmp_path}/good.json"
    runner.run(30, [shell("good", good)])
    runner.run(0, [shell("bad", "echo before; echo 'error: no luck' >&2; exit 3")])
    runner.run(0, [shell("killed", "kill -KILL $$")])
    runner.run(0, [shell("counted", "echo a; echo a", numbers_of_log=lambda log: {"lines": log.count("a")})])
    found = runner.outcomes
    assert runner.kept == [["good"], ["good", "bad"], ["good", "bad", "killed"], [*found]]
    assert {name: outcome["status"] for name, outcome in found.items()} == {
        "good": FINISHED,
        "bad": FAILED,
        "killed": FAILED,
        "counted": FINISHED,
    }
    assert found["good"]["numbers"] == {"speed": 3}
    assert found["good"]["error"] is None
    assert found["bad"]["error"] == "error: no luck"
    assert found["bad"]["numbers"] is None
    assert found["killed"]["error"] == "exit status -9, without any output"
    assert found["counted"]["numbers"] == {"lines": 2}
    assert (tmp_path / "good.log").read_text() == "said\n"


def test_a_slow_part_ends_with_its_children_and_the_others_run(runner, tmp_path):
    runner.run(4, [shell("slow", f"echo started; sleep 60 & echo $! >{tmp_path}/child; wait")])
    runner.run(8, [shell("next", "true")])
    assert runner.outcomes["slow"]["status"] == TOO_SLOW
    assert runner.outcomes["slow"]["seconds"] < 3
    assert runner.outcomes["slow"]["error"] == "stopped after 1 seconds"
    assert runner.outcomes["next"]["status"] == FINISHED
    child = int((tmp_path / "child").read_text())
    assert not alive(child)


def test_unused_time_goes_to_the_next_part_and_no_part_uses_the_time_of_others(runner):
    runner.run(20, [shell("first", "true")])
    runner.run(10, [shell("second", "true")])
    assert 10 < runner.outcomes["second"]["limit"] <= 27  # GRACE is kept for its end.
    runner._end -= 30
    runner.run(1, [shell("late", "true")])
    assert runner.outcomes["late"]["status"] == NOT_STARTED
    assert runner.outcomes["late"]["error"] == "earlier parts took all the time"
    assert not (runner.folder / "late.log").exists()


def test_at_the_same_time(runner, tmp_path):
    """Two parts wait for each other, and both for the third."""

    def after(own, *others):
        awaited = " && ".join(f"[ -e {tmp_path / other} ]" for other in others)
        return shell(own, f"touch {tmp_path / own}; until {awaited}; do sleep 0.05; done; sleep 0.5")

    runner.run(60, [after("a", "b", "c"), after("b", "a", "c"), shell("c", f"touch {tmp_path / 'c'}; exit 2")])
    assert [*runner.outcomes] == ["c", "a", "b"] or [*runner.outcomes] == ["c", "b", "a"]
    assert [runner.outcomes[name]["status"] for name in "abc"] == [FINISHED, FINISHED, FAILED]


def test_variables(runner, monkeypatch):
    monkeypatch.setenv("GIVEN", "outside")
    runner.environment["COMMON"] = "all"
    show = "echo $GIVEN $COMMON ${MORE-none}; exit 1"
    runner.run(30, [shell("a", show, environment={"MORE": "x"}), shell("b", show)])
    assert runner.outcomes["a"]["error"] == "outside all x"
    assert runner.outcomes["b"]["error"] == "outside all none"
    assert runner.outcomes["a"]["command"] == f"MORE=x bash -c '{show}'"


KILLED = """
import json, signal, sys
from pathlib import Path
from experiments.benchmarks.parts import Part, PartRunner

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
folder = Path(sys.argv[1])
runner = PartRunner(folder, lambda outcomes: (folder / "report.json").write_text(json.dumps(outcomes)))
runner.run(30, [Part("first", "First", ("true",))])
runner.run(30, [Part("second", "Second", ("bash", "-c", f"echo $$ >{folder}/pid; sleep 50"))])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_program_has_kept_finished_parts(tmp_path, number):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        process.send_signal(number)
        process.wait(timeout=20)
    report = json.loads((tmp_path / "report.json").read_text())
    assert {name: outcome["status"] for name, outcome in report.items()} == {"first": FINISHED}
    pid = int((tmp_path / "pid").read_text())
    if number == signal.SIGTERM:
        wait_for(lambda: not alive(pid))
    else:  # `timeout` ends it later.
        os.kill(pid, signal.SIGKILL)


def alive(pid):
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
