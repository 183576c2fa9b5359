"""Ends programs after an error with one line on stderr and an exit status, also for errors in threads."""

import errno
import io
import os
import select
import sys
import threading
import warnings
from collections.abc import Callable

from deconvnet_jax import buckets
from deconvnet_jax.errors import InputError, one_line

FAILED = 1
INTERRUPTED = 130  # exit status that a shell reports for a program ended by Ctrl-C
NOBODY_READS = 141  # exit status for a program ended by a closed pipe, such as `| head`

_said: set[str] = set()  # printed lines about threads and finalizers; each is printed once


def report_in_one_line() -> None:
    """Makes warnings, and errors in threads and finalizers, one line each.

    Characters that the terminal's encoding lacks are printed as escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _warned
    threading.excepthook = lambda failed: _background(failed.exc_value, lambda: threading.__excepthook__(failed))
    sys.unraisablehook = lambda failed: _background(failed.exc_value, lambda: sys.__unraisablehook__(failed))


def status_of(main: Callable[[], None]) -> int:
    """Runs a program's work and returns its exit status; bad input and machine failures become one line on stderr.

    Args:
      main: Does the work.

    Returns:
      0 after success, also of background threads; 1 after an error; 130 after Ctrl-C; 141 if nobody reads stdout.

    Raises:
      Exception: any other exception, which is a bug.
    """
    try:
        main()
        _flush()
    except InputError as error:
        return _end(str(error))
    except SystemExit:
        if _nobody_reads():
            return NOBODY_READS
        raise
    except OSError as error:  # For example a full disk. The text names the file.
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return NOBODY_READS
        return _end(_described(error))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        reason = machine_failure(error)
        if reason is None:
            raise
        return _end(reason)
    return FAILED if _said else 0


def _warned(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def _end(reason: str) -> int:
    """Prints the reason why a program ends; returns the exit status."""
    _nobody_reads()  # Discards output that cannot be written, which would fail again when Python exits.
    print(f"error: {reason}", file=sys.stderr)
    return FAILED


def _described(error: OSError) -> str:
    """Returns the system's text of an error, which names the file; for a full disk, also what to do."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    return f"{' '.join(str(error).split())}{'; make room, or write elsewhere' if full else ''}"


def _flush() -> None:
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _nobody_reads() -> bool:
    """Returns whether the reader of stdout is gone. Output that is still buffered is then discarded."""
    try:
        _flush()
        broken = sys.stdout is not None and _is_broken_pipe(sys.stdout.fileno())
    except io.UnsupportedOperation:  # stdout is no file, for example in a notebook.
        return False
    except (OSError, ValueError):
        broken = True
    if broken and sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return broken


def _is_broken_pipe(descriptor: int) -> bool:
    """Returns whether the other end of a pipe is closed, even if nothing is left to write."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def machine_failure(error: BaseException) -> str | None:
    """Returns what failed if an error is due to the machine or a bucket, in one line; None for a bug.

    Args:
      error: The exception that ended the program.
    """
    import jax

    text = " ".join(str(error).split())
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in text:
        return (
            f"the device's memory does not suffice ({text[:120]}); to train, lower "
            "--config.micro_batch or give --config.remat=True or --config.model.dtype=bfloat16; to predict, lower "
            "--config.inference.batch_size or .max_side"
        )
    refused = buckets.failure(error)
    if refused is not None:
        return f"Google Cloud Storage failed ({refused}); run the same command again"
    return no_accelerator()


def no_accelerator() -> str | None:
    """Returns why JAX finds no device and what to do, in one line; None if it finds one."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error)
    else:
        return None
    asked = getattr(jax.config, "jax_platforms", None)
    if not asked:
        return f"JAX could not start the accelerator ({reason}); JAX_PLATFORMS=cpu computes without one"
    extra = "tpu" if "tpu" in asked else "cuda13"
    return (
        f"JAX_PLATFORMS={asked}: JAX cannot compute there ({reason}); unset JAX_PLATFORMS, or install JAX for that "
        f'accelerator: pip install "jax[{extra}]=={jax.__version__}"'
    )


def _background(error: BaseException | None, show_bug: Callable[[], object]) -> None:
    """Prints an error of a thread or a finalizer as one line, once. The program then ends with status 1."""
    if not isinstance(error, InputError | OSError):
        show_bug()
        return
    line = _described(error) if isinstance(error, OSError) else str(error)
    if line not in _said:
        _said.add(line)
        print(f"error: {line}", file=sys.stderr)
