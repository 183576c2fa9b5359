"""Scores of a confusion matrix by the rules of the VOC devkit, and a table that shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from deconvnet_jax.errors import InputError, counted


def segmentation_scores(matrix: np.ndarray, class_names: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns the scores of a set of images from its confusion matrix, as fractions 0..1 that strict JSON can hold.

    The IoU of a class is correct / (true + predicted - correct) pixels. The mean runs over all classes, as in the VOC
    devkit (VOCevalseg.m). A class that is predicted but absent from the ground truth counts as 0, as in the devkit. A
    class without any true or predicted pixel has IoU None and is left out of the mean. (In the devkit it makes the mean
    NaN, by 0 / 0; this does not happen on VOC.)

    Args:
      matrix: pixel counts [K, K] from `confusion_matrix`: rows are the ground truth, columns the prediction.
      class_names: K different names. None uses the ids as text.

    Returns:
      "mean_iou", over all classes; "mean_iou_present", "mean_accuracy" and "frequency_weighted_iou", over the classes
      in the ground truth; "pixel_accuracy"; and by class name "iou_per_class" and "accuracy_per_class" (float, None
      where undefined) and "pixels_per_class" (int, pixels in the ground truth).

    Raises:
      InputError: if the matrix is not square, has no pixel at all, or the names do not fit.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax import segmentation_scores
      >>> scores = segmentation_scores(np.array([[6, 2], [0, 2]]), ["background", "cat"])
      >>> scores["mean_iou"], scores["iou_per_class"]
      (0.625, {'background': 0.75, 'cat': 0.5})
    """
    matrix = np.asarray(matrix)
    names = _checked_names(matrix, class_names)
    correct, true, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    iou = _ratio(correct, true + predicted - correct)
    accuracy = _ratio(correct, true)
    present = true > 0
    return {
        "mean_iou": float(np.nanmean(iou)),
        "mean_iou_present": float(iou[present].mean()),
        "pixel_accuracy": float(correct.sum() / matrix.sum()),
        "mean_accuracy": float(accuracy[present].mean()),
        "frequency_weighted_iou": float((true * np.nan_to_num(iou)).sum() / matrix.sum()),
        "iou_per_class": _by_name(names, iou),
        "accuracy_per_class": _by_name(names, accuracy),
        "pixels_per_class": dict(zip(names, true.tolist(), strict=True)),
    }


def scores_table(scores: dict[str, Any]) -> Table:
    """Returns a table of the scores in percent: one row per class with its pixels in the ground truth, then the means.

    It also shows boundary F1 and object scores if `scores` has them (from `Tally.scores`).
    """
    table = Table("class", title="segmentation scores", title_justify="left")
    contours = scores.get("boundary_f1_per_class")
    for column in ("IoU %", "accuracy %", "pixels", *(["boundary F1 %"] if contours else [])):
        table.add_column(column, justify="right")
    for name, iou in scores["iou_per_class"].items():
        pixels = scores["pixels_per_class"][name]
        row = [_plain(name), _percent(iou), _percent(scores["accuracy_per_class"][name]), f"{pixels:,}"]
        table.add_row(*row, *([_percent(contours[name])] if contours else []))
    table.add_section()
    total = f"{sum(scores['pixels_per_class'].values()):,}"
    table.add_row("mean IoU", _percent(scores["mean_iou"]), "", "")
    table.add_row("mean IoU, present classes", _percent(scores["mean_iou_present"]), "", "")
    table.add_row("mean accuracy", "", _percent(scores["mean_accuracy"]), "")
    if contours:
        table.add_row("mean boundary F1 over images", "", "", "", _percent(scores["boundary_f1"]))
    table.add_row("frequency-weighted IoU", _percent(scores["frequency_weighted_iou"]), "", "")
    table.add_row("pixel accuracy", "", _percent(scores["pixel_accuracy"]), total)
    if "object_iou" in scores:
        table.add_section()
        for size, count in scores["objects"].items():
            table.add_row(f"{size} objects", _percent(scores["object_iou"][size]), "", counted(count, "object"))
    return table


def submission_folder(split: str) -> Path:
    """Returns the folder for the files NAME.png inside an archive for VOC's evaluation server.

    The folder is that of competition 6, segmentation with any training data, because VGG-16 starts from ImageNet
    weights (VOC 2012 development kit, section "Segmentation").
    """
    return Path("results/VOC2012/Segmentation") / f"comp6_{split}_cls"


def _checked_names(matrix: np.ndarray, class_names: Sequence[str] | None) -> list[str]:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"the confusion matrix has shape {matrix.shape}; expected [K, K] from confusion_matrix")
    if not matrix.sum() > 0:
        raise InputError("the confusion matrix is empty: no pixel is annotated; check the masks for ids other than 255")
    names = [str(i) for i in range(len(matrix))] if class_names is None else list(class_names)
    if len(names) != len(matrix) or len(set(names)) < len(names):
        raise InputError(f"expected {len(matrix)} different class names, got {len(names)}: {', '.join(names)}")
    return names


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns the quotient as float64, NaN where the denominator is 0."""
    result = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def _by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _plain(text: str) -> str:
    """Returns text in which Rich does not interpret [brackets] as markup."""
    return text.replace("[", r"\[")
