"""What the programs in this folder share: start-up, errors as one clear line, the progress bar."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path
from experiments.common import failures

HOW_TO_SEGMENT = "a file in experiments/configs that says how to segment; default: the training run's"
EVERY_SETTING = str(Path(__file__).parents[1] / "configs/default.py")

# ml_collections reports a misspelt key by one of several exceptions, some of several lines.
_FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError)


def _one_line(error: BaseException) -> str:
    if isinstance(error.__context__, InputError):  # of a flag's parser; absl writes its own text around it
        return f"error: {error.__context__}"
    inner = error.args[0] if error.args else None
    if isinstance(inner, KeyError):  # of the config: the key, and a suggestion if there is one like it
        return f"error: no such setting: {' '.join(inner.args[0].split())} (experiments/configs/default.py lists all)"
    return f"error: {' '.join(str(error).split())} (see --help)"


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs an absl program; bad input becomes one line on stderr and exit status 1."""
    failures.report_in_one_line()

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
    help_text += ", also gs://BUCKET/NAME" if in_bucket else ""
    flags.DEFINE(_PathParser(name, in_bucket), name, default, help_text, serializer=flags.ArgumentSerializer())


class _ConfigParser(flags.ArgumentParser):
    """Text of --config -> the ConfigDict that the file's get_config() returns."""

    def __init__(self, loader: flags.ArgumentParser):
        super().__init__()
        self._loader = loader

    def parse(self, argument: str | Path) -> ml_collections.ConfigDict:
        path = str(user_path(argument, "--config"))
        if not Path(path.split(":")[0]).is_file():  # what follows a colon is an argument of get_config
            raise InputError(f"--config={path}: no such file; experiments/configs has some")
        try:
            config = self._loader.parse(path)
            getattr(config, "to_dict", None)  # ml_collections puts an OSError off until the config is looked into
        except Exception as error:  # whatever the code of a config may raise
            reason = " ".join([type(error).__name__, *str(error).strip().splitlines()[-1:]])
            raise InputError(f"--config={path} could not be loaded ({reason}); correct the file") from error
        if not isinstance(config, ml_collections.ConfigDict):
            raise InputError(
                f"--config={path}: get_config() returned {type(config).__name__}; let it change and return "
                "experiments.configs.default.get_config()"
            )
        return config

    def flag_type(self) -> str:
        return self._loader.flag_type()


def define_config(help_text: str, default: str | None = None) -> None:
    """Defines the flag --config; with a file as default, --config.KEY=VALUE works without it, too."""
    try:
        name = config_flags.DEFINE_config_file("config", default, help_text).name
    except _FLAG_ERRORS as error:  # a misspelt key of the default config, which is loaded here already
        sys.exit(_one_line(error))
    flags.FLAGS[name].parser = _ConfigParser(flags.FLAGS[name].parser)


def given_config(values: flags.FlagValues) -> tuple[ml_collections.ConfigDict | None, dict[str, Any]]:
    """The config that was named on the command line, if one was, and the keys that were given besides."""
    flag = values["config"]
    return (values.config if flag.present else None), config_flags.get_override_values(flag)


def no_arguments(argv: Sequence[str]) -> None:
    """Raises InputError for words on the command line that are no flags."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument '{argv[1]}'; settings are given as --config.key=value")


class ProgressBar:
    """A progress bar on stderr that appears with the first update."""

    def __init__(self, text: str):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(text, total=None)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:  # otherwise stopping would write an empty line
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Shows `done` of `total`."""
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total)
