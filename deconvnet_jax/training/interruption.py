"""SIGTERM, as preempted machines and job schedulers send it, and Ctrl-C ask to stop after the step under way."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preempted(BaseException):
    """A run has stopped because it was asked to, at a step whose checkpoint is written.

    Like KeyboardInterrupt no `Exception`: it may come at any place, and nobody on its way may take it for an error.

    Attributes:
      step: that step.
      signal: which asked, SIGTERM or SIGINT.
    """

    def __init__(self, step: int, signal: int):
        super().__init__(f"stopped at step {step}")
        self.step, self.signal = step, signal


class Interruption:
    """A context manager that notices SIGTERM and SIGINT; a second SIGINT stops at once, as without it.

    With several processes all of them stop at the same step, and SIGINT ends its process. There JAX's coordination
    service takes SIGTERM, wherever it arrives, and agrees on a step (`jax.distributed.initialize` has registered it).
    """

    def __init__(self) -> None:
        self._signal = 0  # that asked
        self._saved_step: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = number
        if self._saved_step is not None:
            raise Preempted(self._saved_step, number)

    @contextmanager
    def at_once(self, saved_step: int) -> Iterator[None]:
        """While an evaluation runs, whose steps are saved, the signal stops the run immediately."""
        if self._signal:
            raise Preempted(saved_step, self._signal)
        self._saved_step = saved_step
        try:
            yield
        finally:
            self._saved_step = None

    def requested(self, step: int) -> int:
        """The signal that asks to stop after `step`, or 0. With several processes: call it once a step, in all."""
        if jax.process_count() > 1:
            return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else 0
        return self._signal
