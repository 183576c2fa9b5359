"""A confusion matrix as a picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from deconvnet_jax.errors import InputError


def confusion_picture(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Which class was taken for which, in percent of the pixels of the true one: rows are the truth.

    Numbers are written where they are 0.5 % or more. A class without pixels has an empty row.

    Args:
      matrix: [K, K], counts (`evaluation.confusion_matrix`).
      class_names: in the order of the ids.

    Returns:
      A figure to save; 100 dots an inch.

    Raises:
      InputError: if there are not as many names as classes.
    """
    matrix = np.asarray(matrix, np.float64)
    count = len(class_names)
    if matrix.shape != (count, count):
        raise InputError(
            f"a confusion matrix of shape {matrix.shape} with {count} class names; expected one name a row"
        )
    totals = matrix.sum(axis=1, keepdims=True)
    percent = np.divide(100 * matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    side = 2.5 + 0.42 * count
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        if value >= 0.5:
            colour = "white" if value > 60 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    names = [name.replace("$", r"\$") for name in class_names]  # matplotlib would take it for a formula
    axes.set_xticks(range(count), names, rotation=90)
    axes.set_yticks(range(count), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("% of the true class's pixels", loc="left", fontsize=11)
    return figure
