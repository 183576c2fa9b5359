"""Scores of a confusion matrix, by the rules of the VOC devkit, and a table of them for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from deconvnet_jax.errors import InputError


def segmentation_scores(matrix: np.ndarray, class_names: Sequence[str] | None = None) -> dict[str, Any]:
    """The scores of a whole set, all fractions 0..1, ready for strict JSON.

    A class's IoU is correct / (true + predicted - correct) pixels, and the mean is over all classes, as in the VOC
    devkit (VOCevalseg.m). There, a class without a single true or predicted pixel makes the mean NaN (0 / 0; it does
    not happen on VOC). Here such a class has IoU None and is left out of the mean; a class that is predicted but
    occurs nowhere in the truth counts as 0, as in the devkit.

    Args:
      matrix: [K, K] pixel counts from `confusion_matrix`: rows are the truth, columns the prediction.
      class_names: K different names; the ids as text by default.

    Returns:
      "mean_iou"; "mean_iou_present", the mean over the classes that occur in the truth alone; "pixel_accuracy";
      "mean_accuracy" and "frequency_weighted_iou", over the classes that occur in the truth; and by class name
      "iou_per_class" and "accuracy_per_class" (float, or None where undefined) and "pixels_per_class" (int, truth).

    Raises:
      InputError: if the matrix is not square, has no pixel at all, or the names do not fit.
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
    """The scores in percent, one row a class with its pixels in the truth, the means below; contours and objects, where
    `tally.Tally` counted them.
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
    table.add_row("mean", _percent(scores["mean_iou"]), _percent(scores["mean_accuracy"]), "")
    table.add_row("mean, classes in the truth", _percent(scores["mean_iou_present"]), "", "")
    if contours:
        table.add_row("mean over images", "", "", "", _percent(scores["boundary_f1"]))
    table.add_row("all pixels", _percent(scores["frequency_weighted_iou"]), _percent(scores["pixel_accuracy"]), total)
    if "object_iou" in scores:
        table.add_section()
        for size, count in scores["objects"].items():
            table.add_row(f"{size} objects", _percent(scores["object_iou"][size]), "", f"{count:,} objects")
    return table


def submission_folder(split: str) -> Path:
    """Returns the folder for NAME.png in an archive for the server of VOC's challenge.

    It is that of competition 6: segmentation, any training data.

    VOC 2012 development kit, section "Segmentation"; competition 6 because VGG-16 begins with ImageNet's weights.
    """
    return Path("results/VOC2012/Segmentation") / f"comp6_{split}_cls"


def _checked_names(matrix: np.ndarray, class_names: Sequence[str] | None) -> list[str]:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"a confusion matrix is square, got shape {matrix.shape}; make it with confusion_matrix")
    if not matrix.sum() > 0:
        raise InputError("the confusion matrix is empty: no pixel is annotated; check the masks for ids other than 255")
    names = [str(i) for i in range(len(matrix))] if class_names is None else list(class_names)
    if len(names) != len(matrix) or len(set(names)) < len(names):
        raise InputError(f"expected {len(matrix)} different class names, got {len(names)}: {', '.join(names)}")
    return names


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """float64, NaN for x / 0."""
    result = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def _by_name(names: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _plain(text: str) -> str:
    """Rich would take [text] in a class name for markup."""
    return text.replace("[", r"\[")
