"""Helps several processes to act as one program, and ends worker processes with the program that started them."""

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
    """Starts a thread that ends this worker process as soon as its parent process ends.

    Call it when a worker process starts. A parent that is killed (preemption, out of memory) cannot stop its workers,
    which would otherwise wait for ever. Arguments are ignored, so that the function can serve as an initializer. In a
    process without a parent it does nothing.
    """
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def stay_with_parent(*_: object) -> None:
    """Makes this worker process end with its parent, and ignore SIGTERM and SIGINT.

    Both signals often go to all processes of a job. The parent handles them, and needs its workers until it has saved.
    """
    if threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:  # None means that this thread runs in the program itself.
        parent.join()
        os._exit(1)


def say(line: str) -> None:
    """Prints a line on stderr in the first process, and nothing in the others."""
    if jax.process_index() == 0:
        print(line, file=sys.stderr)


def first_process_first(make: Callable[[], T]) -> T:
    """Calls `make` in the first process, then in the others, so that files are built once and then found.

    All processes must call this function.

    Args:
      make: builds something on the disk if it is missing.

    Returns:
      The result of `make` in this process.

    Raises:
      InputError: in the other processes if `make` failed in the first one, which raises the error of `make` itself.
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
    """Returns the sum of an array over all processes, the same in each of them.

    All processes must call this function. With one process it returns the array unchanged.

    Args:
      values: integers below 2**55, or floats, of any shape, the same shape in every process.

    Returns:
      The sum, of the same shape: int64 for integers, float64 for floats. Floats are sent as float32.
    """
    if jax.process_count() == 1:
        return values
    if np.issubdtype(values.dtype, np.floating):
        return multihost_utils.process_allgather(values.astype(np.float32)).astype(np.float64).sum(axis=0)
    # JAX sends 32-bit numbers, so each integer is split into two parts.
    high, low = (np.asarray(part, np.int32) for part in (values >> 24, values & 0xFFFFFF))
    high, low = multihost_utils.process_allgather((high, low))
    return (high.astype(np.int64).sum(axis=0) << 24) + low.astype(np.int64).sum(axis=0)
