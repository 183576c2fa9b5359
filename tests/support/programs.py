"""Runs programs by their command lines in this process, because a new process needs five seconds for imports."""

import contextlib
import io
import logging
import runpy
import sys
import threading
import warnings
from typing import NamedTuple
from unittest import mock

from absl import flags
from absl import logging as absl_logging

from deconvnet_jax.weights import checkpoint_folder
from experiments.common import failures


class Done(NamedTuple):
    """Result of a program, with the names of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_program(name, *arguments):
    """Runs `python -m experiments.NAME ARGUMENT...` in this process; raises the exceptions that would be bugs."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with _as_before(), contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = _exit_code(f"experiments.{name}", [name, *map(str, arguments)])
        for stream in streams:
            stream.flush()
    return Done(code, *(stream.buffer.getvalue().decode() for stream in streams))


def _exit_code(module, argv):
    with warnings.catch_warnings(), mock.patch.object(sys, "argv", argv):
        warnings.resetwarnings()  # pytest's filters would make every warning an error.
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


@contextlib.contextmanager
def _as_before():
    """Undoes what a program changes in its process: flags, hooks and logging."""
    defined, verbosity, handlers = set(flags.FLAGS), absl_logging.get_verbosity(), logging.root.handlers[:]
    checkpoint_folder._quiet()  # It works once per process, and the hooks of a program are removed at its end.
    hooks = threading.excepthook, sys.unraisablehook
    try:
        with mock.patch.object(failures, "_said", set()):
            yield
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        absl_logging.set_verbosity(verbosity)
        logging.root.handlers[:] = handlers
        for flag in set(flags.FLAGS) - defined:
            delattr(flags.FLAGS, flag)
        flags.FLAGS.unparse_flags()
