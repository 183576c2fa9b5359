"""Contains what programs do on the command line: flags, help and errors in one line."""

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

from deconvnet_jax.errors import InputError, did_you_mean
from deconvnet_jax.files import looked_in, user_path

from . import failures
from .flag_errors import FOR_PREDICTIONS, error_line
from .help_page import help_page, is_asked_for
from .scripts import PACKAGE

HOW_TO_SEGMENT = f"{FOR_PREDICTIONS} Default: the config of the training run."
CONFIGS = Path(__file__).parents[1] / "configs"
EVERY_SETTING = str(CONFIGS / "default.py")

# Exceptions by which absl and ml_collections report wrong flags. Some of their messages have several lines.
_FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError)


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
        logging.set_verbosity(logging.ERROR)  # Orbax and TFDS log what our progress lines say.
        sys.exit(failures.status_of(lambda: main(argv)))

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except _FLAG_ERRORS as error:
            sys.exit(error_line(error))

    app.run(guarded, flags_parser=parse)


class _PathParser(flags.ArgumentParser):
    """Parser of a flag whose value is a path. `files.user_path` rejects what is no path."""

    def __init__(self, flag: str, in_bucket: bool):
        super().__init__()
        self._flag, self._in_bucket = flag, in_bucket

    def parse(self, argument: str | Path) -> Path:
        return user_path(argument, f"--{self._flag}", self._in_bucket)

    def flag_type(self) -> str:
        return "path"


def define_path(name: str, default: str | None, help_text: str, in_bucket: bool = False) -> None:
    """Defines a flag whose value is a `Path`. Every flag that takes a file or folder is one of these.

    Args:
      name: Name of the flag.
      default: Value of the flag if it is not given; None if there is none.
      help_text: What --help says about the flag, one or several sentences.
      in_bucket: Whether the value may be gs://BUCKET/NAME.
    """
    help_text += " May be gs://BUCKET/NAME." if in_bucket else ""
    flags.DEFINE(_PathParser(name, in_bucket), name, default, help_text, serializer=flags.ArgumentSerializer())


def define_old_name(old: str, new: str) -> None:
    """Defines an earlier name of a flag. It still works, but the help does not show it.

    Args:
      old: The earlier name.
      new: The flag's name, which is defined already.
    """
    flags.DEFINE_alias(old, new)


def define_checkpoint() -> None:
    """Defines the flags that choose a network: --checkpoint, which is required, --step and --averages."""
    define_path(
        "checkpoint", None, "Folder of a training run, of its checkpoints or of imported weights.", in_bucket=True
    )
    flags.DEFINE_integer(
        "step", None, "Step of the checkpoint. Default: the step with the best evaluation.", lower_bound=0
    )
    flags.DEFINE_boolean(
        "averages",
        True,
        "Use the averaged weights if the run has kept them (config.ema_decay); --noaverages uses the weights "
        "themselves. Default: the averages.",
    )
    flags.mark_flag_as_required("checkpoint")


def define_palette() -> None:
    """Defines --palette, the colours of the classes in the pictures that a program draws."""
    flags.DEFINE_enum(
        "palette",
        "voc",
        ["voc", "colour_blind"],
        "Colours of the classes in pictures: VOC's, or colours and patterns that colour-blind people can tell apart.",
    )


def define_names() -> None:
    """Defines --names, whether the program writes the names of classes into overlays."""
    flags.DEFINE_boolean("names", True, "Write the names of the classes on large segments of the overlay.")


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
    """Returns the flags of `define_data` that are given, under their keys in config.data.

    Args:
      split: The key that --split changes, as in `define_data`.
    """
    given = {split: flags.FLAGS.split, "voc_root": flags.FLAGS.voc_root, "data_dir": flags.FLAGS.data_dir}
    return {key: str(value) for key, value in given.items() if value}


class _ConfigParser(flags.ArgumentParser):
    """Parser of --config. Its value is the ConfigDict that `get_config()` of the file returns."""

    def parse(self, argument: str | Path) -> ml_collections.ConfigDict:
        name, *arguments = str(user_path(argument, "--config")).split(
            ":", 1
        )  # "FILE:ARGUMENT" passes an argument to get_config.
        path = config_file(name)
        try:
            config = _loaded(path).get_config(*arguments)
        except Exception as error:  # The code of a config may raise anything.
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
    """Returns the file that --config names.

    Args:
      name: A path, or the name of a config that comes with the project, such as "demo".

    Raises:
      InputError: if there is no such file. The message lists the names.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    if path.stem in shipped and str(path.parent) in (".", "experiments/configs"):
        return shipped[path.stem]
    expected = f"give a path, or one of the names {', '.join(shipped)}{did_you_mean(name, shipped)}"
    raise InputError(f"--config={name}: no such file{looked_in(path)}; {expected}")


def _loaded(path: Path) -> ModuleType:
    """Returns the module in a config file. It may import `experiments.configs`, or a config beside ours."""
    sys.modules.setdefault("experiments", sys.modules[PACKAGE])  # The wheel has no package of this name.
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
    except _FLAG_ERRORS as error:  # The default config is loaded here; a key may be misspelt.
        sys.exit(error_line(error))
    flags.FLAGS[name].parser = _ConfigParser()


def given_config(values: flags.FlagValues) -> tuple[ml_collections.ConfigDict | None, dict[str, Any]]:
    """Returns the config and the settings that the command line gives.

    Args:
      values: The parsed flags, among them --config.

    Returns:
      The config that --config names, or None without --config; and the value of every --config.KEY=VALUE by its key.
    """
    flag = values["config"]
    return (values.config if flag.present else None), config_flags.get_override_values(flag)


def arguments_of(function: Callable[..., object]) -> dict[str, Any]:
    """Returns values for those parameters of a function that have the name of a flag.

    Args:
      function: A function with parameters named like flags. If one is called `changes`, it gets the settings that
        --config.KEY=VALUE gives; `config` is then None unless --config is given.
    """
    parameters = inspect.signature(function).parameters
    given = {name: flags.FLAGS[name].value for name in parameters if name in flags.FLAGS}
    if "changes" in parameters:
        given["config"], given["changes"] = given_config(flags.FLAGS)
    return given


def no_arguments(argv: Sequence[str]) -> None:
    """Checks that the command line has no words besides flags.

    Args:
      argv: The program's name, then the words.

    Raises:
      InputError: for the first such word.
    """
    if len(argv) > 1:
        raise InputError(f"unexpected argument '{argv[1]}'; settings are given as --config.KEY=VALUE")
