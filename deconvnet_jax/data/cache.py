"""Decoded images kept in memory, so that many crops of an image cost one decode."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from deconvnet_jax.images import Example


class CachedSource(Sequence[Example]):
    """A source that keeps the examples used last in memory, up to a number of bytes.

    Safe for threads: whoever asks for an example that another thread is decoding waits for that one. A copy sent to
    another process begins empty.
    """

    def __init__(
        self,
        source: Sequence[Example],
        capacity: int,
        prepare: Callable[[Example], Example] | None = None,
    ):
        """`prepare` is applied to an example before it is kept; `capacity` is in bytes, from 0."""
        self._source, self._capacity, self._prepare = source, capacity, prepare
        self._kept: OrderedDict[int, Example] = OrderedDict()
        self._awaited: dict[int, Future[Example]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedSource, (self._source, self._capacity, self._prepare)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            awaited = self._awaited.get(index)
            if awaited is None:
                mine = self._awaited[index] = Future()
        if awaited is not None:
            return awaited.result()
        try:
            example = self._source[index]  # outside of the lock: other threads go on
            example = self._prepare(example) if self._prepare else example
            self._keep(index, example)
        except BaseException as error:
            with self._lock:
                self._awaited.pop(index, None)
            mine.set_exception(error)  # whoever waits for it must not wait for ever
            raise
        mine.set_result(example)
        return example

    def _keep(self, index: int, example: Example) -> None:
        with self._lock:
            del self._awaited[index]
            self._kept[index] = example
            self._bytes += _size(example)
            while self._bytes > self._capacity:
                self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(example: Example) -> int:
    return sum(array.nbytes for array in (example.image, example.label, example.instances) if array is not None)
