"""Several processes as one program, and worker processes that do not outlive the program they work for."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from deconvnet_jax.errors import InputError

T = TypeVar("T")


def end_with_parent(*_: object) -> None:
    """To be called in a worker process when it starts: ends it when the parent process ends, however that happens.

    A parent that is killed (preemption, no memory left) cannot tell its workers, which would wait for it for ever.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def stay_with_parent(*_: object) -> None:
    """As `end_with_parent`, but not before: SIGTERM or Ctrl-C to a whole job is for the parent, which needs us."""
    if threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # there is none in a thread of the program itself
        parent.join()
        os._exit(1)


def say(line: str) -> None:
    """Prints a line on stderr, in the first process."""
    if jax.process_index() == 0:
        print(line, file=sys.stderr)


def first_process_first(make: Callable[[], T]) -> T:
    """Runs `make` in the first process, then in the others: what it builds on the disk is built once.

    Raises:
      InputError: if it failed in the first process; what it raised, there.
    """
    if jax.process_count() == 1:
        return make()
    results: list[T] = []
    error: Exception | None = None
    if jax.process_index() == 0:
        try:
            results.append(make())
        except Exception as caught:
            error = caught
    failed = bool(multihost_utils.broadcast_one_to_all(np.array(error is not None)))
    if error is not None:
        raise error
    if failed:
        raise InputError("the first process has stopped with an error; see its output")
    return results[0] if results else make()


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """The sum of an array over all processes, int64, or float64 of what is sent as float32; the same in each."""
    if jax.process_count() == 1:
        return values
    if np.issubdtype(values.dtype, np.floating):
        return multihost_utils.process_allgather(values.astype(np.float32)).astype(np.float64).sum(axis=0)
    high, low = (np.asarray(part, np.int32) for part in (values >> 24, values & 0xFFFFFF))  # JAX has 32 bits
    high, low = multihost_utils.process_allgather((high, low))
    return (high.astype(np.int64).sum(axis=0) << 24) + low.astype(np.int64).sum(axis=0)
