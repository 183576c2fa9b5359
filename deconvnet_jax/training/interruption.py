"""Stops a run after the current step when SIGTERM (preemption, job schedulers) or SIGINT (Ctrl-C) arrives."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preempted(BaseException):
    """Raised when a signal has stopped a run at a step whose checkpoint is saved.

    Like KeyboardInterrupt, it is no `Exception`: a signal can arrive anywhere, and code that catches errors must not
    catch this one.

    Attributes:
      step: the step of the saved checkpoint.
      signal: the number of the signal, SIGTERM or SIGINT.
    """

    def __init__(self, step: int, signal: int):
        super().__init__(f"stopped at step {step}")
        self.step, self.signal = step, signal


class Interruption:
    """Context manager that notes SIGTERM and SIGINT; the loop asks `requested` after each step whether to stop.

    A second SIGINT raises KeyboardInterrupt immediately.

    With several processes it installs no handlers. `jax.distributed.initialize` has registered SIGTERM with JAX's
    coordination service, which notices it in any process and lets all processes stop at the same step. SIGINT then
    ends only the process that receives it.
    """

    def __init__(self) -> None:
        self._signal = 0  # the signal that arrived last; 0 for none
        self._saved_step: int | None = None  # set inside `at_once`
        self._before: dict[int, Any] = {}  # {signal: the handler that was installed before}

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
        """Returns a context in which a signal stops the run immediately; for an evaluation, which takes long.

        Args:
          saved_step: the step of the newest checkpoint, which must contain all that is done.

        Raises:
          Preempted: when a signal arrives inside the context, or has arrived before it.
        """
        if self._signal:
            raise Preempted(saved_step, self._signal)
        self._saved_step = saved_step
        try:
            yield
        finally:
            self._saved_step = None

    def requested(self, step: int) -> int:
        """Returns the signal that asks the run to stop after `step`, or 0 if none has arrived.

        With several processes, all of them must call it exactly once per step; all get the same answer.
        """
        if jax.process_count() > 1:
            return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else 0
        return self._signal
