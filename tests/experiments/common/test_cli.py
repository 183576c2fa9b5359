"""Errors end programs with one line; flags that name files and folders; --config."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from absl import flags

from experiments.common import cli, flag_errors

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
from deconvnet_jax.errors import InputError
from experiments.common import cli
def main(argv):
    raise {error}
cli.run(main)
"""


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("InputError('no file a.txt; make it')", 1, "error: no file a.txt; make it"),
        (
            "OSError(28, 'No space left on device', 'b.npz')",
            1,
            "error: [Errno 28] No space left on device: 'b.npz'; make room, or write elsewhere",
        ),
        ("KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_one_line_and_an_exit_status(error, code, message):
    command = [sys.executable, "-c", PROGRAM.format(error=error)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (code, message, "")


@pytest.mark.end_to_end
def test_memory_of_the_device():
    """What JAX raises then; another of its errors is a bug, and shows where."""
    for text, traceback in (("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.", False), ("INTERNAL: x", True)):
        error = f"__import__('jax').errors.JaxRuntimeError({text!r})"
        command = [sys.executable, "-c", PROGRAM.format(error=error)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == traceback
        if not traceback:
            assert done.stderr.startswith("error: the device's memory does not suffice (RESOURCE_EXHAUSTED: Out of")
            assert "--config.micro_batch" in done.stderr
            assert len(done.stderr.splitlines()) == 1


PROGRAMS = sorted(path for path in (ROOT / "experiments").glob("*.py") if "cli.run(main)" in path.read_text())
# Flags that are text or lists and name no file.
NO_PATHS = {"coordinator", "split", "dataset", "method", "eval_split", "proposals", "platforms", "categories", "box"}
NO_PATHS |= {"train_splits", "topology", "names", "binary", "mask_suffix", "image_suffix", "ignore"}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_every_flag_that_takes_a_path_is_one(program):
    text = program.read_text()
    assert set(re.findall(r"""DEFINE_(?:string|list|multi_string)\(\s*"(\w+)\"""", text)) <= NO_PATHS
    assert "DEFINE_config" not in text
    paths = re.findall(r"""cli\.define_path\(\s*"(\w+)\"""", text)
    assert {"output", "workdir", "json", "data_dir"} & set(paths)


@pytest.fixture
def own_flags(monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(flags, "DEFINE", partial(flags.DEFINE, flag_values=values))
    cli.define_path("output", "a.png", "for results")
    return values


def test_a_flag_that_is_a_path(own_flags, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, expected in (
        ("--output=~/a [1]/b\\c/é", tmp_path / "a [1]/b\\c/é"),
        ("--output=C:/a", Path("C:/a")),
        ("--output=a:b", Path("a:b")),
    ):
        own_flags(["program", given])
        assert own_flags.output == expected
    assert own_flags["output"].default == Path("a.png")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--output=", "error: --output is empty; name a file or folder"),
        (
            "--output=gs://bucket/a",
            "error: --output=gs://bucket/a is an address; expected a path on a local or mounted disk",
        ),
        ("--output=~nobody_here/a", "error: --output=~nobody_here/a: the home folder is unknown"),
    ],
)
def test_a_flag_that_is_no_path(own_flags, given, message):
    with pytest.raises(flags.IllegalFlagValueError) as caught:
        own_flags(["program", given])
    assert flag_errors.error_line(caught.value).startswith(message)


CONFIGS = {
    "none.py": ("def get_config(): pass", "get_config() returned NoneType"),
    "dict.py": ("def get_config(): return {}", "get_config() returned dict"),
    "without.py": ("x = 1", "has no attribute 'get_config'"),
    "raises.py": ("def get_config(): return 1 / 0", "could not be loaded (ZeroDivisionError division by zero)"),
    "syntax.py": ("def get_config(:", "could not be loaded (SyntaxError"),
    "opens.py": ("open(__file__ + '.absent')", "No such file or directory"),
    "typed.py": (
        "from experiments.configs import default as d\ndef get_config(): d.get_config().seed = 'a'",
        "could not be loaded (TypeError",
    ),
    "binary.py": ("\0\1", "could not be loaded ("),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_file_that_is_none(tmp_path, name):
    text, message = CONFIGS[name]
    (tmp_path / name).write_text(text)
    said = refused_config(str(tmp_path / name))
    assert said.startswith(f"error: --config={tmp_path / name}")
    assert message in said


def test_config_files_are_paths_or_names(monkeypatch, tmp_path):
    assert refused_config("gs://a/b.py").startswith("error: --config=gs://a/b.py is an address")
    assert refused_config("").startswith("error: --config is empty")
    said = refused_config("no.py")
    expected = f"error: --config=no.py: no such file in {Path.cwd()}; give a path, or one of the names camvid, "
    assert said.startswith(expected)
    assert refused_config("dmo").endswith("; did you mean demo?")
    assert not {"settings", "stages"} & set(said.split(", "))
    parse = cli._ConfigParser().parse
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own [1].py").write_text("from experiments.configs.default import get_config")
    assert parse("~/own [1].py").is_locked
    copy = (ROOT / "experiments/configs/voc_stage2.py").read_text().replace("40_000", "41_000")
    (tmp_path / "my.v2.py").write_text(copy)  # imports voc_stage1 from beside the original
    assert parse(tmp_path / "my.v2.py").num_steps == 41_000
    monkeypatch.chdir(tmp_path)
    for name in ("voc_stage2", "voc_stage2.py", "experiments/configs/voc_stage2.py"):  # there is no such file here
        assert parse(name).num_steps == 40_000
    own = "import ml_collections\ndef get_config(steps): return ml_collections.ConfigDict({'a': steps})"
    (tmp_path / "demo.py").write_text(own)
    assert parse("demo.py:7").a == "7"
    assert parse("demo").num_steps == 2400


def refused_config(path):
    flag = flags.Flag(cli._ConfigParser(), None, "config", None, "")
    with pytest.raises(flags.IllegalFlagValueError) as caught:
        flag.parse(path)
    said = flag_errors.error_line(caught.value)
    assert "\n" not in said
    return said
