"""Tests the search for the largest batch that fits, and its number of compilations."""

import pytest

from experiments.compiled.largest_batch import find_largest


class Device:
    """Stand-in for compilations: a call returns the bytes of a batch, or None above `refuses`, as XLA does for TPUs."""

    def __init__(self, state, image, refuses=float("inf")):
        self.state, self.image, self.refuses, self.asked = state, image, refuses, []

    def __call__(self, batch):
        self.asked.append(batch)
        num_bytes = self.state + self.image * batch
        return None if num_bytes > self.refuses else num_bytes


@pytest.mark.parametrize("refuses", [float("inf"), 100])
@pytest.mark.parametrize("start", [1, 2, 5, 6, 40, 41, 250])
@pytest.mark.parametrize(("unit", "largest"), [(1, 40), (8, 40), (7, 35), (16, 32)])
def test_largest(start, unit, largest, refuses):
    device = Device(20, 2, refuses)
    assert find_largest(start * unit, lambda batch: batch % unit == 0, device, 100) == largest
    assert len(set(device.asked)) == len(device.asked) <= (4 if refuses > 100 else 10)


def test_nothing_fits():
    device = Device(200, 2)
    assert find_largest(8, lambda batch: True, device, 100) == 0
    assert find_largest(8, lambda batch: True, Device(200, 2, refuses=100), 100) == 0


def test_memory_that_is_not_quite_linear():
    asked = []

    def needed(batch):
        asked.append(batch)
        return 20 + 2 * batch + (batch % 3)

    assert find_largest(8, lambda batch: True, needed, 100) == 39
    assert len(asked) <= 6
