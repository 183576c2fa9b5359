"""What the steps report: read some steps late, so that the devices never wait for the host, but every one of them."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import not_written, whole_file

LATE = 2  # steps that may be under way while the host goes on
DIVERGED = "diverged"  # folder of the batches with which a run ended


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
        with whole_file(path) as temporary:
            np.savez_compressed(temporary, **{key: _local_examples(value) for key, value in batch.items()})
        found = ", ".join(f"{name} {values[name]:.4g}" for name in ("loss", "gradient_norm", "parameter_norm"))
        remedy = "there is no checkpoint yet; give another --workdir and a lower config.optimizer.learning_rate"
        if self.saved_step is not None:
            remedy = (
                f"the checkpoint of step {self.saved_step} is good; go on from there with a lower "
                "config.optimizer.learning_rate and --accept_changes"
            )
        raise InputError(f"training diverged at step {step}: {found}; its batch is saved in {path}; {remedy}")


def _local_examples(value: jax.Array) -> np.ndarray:
    """[devices, n, ...] over all processes -> this process's examples [local devices * n, ...]."""
    parts = [np.asarray(shard.data) for shard in value.addressable_shards]
    return np.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts])
