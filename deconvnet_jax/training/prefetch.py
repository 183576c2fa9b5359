"""The next batches are on the devices before the step that uses them."""

from collections import deque
from typing import Any

import jax

from deconvnet_jax.training.parallel import BatchIterator, place_batch


class PrefetchedBatches:
    """An endless iterator over batches on the devices, some of them ahead of the one given out.

    While the devices compute a step, which the host only starts, the host reads the batch after the next and sends it.
    The position is that of the batches given out, not of those read.
    """

    def __init__(self, batches: BatchIterator, ahead: int = 2):
        """
        Args:
          batches: this process's share of every batch.
          ahead: so many batches are on the devices besides the one in use.
        """
        self._batches, self._ahead = batches, ahead
        self._position = batches.get_state()
        self._waiting: deque[tuple[dict[str, jax.Array], dict[str, Any]]] = deque()

    def __next__(self) -> dict[str, jax.Array]:
        while len(self._waiting) <= self._ahead:
            # Copied: on CPU, JAX would keep the workers' shared memory, which must be free when the program ends.
            batch = place_batch({key: value.copy() for key, value in next(self._batches).items()})
            self._waiting.append((batch, self._batches.get_state()))
        batch, self._position = self._waiting.popleft()
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position after the batch given out last, as JSON."""
        return self._position

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position; what was read ahead is dropped."""
        self._waiting.clear()
        self._batches.set_state(state)
        self._position = state
