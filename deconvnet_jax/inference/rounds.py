"""Which images the devices compute at once: in a round, each device has one image, and all are of one padded size."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference.proposal_batch import padded_size


class Prepared(NamedTuple):
    """An image on its way to a device.

    Attributes:
      size: height and width of the photograph.
      image: uint8 RGB [H, W, 3], as it is computed: reduced to `max_side`.
      proposals: [n, 4] on `image`, if there are any.
    """

    size: tuple[int, int]
    image: np.ndarray
    proposals: np.ndarray | None


def rounds_of(group: Sequence[Prepared], devices: int) -> list[list[int]]:
    """Returns the rounds that a group of images takes: their numbers in the group, at most `devices` per round."""
    rounds: list[list[int]] = []
    open_rounds: dict[tuple[int, int], list[int]] = {}
    for i, prepared in enumerate(group):
        size = padded_size(*prepared.image.shape[:2])
        if len(open_rounds.get(size, ())) in (0, devices):
            open_rounds[size] = []
            rounds.append(open_rounds[size])
        open_rounds[size].append(i)
    return rounds


def groups(ready: Iterator[Prepared], limit: int, devices: int) -> Iterator[tuple[list[Prepared], InputError | None]]:
    """Groups of images that take at most `limit` rounds; an image that cannot be used ends the last one."""
    group: list[Prepared] = []
    try:
        for prepared in ready:
            if len(rounds_of([*group, prepared], devices)) > limit:
                yield group, None
                group = []
            group.append(prepared)
            if len(group) == limit * devices:
                yield group, None
                group = []
    except InputError as error:
        yield group, error
        return
    if group:
        yield group, None


def are_faster_alone(batches: Sequence[int], devices: int) -> bool:
    """Whether images of one round take fewer batches one after the other, when the devices share their windows.

    Args:
      batches: how many batches the windows of each image fill.
      devices: how many there are.
    """
    return sum(-(-count // devices) for count in batches) < max(batches, default=0)
