"""SIGTERM, as preempted machines and job schedulers send it, is a request to stop after the step under way."""

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
    """

    def __init__(self, step: int):
        super().__init__(f"stopped at step {step}")
        self.step = step


class Interruption:
    """A context manager that notices SIGTERM; with several processes all of them stop at the same step.

    There JAX's coordination service takes the signal, wherever it arrives, and agrees on a step
    (`jax.distributed.initialize` has registered it).
    """

    def __init__(self) -> None:
        self._requested = False
        self._saved_step: int | None = None
        self._before: Any = None

    def __enter__(self) -> "Interruption":
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self._requested = True
        if self._saved_step is not None:
            raise Preempted(self._saved_step)

    @contextmanager
    def at_once(self, saved_step: int) -> Iterator[None]:
        """While an evaluation runs, whose steps are saved, the signal stops the run immediately."""
        if self._requested:
            raise Preempted(saved_step)
        self._saved_step = saved_step
        try:
            yield
        finally:
            self._saved_step = None

    def requested(self, step: int) -> bool:
        """True if the run is to stop after `step`. With several processes: call it once a step, in all of them."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested
