"""Some steps of a run recorded by JAX's profiler, for TensorBoard or Perfetto."""

from contextlib import ExitStack
from pathlib import Path

import jax

from deconvnet_jax.files import written_locally

WARM_UP = 5  # steps before: the first one compiles, and queues fill


class ProfilerWindow:
    """Records `steps` steps, after the first few of a run or of its continuation, into the folder `profile`."""

    def __init__(self, workdir: Path, start: int, steps: int):
        """
        Args:
          workdir: the run's folder.
          start: the step before the first one of this start of the run.
          steps: how many to record; 0: none. The first process does.
        """
        self._folder = workdir / "profile"
        self._first, self._last = start + WARM_UP + 1, start + WARM_UP + steps
        self._active, self._recording = steps > 0 and jax.process_index() == 0, False
        self._written = ExitStack()

    def before(self, step: int) -> None:
        """To be called before every step."""
        if self._active and step == self._first:
            jax.profiler.start_trace(self._written.enter_context(written_locally(self._folder)))
            self._recording = True

    def after(self, step: int, result: object) -> None:
        """To be called after every step, with what it returned."""
        if self._recording and step == self._last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends the recording if it is under way."""
        if self._recording:
            self._recording = False
            with self._written:
                jax.profiler.stop_trace()
