"""--help of every program: complete, quick, and with nothing of absl; flags have one name and one default."""

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from absl import flags

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import PLATFORMS
from deconvnet_jax.proposals import METHODS
from experiments.common import cli, hosts, scripts
from experiments.compiled import topologies
from experiments.tasks import gpu_report, import_weights, prepare_data

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = [*scripts.COMMANDS, "gpu_report"]
HEAVY = {"jax", "flax", "cv2", "tensorflow_datasets", "orbax", "tensorboardX", "matplotlib", "torch", "numpy"}
IN_THIS_PROCESS = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(f"experiments.{sys.argv[0]}", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    print(stop.code or 0, *sys.modules, file=sys.stderr)
"""


def run(program, *arguments):
    """Runs a program in a separate process; returns its status, stdout and the modules that it imported."""
    command = [sys.executable, "-c", IN_THIS_PROCESS, program, *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    status, *modules = found.stderr.splitlines()[-1].split()
    return int(status), found.stdout, set(modules)


def source_of_flags(program):
    """The code that defines a program's flags, with that of the helpers that it calls."""
    text = (ROOT / f"experiments/{program}.py").read_text()
    for module, function in re.findall(r"\b(cli|hosts)\.(define_(?!path|old)\w+)\(", text):
        text += inspect.getsource(getattr({"cli": cli, "hosts": hosts}[module], function))
    return text


@pytest.mark.end_to_end
@pytest.mark.parametrize("program", PROGRAMS)
def test_help(program):
    status, shown, modules = run(program, "--help")
    assert status == 0
    assert not HEAVY & modules
    assert not re.search(r"absl|helpfull|Try --|\bNone\b", shown)
    text = source_of_flags(program)
    assert shown.startswith(re.match(r'r?"""(.*)\n', text)[1])
    assert f"\nUsage:\n    python -m experiments.{program} " in shown
    assert all(len(line) <= 120 for line in shown.splitlines())
    entries = re.findall(r"^  --(?:\[no\])?([\w.]+)(?:=(\S+))?(.*)\n((?:      .*\n?)+)", shown, re.M)
    names = set(re.findall(r"""(?:DEFINE_\w+|define_path)\(\s*"(\w+)\"""", text))
    names |= {"config", "config.KEY"} if "define_config(" in text else set()
    assert {name for name, *_ in entries} == names
    required = set(re.findall(r'"(\w+)"', " ".join(re.findall(r"mark_flags?_as_required\((.*?)\)", text))))
    assert {name for name, _, note, _ in entries if note == "  (required)"} == required
    order = ["required" in note for name, _, note, _ in entries if name != "config.KEY"]
    assert order == sorted(order, reverse=True)
    for name, _, note, explained in entries:
        assert note or "efault" in explained, f"--{name}: what happens without it?"
        assert re.match(r" +[A-Z`]", explained), explained
        assert explained.rstrip().endswith("."), explained


@pytest.mark.end_to_end
def test_help_explains_settings_and_hosts():
    for flag in ("-h", "--help"):
        shown = run("voc_train", "--workdir=a", flag, "--config=none")[1]
        assert "one of the names camvid, coco128," in re.sub(r"\s+", " ", shown)
        assert "experiments/configs/default.py lists all settings" in shown
        assert shown.index("Flags for several hosts") < shown.index("--coordinator=HOST:PORT")
        assert shown.index("--stopped_status=N") < shown.index("Flags for several hosts")


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outpt=a"], "error: unknown flag --outpt; did you mean --output? (see --help)"),
        (["--something_else"], "error: unknown flag --something_else (see --help)"),
        (["--output=a"], "error: missing flag --checkpoint (see --help)"),
        ([], "error: missing flags --checkpoint and --output (see --help)"),
        (["--", "--help"], "error: missing flags --checkpoint and --output (see --help)"),
        (["--config.seed=1"], "error: --config.seed changes a setting of --config, which is missing; give "),
    ],
)
def test_wrong_flags_are_one_line(arguments, message):
    command = [sys.executable, "-m", "experiments.export_model", *arguments]
    if arguments[:1] == ["--config.seed=1"]:
        command[2] = "experiments.voc_train"
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.startswith(message)
    assert len(found.stderr.splitlines()) == 1


@pytest.fixture
def defined():
    """Defines the flags of a program, in place of those of the program before: (name) -> flags."""
    before = set(flags.FLAGS)

    def undefine():
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()

    def define(program):
        undefine()
        import_module(f"experiments.{program}").define_flags()
        return flags.FLAGS

    yield define
    undefine()


@pytest.mark.parametrize(
    ("program", "old", "new"),
    [
        ("prepare_data", "processes", "workers"),
        ("train_edges", "data_dir", "bsds_root"),
        ("train_edges", "test_split", "eval_split"),
    ],
)
def test_earlier_names_of_flags_work_and_are_not_in_the_help(defined, program, old, new):
    values = defined(program)
    required = {"prepare_data": ["--dataset=scenes", "--data_dir=a"], "train_edges": ["--bsds_root=a", "--output=b"]}
    given = [word for word in required[program] if not word.startswith(f"--{new}=")]
    values([program, *given, f"--{old}=7"])
    assert str(values[new].value) == "7"
    if program == "train_edges":
        assert f"--{old}" not in run(program, "--help")[1]


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")  # ml_collections reads the default config so
@pytest.mark.parametrize("program", PROGRAMS)
def test_defaults_of_flags_are_those_of_the_function_behind_them(defined, program):
    values = defined(program)
    if program in ("voc_train", "voc_eval"):
        function = import_module(f"experiments.common.{'training' if program == 'voc_train' else 'evaluation'}").run
    else:
        function = import_module(f"experiments.tasks.{program}").run
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not inspect.Parameter.empty and name in values and name != "config":
            default, found = parameter.default, values[name].default
            expected = list(default) if isinstance(default, tuple) else default
            assert (str(found) if isinstance(found, Path) else found) == expected, name


def test_choices_in_flags_are_those_of_the_code(defined):
    values = defined("prepare_data")
    *others, last = prepare_data.DATASETS
    assert values["dataset"].help == f"Data set: {', '.join(others)} or {last}."
    assert all(method in values["method"].help for method in METHODS)
    defined("export_model")
    assert values["platforms"].default == list(PLATFORMS)
    defined("compile")
    assert all(example in values["topology"].help for example in topologies.EXAMPLES.split(", "))
    defined("gpu_report")
    assert values["minutes"].default == gpu_report.DEFAULT_MINUTES


def test_forms_of_batch_normalisation(defined):
    assert defined("import_weights")["bn"].parser.enum_values == list(import_weights.BN_FORMS)


@pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")  # as above
@pytest.mark.parametrize("program", ["predict", "visualize", "export_model", "calibrate_bn"])
def test_programs_pass_the_choice_of_weights_on(monkeypatch, defined, program, tmp_path):
    """--noaverages reaches `load_checkpoint`."""
    given = []

    def load_checkpoint(*arguments):
        given.extend(arguments)
        raise InputError("far enough")

    task = import_module(f"experiments.tasks.{program}")
    monkeypatch.setattr(task, "load_checkpoint", load_checkpoint)
    defined(program)([program, "--checkpoint=run", f"--output={tmp_path}", "--step=7", "--noaverages"])
    photographs = {"arguments": [str(ROOT / "docs/demo.jpg")]} if program in ("predict", "visualize") else {}
    with pytest.raises(InputError, match="far enough"):
        task.run(**{**cli.arguments_of(task.run), **photographs})
    assert given == [Path("run"), 7, False]
