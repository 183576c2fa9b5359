"""What the programs in this folder share: start-up, errors as one clear line, the progress bar."""

import difflib
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path

from . import failures
from .help_page import help_page, is_asked_for, is_required, own_flags
from .scripts import PACKAGE

HOW_TO_SEGMENT = "Config whose section `inference` says how to segment. Default: the config of the training run."
CONFIGS = Path(__file__).parents[1] / "configs"
EVERY_SETTING = str(CONFIGS / "default.py")

# ml_collections reports a misspelt key by one of several exceptions, some of several lines.
_FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError)


def _one_line(error: BaseException) -> str:
    """Returns the line that a program prints for a command line that cannot be parsed."""
    if isinstance(error.__context__, InputError):  # raised by the parser of a flag; absl adds text of its own
        return f"error: {error.__context__}"
    if isinstance(error, flags.UnrecognizedFlagError):
        return f"error: {_unknown(error.flagname)} (see --help)"
    inner = error.args[0] if error.args else None
    if isinstance(inner, KeyError):  # a setting: names the key, and a similar one if there is one
        return f"error: no such setting: {' '.join(inner.args[0].split())} (experiments/configs/default.py lists all)"
    missing = [f"--{flag.name}" for flag, _ in own_flags(flags.FLAGS) if is_required(flag) and flag.value is None]
    if missing and "other than None" in str(error):
        return f"error: missing flag{'s' * (len(missing) > 1)} {' and '.join(missing)} (see --help)"
    return f"error: {' '.join(str(error).split())} (see --help)"


def _unknown(name: str) -> str:
    """Returns what is wrong with a flag that is not defined, and the flag with the most similar name."""
    if name.startswith("config.") and "config" in flags.FLAGS:
        return f"--{name} changes a setting of --config, which is missing; give --config=NAME"
    known = [flag.name for flag, _ in own_flags(flags.FLAGS)]
    similar = difflib.get_close_matches(name, known, n=1)
    return f"unknown flag --{name}" + "".join(f"; did you mean --{other}?" for other in similar)


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs a program: prints its help, or parses its flags and calls `main`.

    Bad input becomes one line on stderr and exit status 1. A program imports what does its work within `main`, so that
    help and the check of its flags do not wait for JAX.

    Args:
      main: Is called with the program's name and the words that are no flags.
    """
    failures.report_in_one_line()
    if is_asked_for(sys.argv):
        text = help_page(sys.modules["__main__"].__doc__ or "", flags.FLAGS)
        sys.exit(failures.status_of(lambda: print(text)))

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.ERROR)  # Orbax and TFDS log what progress bars and our own lines say better
        sys.exit(failures.status_of(lambda: main(argv)))

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except _FLAG_ERRORS as error:
            sys.exit(_one_line(error))

    app.run(guarded, flags_parser=parse)


class _PathParser(flags.ArgumentParser):
    """Text of a flag -> path; `files.user_path` says what is wrong with it."""

    def __init__(self, flag: str, in_bucket: bool):
        super().__init__()
        self._flag, self._in_bucket = flag, in_bucket

    def parse(self, argument: str | Path) -> Path:
        return user_path(argument, f"--{self._flag}", self._in_bucket)

    def flag_type(self) -> str:
        return "path"


def define_path(name: str, default: str | None, help_text: str, in_bucket: bool = False) -> None:
    """Defines a flag whose value is a `Path`; every flag that takes a file or folder is one of these.

    Args:
      name: of the flag.
      default: its value if it is not given.
      help_text: for --help.
      in_bucket: whether it may be gs://BUCKET/NAME.
    """
    help_text += " May be gs://BUCKET/NAME." if in_bucket else ""
    flags.DEFINE(_PathParser(name, in_bucket), name, default, help_text, serializer=flags.ArgumentSerializer())


def define_old_name(old: str, new: str) -> None:
    """Defines an earlier name of a flag, which still works and is not in the help."""
    flags.DEFINE_alias(old, new)


def define_checkpoint() -> None:
    """Defines the flags that choose a checkpoint: --checkpoint, which is required, and --step."""
    define_path(
        "checkpoint", None, "Folder of a training run, of its checkpoints or of imported weights.", in_bucket=True
    )
    flags.DEFINE_integer(
        "step", None, "Step of the checkpoint. Default: the step with the best evaluation.", lower_bound=0
    )
    flags.mark_flag_as_required("checkpoint")


def define_data(split: str, use: str) -> None:
    """Defines the flags that change single keys of config.data: --split, --voc_root and --data_dir.

    Args:
      split: The key of config.data that --split changes, "train_split" or "eval_split".
      use: What the split is for, a verb that follows "The split to" in the help.
    """
    flags.DEFINE_string("split", None, f"The split to {use}. Default: config.data.{split} of the training run.")
    define_path(
        "voc_root",
        None,
        "Folder with JPEGImages, SegmentationClass and ImageSets. Default: the data of the training run.",
    )
    define_path("data_dir", None, "Folder of packed data. Default: that of the training run.", in_bucket=True)


def data_flags(split: str) -> dict[str, str]:
    """Returns the keys of config.data that `define_data` flags give, with their values."""
    given = {split: flags.FLAGS.split, "voc_root": flags.FLAGS.voc_root, "data_dir": flags.FLAGS.data_dir}
    return {key: str(value) for key, value in given.items() if value}


class _ConfigParser(flags.ArgumentParser):
    """Text of --config -> the ConfigDict that the file's get_config() returns."""

    def parse(self, argument: str | Path) -> ml_collections.ConfigDict:
        name, *arguments = str(user_path(argument, "--config")).split(":", 1)  # an argument of get_config
        path = config_file(name)
        try:
            config = _loaded(path).get_config(*arguments)
        except Exception as error:  # whatever the code of a config may raise
            reason = " ".join([type(error).__name__, *str(error).strip().splitlines()[-1:]])
            raise InputError(f"--config={name} could not be loaded ({reason}); correct the file") from error
        if not isinstance(config, ml_collections.ConfigDict):
            raise InputError(
                f"--config={name}: get_config() returned {type(config).__name__}; let it change and return "
                "experiments.configs.default.get_config()"
            )
        return config.lock()

    def flag_type(self) -> str:
        return "config object"


