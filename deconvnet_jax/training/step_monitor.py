"""Watches the steps of a run: metrics, which are read late so that devices do not wait, and JAX's profiler."""

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

LATE = 2  # steps that may be under way while the host goes on
DIVERGED = "diverged"  # folder of the batches with which a run ended
WARM_UP = 5  # steps before the profiler records: the first one compiles, and queues fill


class StepMonitor:
    """Collects the metrics of steps, and stops the run at the first one with a value that is no finite number."""

    def __init__(self, workdir: Path, batch_size: int, saved_step: int | None = None):
        """
        Args:
          workdir: the run's folder.
          batch_size: crops a step, over all processes.
          saved_step: of the last checkpoint, for messages; may be set later.
        """
        self._workdir, self._batch_size = workdir, batch_size
        self._under_way: deque[tuple[int, dict[str, jax.Array], dict[str, jax.Array]]] = deque()
        self._metrics: list[dict[str, float]] = []
        self._timed, self._seconds = 0, 0.0
        self._last_read = math.nan  # the first step is not timed: it compiles
        self.saved_step = saved_step

    def add(self, step: int, metrics: dict[str, jax.Array], batch: dict[str, jax.Array]) -> None:
        """Takes what a step returned and what it was given; waits for the step before the last.

        Raises:
          InputError: if that one was not finite; its batch is saved.
        """
        self._under_way.append((step, metrics, batch))
        while len(self._under_way) > LATE:
            self._read()

    def settle(self) -> None:
        """Waits for all steps, so that the state is known to be good. Raises as `add`."""
        while self._under_way:
            self._read()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in here does not count as time of training; all steps are read before."""
        self.settle()
        begin = time.perf_counter()
        yield
        self._last_read += time.perf_counter() - begin

    def take(self) -> dict[str, float]:
        """Means since the last call, and "images_per_second" if a time could be measured; waits for all steps."""
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
        remedy = "there is no checkpoint yet; give another --workdir and a lower config.optimizer.learning_rate"
        if self.saved_step is not None:
            remedy = (
                f"the checkpoint of step {self.saved_step} is good; go on from there with a lower "
                "config.optimizer.learning_rate and --accept_changes"
            )
        raise InputError(f"training diverged at step {step}: {found}; its batch is saved in {path}; {remedy}")


class ProfilerWindow:
    """Records some steps with JAX's profiler, for TensorBoard or Perfetto, into the folder `profile`."""

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


def _local_examples(value: jax.Array) -> np.ndarray:
    """[devices, n, ...] over all processes -> this process's examples [local devices * n, ...]."""
    parts = [np.asarray(shard.data) for shard in value.addressable_shards]
    return np.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts])
