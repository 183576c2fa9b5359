"""The benchmark command: its flags, its errors, its JSON."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from deconvnet_jax.errors import InputError
from experiments.benchmarks import scaling
from experiments.tasks import benchmark as program

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*arguments):
    command = [sys.executable, "-m", "experiments.benchmark", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_command(tmp_path):
    done = benchmark("scaling", f"--json={tmp_path / 'numbers.json'}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "numbers.json").read_text()) == scaling.run(None, None)
    assert "efficiency" in done.stderr


@pytest.fixture
def values(monkeypatch):
    """Flags as given by words; nothing else has flags."""

    def parse(*words):
        defined = flags.FlagValues()
        monkeypatch.setattr(flags, "FLAGS", defined)
        for name in ("voc_root", "split", "forest", "batch_size", "picture", "width", "quick", "dtype", "report"):
            flags.DEFINE_string(name, None, "", flag_values=defined)
        for name in ("json", "step_ms"):
            flags.DEFINE_string(name, None, "", flag_values=defined)
        defined(["benchmark", *words])
        return defined

    return parse


def test_all_runs_each_with_the_flags_it_takes_and_outlives_one_that_fails(monkeypatch, values):
    commands = {}

    def started(command, **_):
        commands[command[3]] = command[4:]
        return subprocess.CompletedProcess(command, int(command[3] == "forward"), '{"a": 1}')

    monkeypatch.setattr(program.subprocess, "run", started)
    numbers = program.run_all(values("--picture=a.png", "--dtype=bfloat16", "--width=1"))
    assert list(numbers) == [name for name in program.BENCHMARKS if name != "proposals"]  # which needs photographs
    assert numbers["forward"] is None
    assert numbers["train"] == {"a": 1}
    expected = {name: ["--width=1", "--dtype=bfloat16"] for name in ("train", "repeat")}
    expected |= {"growth": ["--width=1", "--picture=a.png"], "forward": ["--width=1"], "infer": ["--width=1"]}
    assert {name: given for name, given in commands.items() if given} == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (),
            "expected the name of one benchmark (environment, input, proposals, train, repeat, forward, unpool, "
            "infer, crf, growth, scaling, all); got nothing",
        ),
        (("speed",), "got speed"),
        (("proposals",), "needs photographs with masks: --voc_root=FOLDER"),
        (("proposals", "--json=nowhere/numbers.json"), "there is no folder nowhere in "),
        (("unpool", "--dtype=float32"), "--dtype=float32 has no meaning for 'unpool', only for train and repeat"),
    ],
)
def test_wrong_use(values, words, message):
    values(*(word for word in words if word.startswith("--")))
    with pytest.raises(InputError) as error:
        program.run([word for word in words if not word.startswith("--")], flags.FLAGS)
    assert message in str(error.value)
