"""The confusion matrix as a picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from deconvnet_jax.errors import InputError
from deconvnet_jax.visualization.fonts import drawable


def confusion_picture(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Returns a figure of the confusion matrix, in percent of the pixels of each true class.

    Rows are the ground truth, columns the prediction. Values of 0.5 % or more are written into their cells. The row of
    a class without pixels is empty.

    Args:
      matrix: pixel counts [K, K] (`evaluation.confusion_matrix`).
      class_names: K names, in the order of the ids.

    Returns:
      A matplotlib figure to save, at 100 dots per inch.

    Raises:
      InputError: if the number of names is not the number of classes.
    """
    matrix = np.asarray(matrix, np.float64)
    count = len(class_names)
    if matrix.shape != (count, count):
        raise InputError(
            f"the confusion matrix has shape {matrix.shape}, but there are {count} class names; expected one per row"
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
    # Matplotlib would read $ as a formula.
    names = [drawable(name, i).replace("$", r"\$") for i, name in enumerate(class_names)]
    axes.set_xticks(range(count), names, rotation=90)
    axes.set_yticks(range(count), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("% of the true class's pixels", loc="left", fontsize=11)
    return figure
