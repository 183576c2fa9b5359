"""How batches are divided, and what cannot be."""

import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.training import BatchLayout, batch_layout


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [  # batch size, devices, micro-batch, group -> micro-batches, groups, devices a group
        ((64, 1, 0, 0), (1, 1, 1)),
        ((64, 1, 8, 8), (8, 1, 1)),  # the original on one card
        ((64, 1, 0, 8), (1, 8, 1)),
        ((64, 2, 16, 8), (2, 2, 1)),
        ((64, 8, 8, 8), (1, 1, 1)),
        ((64, 16, 8, 8), (1, 1, 2)),  # a micro-batch is at most a device's share
        ((64, 64, 0, 8), (1, 1, 8)),
        ((64, 4, 0, 64), (1, 1, 4)),  # all devices together
        ((20, 4, 5, 0), (1, 1, 1)),
    ],
)
def test_layouts(numbers, expected):
    assert batch_layout(*numbers) == BatchLayout(*expected, numbers[1])


def test_groups_of_devices():
    layout = batch_layout(8, 4, 0, 4)
    assert layout.device_groups == ((0, 1), (2, 3))
    assert layout.total_groups == 2
    assert batch_layout(64, 1, 8, 4).total_groups == 16


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((6, 4), "batch_size=6 does not divide over 4 devices; give a multiple of 4, for example 8"),
        ((0, 4), "batch_size=0 does not divide over 4 devices; give a multiple of 4, for example 4"),
        ((64, 2, 5), "config.micro_batch=5 does not divide the 32 crops that each of 2 devices has of batch_size=64"),
        (
            (64, 2, 8, 3),
            "config.bn_group=3: a device computes 8 crops at once .*; give a divisor of 8, or 8 times",
        ),
        ((64, 2, 8, 32), "config.bn_group=32: a device computes 8 crops at once"),  # two devices: 16
        ((8, 1, -1), "config.micro_batch=-1: expected 0 or more"),
        ((8, 1, 0, -8), "config.bn_group=-8: expected 0 or more"),
    ],
)
def test_what_does_not_divide(numbers, message):
    with pytest.raises(InputError, match=message):
        batch_layout(*numbers)
