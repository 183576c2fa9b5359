"""The order in which training sees its windows: shuffled anew every epoch, but windows of an image near each other.

An image's windows are dealt out in handfuls; the handfuls are shuffled over the whole epoch, and windows are shuffled
once more within blocks of handfuls. So a batch shows many images, and while a block lasts its images stay decoded.
"""

import threading

import numpy as np

# Full handfuls in a block. So many decoded images, half a gigabyte of VOC's, are in use at a time; more where images
# have few windows: with two windows each, four times as many.
BLOCK = 512


class WindowOrder:
    """Position in the endless sequence of training windows -> index of a window. A pure function of its arguments.

    Every window comes once an epoch.
    """

    def __init__(self, images: np.ndarray, seed: int, handful: int = 8):
        """
        Args:
          images: int [n], the image of every window.
          seed: from 0.
          handful: up to so many windows of an image come within one block.
        """
        self._images, self._seed, self._handful = images, seed, handful
        self._epochs: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return WindowOrder, (self._images, self._seed, self._handful)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, len(self._images))
        return int(self._epoch(epoch)[place])

    def _epoch(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._epochs:
                # Two are kept: threads that read ahead are in the next epoch already.
                self._epochs = {kept: order for kept, order in self._epochs.items() if kept in (epoch - 1, epoch + 1)}
                self._epochs[epoch] = epoch_order(self._images, self._seed, epoch, self._handful)
            return self._epochs[epoch]


def epoch_order(images: np.ndarray, seed: int, epoch: int, handful: int) -> np.ndarray:
    """The indices of all windows in the order of one epoch, int64 [n].

    Args:
      images: int [n], the image of every window.
      seed: from 0.
      epoch: from 0.
      handful: up to so many windows of an image come within one block.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(images))
    if handful > 1:
        grouped = shuffled[np.argsort(images[shuffled], kind="stable")]  # an image's windows together, shuffled
        handfuls = _handfuls(images[grouped], handful)
        shuffled = grouped[np.argsort(rng.permutation(handfuls[-1] + 1)[handfuls], kind="stable")]
    for start in range(0, len(shuffled), BLOCK * handful):
        rng.shuffle(shuffled[start : start + BLOCK * handful])
    return shuffled


def _handfuls(images: np.ndarray, size: int) -> np.ndarray:
    """The number of the handful that each window falls into, counted from 0; equal images must be together."""
    count = len(images)
    begins = np.flatnonzero(np.r_[True, images[1:] != images[:-1]])
    rank = np.arange(count) - np.repeat(begins, np.diff(np.r_[begins, count]))  # within the image
    return np.cumsum(rank % size == 0) - 1
