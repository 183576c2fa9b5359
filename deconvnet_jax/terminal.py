"""Shows progress and tables: live bars on a terminal, plain lines everywhere else.

Bars move the cursor and tables have colours, which fill a log file or the output of a notebook with escape sequences.
rich also writes them into files and pipes if FORCE_COLOR is set, as Jupyter does; `console` does not.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

T = TypeVar("T")

PATIENCE = 10.0  # least number of seconds between two plain lines of a bar


def is_live(stream: TextIO) -> bool:
    """Returns whether a stream is a terminal on which the cursor can move.

    The commands of a notebook ("!command") see a terminal, too, but their output is kept as text.

    Args:
      stream: sys.stdout or sys.stderr.
    """
    return stream.isatty() and "JPY_PARENT_PID" not in os.environ


def console(stderr: bool = False, width: int | None = None) -> Console:
    """Returns a rich console that writes escape sequences on a terminal only.

    Args:
      stderr: False: stdout.
      width: columns of the text where the stream is no terminal; None: those of the variable COLUMNS, or 80.
    """
    live = is_live(sys.stderr if stderr else sys.stdout)
    return Console(
        stderr=stderr, force_terminal=live, force_jupyter=False, width=None if live else width, highlight=False
    )


def live_display(*columns: ProgressColumn | str, shown: bool = True) -> Progress:
    """Returns a rich progress display on stderr, which is disabled where stderr is no terminal.

    Args:
      *columns: what a line of the display shows.
      shown: False: it is disabled on a terminal, too.
    """
    return Progress(*columns, console=console(stderr=True), disable=not (shown and is_live(sys.stderr)))


class ProgressBar:
    """Progress on stderr: a bar that appears with the first update, or a plain line now and then without a terminal.

    Plain lines are `PATIENCE` seconds or more apart, and there is at most one per tenth of the work. The last item
    always gets one.
    """

    def __init__(self, text: str, shown: bool = True):
        """Prepares the bar.

        Args:
          text: what is being done, shown before the bar.
          shown: False: nothing is ever printed.
        """
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = live_display(*columns, shown=shown)
        self._task = self._bar.add_task(text, total=None)
        self._text, self._plain = text, shown and not is_live(sys.stderr)
        self._tenths, self._printed = 0, time.monotonic()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:  # Otherwise stopping would print an empty line.
            self._bar.stop()

    def update(self, done: int, total: int | None) -> None:
        """Shows the progress.

        Args:
          done: number of finished items.
          total: number of all items; None if it is not known.
        """
        if self._plain:
            self._print(done, total)
            return
        if not self._bar.disable:
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total)

    def _print(self, done: int, total: int | None) -> None:
        now, tenths = time.monotonic(), 10 * done // total if total else done
        late = now - self._printed >= PATIENCE
        if tenths > self._tenths and (late or done == total):
            self._tenths, self._printed = tenths, now
            print(f"{self._text} {done:,}" + (f"/{total:,}" if total else ""), file=sys.stderr, flush=True)


def followed(items: Iterable[T], text: str, of: object = None) -> Iterator[T]:
    """Yields items, and shows how many of them were taken.

    Args:
      items: what is yielded.
      text: what is being done, shown before the bar.
      of: a collection with as many items, whose length is the total; None or without a length if it is not known.
    """
    total = len(of) if isinstance(of, Sized) else None
    with ProgressBar(text) as bar:
        for done, item in enumerate(items, 1):
            bar.update(done, total)
            yield item