def shipped_configs() -> dict[str, Path]:
    """Returns the configs that come with the project: name -> file."""
    return {file.stem: file for file in sorted(CONFIGS.glob("*.py")) if "def get_config" in file.read_text()}


def config_file(name: str) -> Path:
    """Returns the file that --config names: a path, or the name of a config that comes with the project.

    Raises:
      InputError: if there is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if path.stem in shipped and str(path.parent) in (".", "experiments/configs"):
        return shipped[path.stem]
    raise InputError(f"--config={name}: no such file; give a path, or one of the names {', '.join(shipped)}")


def _loaded(path: Path) -> ModuleType:
    """Returns the module in a file, which may import our configs as experiments.configs, or as its siblings."""
    sys.modules.setdefault("experiments", sys.modules[PACKAGE])  # the wheel has no package of this name
    module = ModuleType(f"{PACKAGE}.configs.given")
    module.__package__, module.__file__ = f"{PACKAGE}.configs", str(path)
    SourceFileLoader(module.__name__, str(path)).exec_module(module)
    return module


def define_config(help_text: str, default: str | None = None) -> None:
    """Defines the flag --config.

    Args:
      help_text: What the config is for, a sentence of the help. The names of configs are added.
      default: File of a config whose settings --config.KEY=VALUE changes where --config is not given; None: those
        flags need --config.
    """
    help_text += f" A Python file that defines get_config(), or one of the names {', '.join(shipped_configs())}."
    try:
        name = config_flags.DEFINE_config_file("config", default, help_text).name
    except _FLAG_ERRORS as error:  # a misspelt key of the default config, which is loaded here already
        sys.exit(_one_line(error))
    flags.FLAGS[name].parser = _ConfigParser()


def given_config(values: flags.FlagValues) -> tuple[ml_collections.ConfigDict | None, dict[str, Any]]:
    """The config that was named on the command line, if one was, and the keys that were given besides."""
    flag = values["config"]
    return (values.config if flag.present else None), config_flags.get_override_values(flag)


def arguments_of(function: Callable[..., object]) -> dict[str, Any]:
    """Returns values for the parameters of a function that are named like flags.

    A function with the parameter `changes` gets the config that --config named, or None, and the keys that were given.
    """
    parameters = inspect.signature(function).parameters
    given = {name: flags.FLAGS[name].value for name in parameters if name in flags.FLAGS}
    if "changes" in parameters:
        given["config"], given["changes"] = given_config(flags.FLAGS)
    return given


def no_arguments(argv: Sequence[str]) -> None:
    """Raises InputError for words on the command line that are no flags."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument '{argv[1]}'; settings are given as --config.key=value")


class ProgressBar:
    """A progress bar on stderr that appears with the first update."""

    def __init__(self, text: str, shown: bool = True):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self._task = self._bar.add_task(text, total=None)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:  # otherwise stopping would write an empty line
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Shows `done` of `total`."""
        if not self._bar.disable:
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)
