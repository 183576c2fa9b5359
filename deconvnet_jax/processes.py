"""Worker processes that do not outlive the program they work for."""

import multiprocessing
import os
import signal
import threading


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
