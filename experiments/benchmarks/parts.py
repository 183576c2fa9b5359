"""Runs commands that share a limited time, and keeps the results of those that finish when others fail."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .harness import Numbers

FINISHED, FAILED, TOO_SLOW, NOT_STARTED = "finished", "failed", "too slow", "not started"
LEAST_SECONDS = 15.0  # A part with less time than this is not started.
GRACE = 3  # seconds between SIGTERM and SIGKILL for a part that has used up its time
_TIMED_OUT = (124, 128 + signal.SIGKILL, -signal.SIGKILL)  # exit statuses of `timeout` after SIGTERM, and after SIGKILL
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Part:
    """A command of a report.

    Attributes:
      name: names its files in the report's folder, NAME.log and NAME.json.
      title: what the part measures, as the report shows it.
      command: the program and its arguments. It may write its numbers, a JSON object, to `numbers_file`.
      environment: variables for this part only.
      numbers_of_log: takes the text of the log and returns the numbers, for a command that writes no file of numbers.
    """

    name: str
    title: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    numbers_of_log: Callable[[str], Numbers] | None = None


class PartRunner:
    """Runner of parts that share a limited time.

    Attributes:
      outcomes: of the parts so far, by name. "title"; "command", as a user types it; "status", one of FINISHED, FAILED,
        TOO_SLOW and NOT_STARTED; "seconds" that the part ran; "limit", the seconds that it was given; "error", why it
        did not finish (for FAILED the last line of its log), or None; "numbers", or None.
      environment: variables for all later parts, in addition to those of this process.
    """

    def __init__(self, folder: Path, finished: Callable[[Numbers], None], least: float = LEAST_SECONDS):
        """Starts the clock.

        Args:
          folder: where logs and numbers are written.
          finished: called with `outcomes` after every part.
          least: smallest number of seconds for which a part is started.
        """
        self.folder, self.outcomes, self.environment = folder, {}, {}
        self._finished, self._least = finished, least
        self._end = time.monotonic()  # when the shares given so far are used up

    def run(self, share: float, parts: Sequence[Part]) -> None:
        """Runs parts at the same time and returns when all of them have ended.

        Parts get their own share and the time that earlier parts left unused. So no part uses the time of a later one.

        Args:
          share: seconds for these parts.
          parts: to run.
        """
        self._end += share
        limit = self._end - time.monotonic() - GRACE
        if limit < self._least:
            for part in parts:
                self._keep(part, NOT_STARTED, 0.0, limit, "earlier parts took all the time", None)
            return
        begin = time.monotonic()
        running: dict[str, tuple[Part, subprocess.Popen[bytes]]] = {}
        try:
            for part in parts:
                running[part.name] = part, self._start(part, limit)
            while running:
                for part, process in [pair for pair in running.values() if pair[1].poll() is not None]:
                    del running[part.name]
                    self._end_of(part, process.returncode, time.monotonic() - begin, limit)
                time.sleep(0.05)
        finally:
            for _, process in running.values():
                process.terminate()  # `timeout` passes the signal on.

    def _start(self, part: Part, limit: float) -> subprocess.Popen[bytes]:
        """Starts a command under `timeout`, which ends the command even if this process is killed."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self.environment, **part.environment}
        command = ["timeout", f"--kill-after={GRACE}", f"{limit:.1f}", *part.command]
        numbers_file(self.folder, part.name).unlink(missing_ok=True)
        with self._log(part).open("wb") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def _log(self, part: Part) -> Path:
        return self.folder / f"{part.name}.log"

    def _end_of(self, part: Part, returncode: int, seconds: float, limit: float) -> None:
        text = _COLORS.sub("", self._log(part).read_text(errors="replace"))
        numbers = part.numbers_of_log(text) if part.numbers_of_log else None
        with contextlib.suppress(OSError, ValueError):
            numbers = json.loads(numbers_file(self.folder, part.name).read_text())
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        status, error = FAILED, lines[-1][:300] if lines else f"exit status {returncode}, without any output"
        if returncode == 0:
            status, error = FINISHED, None
        elif returncode in _TIMED_OUT and seconds > limit - 1:
            status, error = TOO_SLOW, f"stopped after {seconds:.0f} seconds"
        self._keep(part, status, seconds, limit, error, numbers)

    def _keep(
        self, part: Part, status: str, seconds: float, limit: float, error: str | None, numbers: Numbers | None
    ) -> None:
        variables = [f"{key}={value}" for key, value in part.environment.items()]
        self.outcomes[part.name] = {
            "title": part.title,
            "command": " ".join([*variables, shlex.join(part.command)]),
            "status": status,
            "seconds": round(seconds, 1),
            "limit": round(max(limit, 0), 1),
            "error": error,
            "numbers": numbers,
        }
        self._finished(self.outcomes)


def numbers_file(folder: Path, name: str) -> Path:
    """Returns the path of the file for a part's numbers.

    Args:
      folder: of the report.
      name: of the part.
    """
    return folder / f"{name}.json"
