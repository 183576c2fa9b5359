"""What is kept, what is decoded once, and what happens when decoding fails."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deconvnet_jax.data.cache import CachedSource
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import Example

SIZE = 10 * 20 * 5  # bytes of an example


class Slow(list):
    """Examples that take a while to read; counts the reads."""

    def __init__(self, count, seconds=0.0):
        arrays = np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20), np.uint8), np.zeros((10, 20), np.uint8)
        super().__init__(Example(str(i), *arrays) for i in range(count))
        self.seconds, self.reads, self.lock = seconds, [], threading.Lock()

    def __getitem__(self, index):
        with self.lock:
            self.reads.append(index)
        time.sleep(self.seconds)
        return super().__getitem__(index)


def test_keeps_what_fits_and_drops_the_least_recently_used():
    source = Slow(4)
    cached = CachedSource(source, 2 * SIZE)
    for index in (0, 1, 0, 2, 0, 1):  # 2 replaces 1, 1 replaces 2
        assert cached[index].name == str(index)
    assert source.reads == [0, 1, 2, 1]
    assert len(cached) == 4


def test_without_memory_every_access_reads():
    source = Slow(2)
    cached = CachedSource(source, 0)
    assert [cached[0].name, cached[0].name] == ["0", "0"]
    assert source.reads == [0, 0]


def test_threads_wait_for_the_one_that_decodes():
    source = Slow(3, seconds=0.05)
    cached = CachedSource(source, 99 * SIZE)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda i: cached[i % 3].name, range(24)))
    assert names == [str(i % 3) for i in range(24)]
    assert sorted(source.reads) == [0, 1, 2]


def test_a_failure_reaches_all_who_wait_and_is_tried_again():
    class Damaged(Slow):
        def __getitem__(self, index):
            super().__getitem__(index)
            raise InputError(f"damaged {len(self.reads)}")

    source = Damaged(1, seconds=0.05)
    cached = CachedSource(source, 99 * SIZE)

    def message(_):
        with pytest.raises(InputError) as raised:
            cached[0]
        return str(raised.value)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(message, range(4))) == {"damaged 1"}
    assert message(0) == "damaged 2"


def test_keeps_what_was_prepared_and_is_sent_empty():
    cached = CachedSource(Slow(1), 99 * SIZE, _without_instances)
    assert cached[0].instances is None
    source = [Example("a", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8), None)]
    copied = pickle.loads(pickle.dumps(CachedSource(source, 5, _without_instances)))
    assert copied[0].name == "a"


def _without_instances(example):
    return example._replace(instances=None)


def test_an_error_while_keeping_reaches_all_who_wait(monkeypatch):
    """As when memory runs out: nobody waits for ever."""
    cached = CachedSource(Slow(1, seconds=0.05), 99 * SIZE)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(cached, "_keep", fail)

    def read(_):
        with pytest.raises(MemoryError):
            cached[0]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(read, range(3), timeout=20))
