"""What the programs in this folder share: start-up, errors as one clear line, the progress bar."""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deconvnet_jax.errors import InputError

INTERRUPTED = 130  # exit status, as the shell says it of a program that Ctrl-C has ended


# ml_collections reports a misspelt key by one of several exceptions, some of several lines.
_FLAG_ERRORS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError)


def _one_line(error: BaseException) -> str:
    inner = error.args[0] if error.args else None
    if isinstance(inner, KeyError):  # of the config: the key, and a suggestion if there is one like it
        return f"error: no such setting: {' '.join(inner.args[0].split())} (experiments/configs/default.py lists all)"
    return f"error: {' '.join(str(error).split())} (see --help)"


def _out_of_memory(error: BaseException) -> str:
    return (
        f"error: the device's memory does not suffice ({' '.join(str(error).split())[:120]}); to train, lower "
        "--config.micro_batch or give --config.remat=True or --config.model.dtype=bfloat16; to predict, lower "
        "--config.inference.batch_size or .max_side"
    )


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs an absl program; bad input becomes one line on stderr and exit status 1."""
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.ERROR)  # Orbax and TFDS log what progress bars and our own lines say better
        try:
            main(argv)
        except InputError as error:
            sys.exit(f"error: {error}")
        except OSError as error:  # a full disk, a file that others took away: says which and why
            sys.exit(f"error: {error}")
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            sys.exit(_out_of_memory(error))
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)

    def parse(argv: list[str]) -> list[str]:
        try:
            arguments = flags.FLAGS(argv)
            if "config" in flags.FLAGS:  # a file that could not be loaded is an error only when it is looked into
                getattr(flags.FLAGS.config, "to_dict", None)
            return arguments
        except _FLAG_ERRORS as error:
            sys.exit(_one_line(error))

    app.run(guarded, flags_parser=parse)


def define_config(default: str) -> None:
    """The flag --config for programs that use a checkpoint: --config.KEY=VALUE works without it, too."""
    every_key = str(Path(__file__).with_name("configs") / "default.py")
    try:
        config_flags.DEFINE_config_file("config", every_key, f"a file in experiments/configs; default: {default}")
    except _FLAG_ERRORS as error:  # a misspelt key of the default config, which is loaded here already
        sys.exit(_one_line(error))


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
