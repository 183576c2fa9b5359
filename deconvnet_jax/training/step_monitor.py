"""Watches the steps of a run: collects their metrics, stops a run that diverges, and records a profile.

The metrics of a step are copied to the host only after later steps were launched, so that the devices never wait.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import not_written, written_locally
from deconvnet_jax.npz import write_npz

LATE = 2  # launched steps whose metrics are not read yet, so that the devices always have work
DIVERGED = "diverged"  # folder for the batch of a step whose values are not finite
WARM_UP = 5  # steps before the profiler records: the first step compiles, and then the queues fill


class StepMonitor:
    """Collector of the metrics of steps; stops the run at the first step with a value that is not finite."""

    def __init__(self, workdir: Path, batch_size: int, saved_step: int | None = None):
        """Starts to measure.

        Args:
          workdir: the run's folder.
          batch_size: crops per step, over all processes.
          saved_step: the step of the last checkpoint, named when the run diverges; None if there is none. Set this
            attribute again after each checkpoint.
        """
        self._workdir, self._batch_size = workdir, batch_size
        self._under_way: deque[tuple[int, dict[str, jax.Array], dict[str, jax.Array]]] = deque()
        self._metrics: list[dict[str, float]] = []
        self._timed, self._seconds = 0, 0.0
        self._last_read = math.nan  # the first step is not timed: it compiles
        self.saved_step = saved_step

    def add(self, step: int, metrics: dict[str, jax.Array], batch: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that was launched; waits for the step that is `LATE` steps older.

        Args:
          step: the number of the step.
          metrics: what the step returned: {name: float32 scalar} on the devices, with "finite".
          batch: the batch of the step, {name: array [devices, crops per device, ...]}; saved if the step diverges.

        Raises:
          InputError: if the values of the older step are not finite; its batch is saved.
        """
        self._under_way.append((step, metrics, batch))
        while len(self._under_way) > LATE:
            self._read()

    def settle(self) -> None:
        """Waits for all steps and reads their metrics.

        Raises:
          InputError: if the values of a step are not finite; its batch is saved.
        """
        while self._under_way:
            self._read()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Returns a context whose duration does not count in the throughput; first waits for all steps.

        Raises:
          InputError: as `settle`.
        """
        self.settle()
        begin = time.perf_counter()
        yield
        self._last_read += time.perf_counter() - begin

    def take(self) -> dict[str, float]:
        """Returns the means of all metrics since the last call; waits for all steps.

        "images_per_second" is the throughput over all devices. It is missing after the first step, which compiles.

        Raises:
          InputError: as `settle`.
        """
        self.settle()
        means = {name: float(np.mean([each[name] for each in self._metrics])) for name in self._metrics[0]}
        if self._timed:
            means["images_per_second"] = self._timed * self._batch_size / self._seconds
        self._metrics, self._timed, self._seconds = [], 0, 0.0
        return means

    def _read(self) -> None:
        step, metrics, batch = self._under_way.popleft()
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not values.pop("finite"):
            self._diverged(step, values, batch)
        now = time.perf_counter()
        if not math.isnan(self._last_read):
            self._timed, self._seconds = self._timed + 1, self._seconds + now - self._last_read
        self._last_read = now
        self._metrics.append(values)

    def _diverged(self, step: int, values: dict[str, Any], batch: dict[str, jax.Array]) -> None:
        path = self._workdir / DIVERGED / f"step_{step:06d}_process_{jax.process_index()}.npz"
        with not_written(path):
            path.parent.mkdir(exist_ok=True)
        write_npz(path, {key: _local_examples(value) for key, value in batch.items()})
        found = ", ".join(f"{name} {values[name]:.4g}" for name in ("loss", "gradient_norm", "parameter_norm"))
        remedy = "There is no checkpoint yet: start again with another --workdir and"
        if self.saved_step is not None:
            remedy = f"To resume from the good checkpoint of step {self.saved_step}, add --accept_changes and"
        raise InputError(
            f"training diverged at step {step}: {found}; its batch is saved in {path}. "
            f"{remedy} a lower config.optimizer.learning_rate"
        )


class ProfilerWindow:
    """Recorder of some steps with JAX's profiler, for TensorBoard or Perfetto, into the folder `profile`."""

    def __init__(self, workdir: Path, start: int, steps: int):
        """Chooses the steps to record: the first `steps` after `WARM_UP` steps of warm-up.

        Args:
          workdir: the run's folder.
          start: the step that the run resumes from; 0 for a new run.
          steps: the number of steps to record; 0 for none. Only the first process records.
        """
        self._folder = workdir / "profile"
        self._first, self._last = start + WARM_UP + 1, start + WARM_UP + steps
        self._active, self._recording = steps > 0 and jax.process_index() == 0, False
        self._written = ExitStack()

    def before(self, step: int) -> None:
        """Starts the recording if `step` is the first to record; call it before every step."""
        if self._active and step == self._first:
            jax.profiler.start_trace(self._written.enter_context(written_locally(self._folder)))
            self._recording = True

    def after(self, step: int, result: object) -> None:
        """Ends the recording if `step` is the last to record; call it after every step.

        Args:
          step: the number of the step.
          result: what the step returned, a tree of arrays; the recording ends when they are ready.
        """
        if self._recording and step == self._last:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends the recording if one is running, for example when the run ends early."""
        if self._recording:
            self._recording = False
            with self._written:
                jax.profiler.stop_trace()


def _local_examples(value: jax.Array) -> np.ndarray:
    """Returns this process's examples, [local devices * n, ...], of an array [devices, n, ...] over all processes."""
    parts = [np.asarray(shard.data) for shard in value.addressable_shards]
    return np.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts])
