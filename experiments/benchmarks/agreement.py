"""Measures how far the scores of two sides of a benchmark agree."""

import numpy as np


def difference(mine: np.ndarray, other: np.ndarray) -> float:
    """Returns the root mean square of the difference of scores, in standard deviations of each class's scores.

    Args:
      mine: scores, float [..., K]; their deviations are the unit.
      other: scores of the same shape.
    """
    return float(np.sqrt(np.mean((standardised(mine, mine) - standardised(other, mine)) ** 2)))


def same_labels(mine: np.ndarray, other: np.ndarray) -> float:
    """Returns the share of pixels with equal labels after `standardised`.

    Args:
      mine: scores, float [..., K]; their means and deviations scale both.
      other: scores of the same shape.
    """
    return float(np.mean(standardised(mine, mine).argmax(-1) == standardised(other, mine).argmax(-1)))


def standardised(scores: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Returns scores whose classes all have mean 0 and deviation 1; with random weights one class would always win.

    Args:
      scores: float [..., K].
      by: float [..., K]; the mean and the standard deviation of each class are computed on these scores.
    """
    axes = tuple(range(by.ndim - 1))
    return (scores - by.mean(axes)) / by.std(axes)
