"""What a person sees while a run trains: a live line on a terminal, plain lines in a log."""

import time
from collections.abc import Mapping
from datetime import timedelta

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """A context manager that shows loss, learning rate, images a second and the time left, on stderr.

    With several processes the first one does.
    """

    def __init__(self, start: int, last: int):
        self._console = Console(stderr=True, quiet=jax.process_index() != 0)
        self._start, self._last = start, last
        self._first: tuple[int, float] | None = None
        columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=self._console, disable=not self._console.is_terminal)

    def __enter__(self) -> "Progress":
        if self._start:
            self._print(f"resumed at step {self._start} of {self._last}")
        self._bar.start()
        self._task = self._bar.add_task("compiling", total=self._last, completed=self._start)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows the scalars of the last steps: loss, pixel_accuracy, learning_rate, images_per_second."""
        text = (
            f"loss {scalars['loss']:.3f}  accuracy {scalars['pixel_accuracy']:.3f}  rate {scalars['learning_rate']:.2g}"
        )
        if "images_per_second" in scalars:  # the first step compiles
            text += f"  {scalars['images_per_second']:.1f} images/s"
        self._bar.update(self._task, completed=step, description=text)
        if not self._console.is_terminal:
            self._print(f"step {step}/{self._last}  {text}{self._left(step)}")

    def _left(self, step: int) -> str:
        """By the time since the first update; before that, the step was compiled."""
        if self._first is None:
            self._first = step, time.perf_counter()
            return ""
        first, then = self._first
        return f"  {timedelta(seconds=round((time.perf_counter() - then) / (step - first) * (self._last - step)))} left"

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        """Prints the scores of an evaluation, a line that stays."""
        self._print(f"step {step}  evaluation: " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)
