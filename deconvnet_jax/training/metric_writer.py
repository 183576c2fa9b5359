"""Reports what a run measures: JSON lines, TensorBoard event files, pictures, and progress on stderr.

`MetricWriter` has the method names of clu's writers (`write_scalars`, `write_images`).
"""

import contextlib
import itertools
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import jax
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from deconvnet_jax.buckets import GrowingObject
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import as_path, not_written, open_growing, write_text
from deconvnet_jax.images import save_picture
from deconvnet_jax.terminal import live_display
from deconvnet_jax.training.tensorboard_records import (
    Event,  # pyright: ignore[reportAttributeAccessIssue]  generated code
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
    image,
    masked_crc32c,
    scalar,
)
from deconvnet_jax.training.trackers import Tracker

METRICS_FILE = "metrics.jsonl"
_VALUES = (int, float, type(None))
_BOARDS = itertools.count()
_LARGEST_OBJECT = 2**22  # bytes; then a new file starts, because a bucket rewrites an object whenever it grows


class MetricWriter:
    """Writer of metrics.jsonl, TensorBoard files and pictures/ in a run's folder; appends to what is there.

    What it writes also goes to an experiment tracker, if the run has one.

    In a bucket, lines and points appear every half minute, and after `flush` and `close`. With several processes only
    the first one writes; the methods of the others do nothing.

    Everything is written in the calling thread. TensorBoard's own thread ends with a stack trace when the disk is full,
    and the program then waits for it forever.
    """

    def __init__(self, folder: str | Path, after_step: int, tracker: Tracker | None = None):
        """Opens the files and removes what a killed run wrote about steps that will run again.

        Args:
          folder: the run's folder; created if it is missing.
          after_step: the last step that is done; lines and points of later steps are removed.
          tracker: gets all values and pictures, too; its context must end after `close`.

        Raises:
          InputError: if the folder cannot be written.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._folder, self._tracker = as_path(folder), tracker
        self._path = self._folder / METRICS_FILE
        self._board: BinaryIO | GrowingObject | None = None
        self._board_failed = False
        with not_written(self._path):
            self._folder.mkdir(parents=True, exist_ok=True)
            _drop_lines_after(self._path, after_step)
            self._lines = open_growing(self._path)
        # TensorBoard hides the points that an earlier start wrote for this step and later ones.
        start = Event(step=after_step + 1, session_log=SessionLog(status=SessionLog.START))
        self._to_board(start)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one JSON line {"step": ..., name: value, ...} and one TensorBoard point per value.

        Args:
          step: the step that the values belong to.
          scalars: {name: value}; NaN and infinite values are left out, because JSON has none.

        Raises:
          InputError: if metrics.jsonl cannot be written.
        """
        if not self._active:
            return
        known = {name: float(value) for name, value in scalars.items() if np.isfinite(value)}
        with not_written(self._path):
            self._lines.write(f"{json.dumps({'step': step, **known})}\n".encode())
            self._lines.flush()  # a killed run keeps every line
        self._to_board(*(Event(step=step, summary=scalar(name, value)) for name, value in known.items()))
        if self._tracker:
            self._tracker.log_scalars(step, known)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures to TensorBoard and to pictures/step_STEP_NAME.png.

        Args:
          step: the step that the pictures belong to.
          images: {name: uint8 RGB [H, W, 3]}, of any size; the file's name has only what follows the last slash.

        Raises:
          InputError: if a file in pictures/ cannot be written.
        """
        if not self._active:
            return
        for name, picture in images.items():
            path = self._folder / "pictures" / f"step_{step:06d}_{name.split('/')[-1]}.png"
            save_picture(path, picture)
            self._to_board(Event(step=step, summary=image(name, picture, dataformats="HWC")))
        if self._tracker:
            self._tracker.log_images(step, images)

    def _to_board(self, *events: Event) -> None:
        """Writes events for TensorBoard; after a failure it warns once, and the run continues without them."""
        if self._board_failed:
            return
        try:
            if self._board is None:
                folder = self._folder / "tensorboard"
                folder.mkdir(exist_ok=True)
                name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}"
                self._board = open_growing(folder / f"{name}.{next(_BOARDS)}", buffering=0)  # closing must not write
                events = (Event(file_version="brain.Event:2"), *events)
            for event in events:
                event.wall_time = time.time()
                self._board.write(_framed(event.SerializeToString()))
            if isinstance(self._board, GrowingObject) and len(self._board) > _LARGEST_OBJECT:
                self._board.close()
                self._board = None
        except OSError as error:
            self._board_fails(error)

    def _board_fails(self, error: OSError) -> None:
        self._board_failed = True
        print(
            f"warning: TensorBoard files cannot be written ({error.strerror}); the run continues without",
            file=sys.stderr,
        )

    def flush(self) -> None:
        """Uploads what a bucket does not have yet, so that it survives if the run is killed; on a disk it does nothing.

        Raises:
          InputError: if metrics.jsonl cannot be written.
        """
        if not self._active:
            return
        with not_written(self._path):
            if isinstance(self._lines, GrowingObject):
                self._lines.upload()
        try:
            if isinstance(self._board, GrowingObject):
                self._board.upload()
        except OSError as error:
            self._board_fails(error)

    def close(self) -> None:
        """Closes the files, after a last `flush`.

        Raises:
          InputError: if metrics.jsonl cannot be written to a bucket.
        """
        if not self._active:
            return
        self.flush()
        for file in (self._lines, self._board):
            with contextlib.suppress(OSError):
                if file is not None:
                    file.close()


class Progress:
    """Context manager that shows loss, accuracy, learning rate, throughput and time left on stderr.

    On a terminal it shows a bar, otherwise it prints a line per update. With several processes only the first shows it.
    """

    def __init__(self, start: int, last: int):
        """Prepares the display.

        Args:
          start: the step that the run resumes from; 0 for a new run.
          last: the step at which the run ends.
        """
        self._start, self._last = start, last
        self._first: tuple[int, float] | None = None
        columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = live_display(*columns, shown=jax.process_index() == 0)
        self._plain = not self._bar.console.is_terminal
        self._bar.console.quiet = jax.process_index() != 0

    def __enter__(self) -> "Progress":
        if self._start:
            self._print(f"resumed at step {self._start} of {self._last}")
        if self._plain and self._start < self._last:  # On a terminal the bar says so.
            self._print("compiling the training step; this takes a while")
        self._bar.start()
        self._task = self._bar.add_task("compiling", total=self._last, completed=self._start)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows the metrics of the last steps.

        Args:
          step: the newest step.
          scalars: {name: value} with "loss", "pixel_accuracy", "learning_rate" and, if known, "images_per_second".
        """
        text = (
            f"loss {scalars['loss']:.3f}  accuracy {scalars['pixel_accuracy']:.3f}  "
            f"learning rate {scalars['learning_rate']:.2g}"
        )
        if "images_per_second" in scalars:  # unknown after the first step, which compiles
            text += f"  {scalars['images_per_second']:.1f} images/s"
        self._bar.update(self._task, completed=step, description=text)
        if self._plain:
            self._print(f"step {step}/{self._last}  {text}{self._left(step)}")

    def _left(self, step: int) -> str:
        """Returns the estimated time left; empty at the first update, because compilation came before it."""
        if self._first is None:
            self._first = step, time.perf_counter()
            return ""
        first, then = self._first
        return f"  {timedelta(seconds=round((time.perf_counter() - then) / (step - first) * (self._last - step)))} left"

    def evaluated(self, step: int, scores: Mapping[str, float]) -> None:
        """Prints a line with the scores of an evaluation.

        Args:
          step: the step that was evaluated.
          scores: {name: value}, each printed with three decimals.
        """
        self._print(f"step {step}  evaluation: " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))

    def _print(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, soft_wrap=True)


