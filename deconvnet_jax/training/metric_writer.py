"""What a run reports: TensorBoard event files and JSON lines (under the method names of clu), and lines on stderr."""

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
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]  generated
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import image, scalar

from deconvnet_jax.buckets import GrowingObject
from deconvnet_jax.errors import InputError
from deconvnet_jax.files import as_path, not_written, open_growing, write_text
from deconvnet_jax.images import save_picture

METRICS_FILE = "metrics.jsonl"
_VALUES = (int, float, type(None))
_BOARDS = itertools.count()
_LARGEST_OBJECT = 2**22  # bytes; an object in a bucket is rewritten whole whenever it grows


class MetricWriter:
    """Writes `metrics.jsonl`, TensorBoard files and pictures/ into a folder; continues those that are there.

    In a bucket, lines and points appear every half minute, and with `flush` and `close`.

    With several processes the first one writes, the others do nothing. Everything is written in the calling thread:
    TensorBoard's own one ends with a stack trace on a full disk, and the program then waits for it without end.
    """

    def __init__(self, folder: str | Path, after_step: int):
        """
        Args:
          folder: of the run.
          after_step: the last step that is done; what a run that was killed had written about later ones is removed:
            they come again.

        Raises:
          InputError: if the folder cannot be written.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._folder = as_path(folder)
        self._path = self._folder / METRICS_FILE
        self._board: BinaryIO | GrowingObject | None = None
        self._board_failed = False
        with not_written(self._path):
            self._folder.mkdir(parents=True, exist_ok=True)
            _drop_lines_after(self._path, after_step)
            self._lines = open_growing(self._path)
        start = Event(step=after_step + 1, session_log=SessionLog(status=SessionLog.START))  # hides later points
        self._to_board(start)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one JSON line {"step": ..., name: value, ...} and TensorBoard points; NaN, no score, is left out.

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

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures, uint8 RGB [H, W, 3], to TensorBoard and as pictures/step_STEP_NAME.png.

        Raises:
          InputError: if a file in pictures/ cannot be written.
        """
        if not self._active:
            return
        for name, picture in images.items():
            path = self._folder / "pictures" / f"step_{step:06d}_{name.split('/')[-1]}.png"
            save_picture(path, picture)
            self._to_board(Event(step=step, summary=image(name, picture, dataformats="HWC")))

    def _to_board(self, *events: Event) -> None:
        """Writes events for TensorBoard; without them the run continues, with one warning."""
        if self._board_failed:
            return
        try:
            if self._board is None:
                folder = self._folder / "tensorboard"
                folder.mkdir(exist_ok=True)
                name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}"
                self._board = open_growing(folder / f"{name}.{next(_BOARDS)}", buffering=0)  # so the end writes none
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
        print(f"warning: TensorBoard's files cannot be written ({error.strerror})", file=sys.stderr)

    def flush(self) -> None:
        """Writes to a bucket what it does not have yet, so that a run that is killed has it when it resumes.

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
        """Closes the files; what could not be written to a disk was reported before.

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


def _framed(data: bytes) -> bytes:
    """Returns a record of TensorFlow's: length, its checksum, data, their checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))))


def metric_lines(path: Path) -> list[dict[str, float | None]]:
    """Returns the lines of a metrics.jsonl, "step" among the values of each, without a last line that was cut off.

    Raises:
      InputError: if another one is damaged.
    """
    lines = path.read_bytes().splitlines()
    found = [_parsed(line) for line in lines]
    for number, values in enumerate(found[:-1], 1):
        if values is None:
            raise InputError(
                f"{path}, line {number}: no JSON object with a step and numbers; correct or delete the file"
            )
    return [values for values in found if values is not None]


def _parsed(line: bytes) -> dict[str, float | None] | None:
    """Returns the values of a line, None if it is damaged."""
    try:
        values = json.loads(line)
        good = isinstance(values["step"], int) and all(isinstance(v, _VALUES) for v in values.values())
        return values if good else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _drop_lines_after(path: Path, step: int) -> None:
    """Removes lines of later steps; a file with damaged ones is kept beside as metrics.jsonl.damaged."""
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
            f"warning: {path} has damaged lines; they are left out, the file is kept as {aside.name}", file=sys.stderr
        )
    kept = [values for values in found if values is not None and (values["step"] or 0) <= step]
    write_text(path, "".join(f"{json.dumps(values)}\n" for values in kept))
