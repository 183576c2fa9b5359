"""What the programs in this folder share: start-up, errors as one clear line, the progress bar."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deconvnet_jax.errors import InputError

INTERRUPTED = 130  # exit status, as the shell says it of a program that Ctrl-C has ended


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs an absl program; bad input becomes one line on stderr and exit status 1."""

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.ERROR)  # Orbax and TFDS log what progress bars and our own lines say better
        try:
            main(argv)
        except InputError as error:
            sys.exit(f"error: {error}")
        except OSError as error:  # a full disk, a file that others took away: says which and why
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)

    def parse(argv: list[str]) -> list[str]:
        try:
            arguments = flags.FLAGS(argv)
            if "config" in flags.FLAGS:  # a file that could not be loaded is an error only when it is looked into
                getattr(flags.FLAGS.config, "to_dict", None)
            return arguments
        except (
            flags.Error,
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
            OSError,
            ImportError,
            SyntaxError,
        ) as error:
            # ml_collections reports a misspelt key by one of several exceptions, some of several lines.
            sys.exit(f"error: {' '.join(str(error).split())} (see --help)")

    app.run(guarded, flags_parser=parse)


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