def _framed(data: bytes) -> bytes:
    """Returns a TensorFlow record: the length, its checksum, the data, their checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))))


def metric_lines(path: Path) -> list[dict[str, float | None]]:
    """Returns the lines of a metrics.jsonl as dicts, each with "step"; a last line that was cut off is left out.

    Raises:
      InputError: if any other line is damaged.
    """
    lines = path.read_bytes().splitlines()
    found = [_parsed(line) for line in lines]
    for number, values in enumerate(found[:-1], 1):
        if values is None:
            raise InputError(
                f'{path}, line {number}: expected a JSON object with "step" and numbers; correct or delete the line'
            )
    return [values for values in found if values is not None]


def _parsed(line: bytes) -> dict[str, float | None] | None:
    """Returns the values of a line, or None if it is damaged."""
    try:
        values = json.loads(line)
        good = isinstance(values["step"], int) and all(isinstance(v, _VALUES) for v in values.values())
        return values if good else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _drop_lines_after(path: Path, step: int) -> None:
    """Removes the lines of later steps and damaged lines; keeps a damaged file as metrics.jsonl.damaged."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines() if path.is_file() else [b""]
    found = [_parsed(line) for line in lines]
    if None in found[:-1] or not path.is_file():
        aside = path.with_name(f"{path.name}.damaged")
        for number in itertools.count(1):
            if not aside.exists():
                break
            aside = path.with_name(f"{path.name}.damaged{number}")
        path.rename(aside)
        print(
            f"warning: {path} has damaged lines; they were removed, and the old file is kept as {aside.name}",
            file=sys.stderr,
        )
    kept = [values for values in found if values is not None and (values["step"] or 0) <= step]
    write_text(path, "".join(f"{json.dumps(values)}\n" for values in kept))
