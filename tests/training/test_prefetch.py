"""Batches wait on the devices, and the position is that of the batches given out."""

import itertools

import jax
import numpy as np

from deconvnet_jax.training.prefetch import PrefetchedBatches


class Numbered:
    """Batches that hold their number."""

    def __init__(self):
        self.read = 0

    def __next__(self):
        self.read += 1
        return {"image": np.full((4, 1), self.read - 1)}

    def get_state(self):
        return {"next_index": self.read}

    def set_state(self, state):
        self.read = state["next_index"]


def number(batch):
    assert isinstance(batch["image"], jax.Array)
    assert len(batch["image"].devices()) == jax.device_count()
    return int(np.asarray(batch["image"]).max())


def test_reads_ahead_but_counts_what_was_given_out():
    source = Numbered()
    batches = PrefetchedBatches(source, ahead=2)
    assert batches.get_state() == {"next_index": 0}
    for expected in range(5):
        assert number(next(batches)) == expected
        assert batches.get_state() == {"next_index": expected + 1}
        assert source.read == expected + 3


def test_goes_to_a_position():
    batches = PrefetchedBatches(Numbered())
    for _ in range(3):
        next(batches)
    state = batches.get_state()
    following = [number(next(batches)) for _ in range(4)]
    resumed = PrefetchedBatches(Numbered())
    number(next(resumed))
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert [number(batch) for batch in itertools.islice(iter(resumed.__next__, None), 4)] == following == [3, 4, 5, 6]
