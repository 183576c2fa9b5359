"""Draws the metrics of training runs into one picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path, whole_file
from deconvnet_jax.training import METRICS_FILE, metric_lines

from ..common.output import output_file

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's palette
SIZE = (14, 9)  # inches
DPI = 100


class Curve(NamedTuple):
    """Values of one metric over training.

    Attributes:
      steps: int [n], ascending.
      values: float [n].
    """

    steps: np.ndarray
    values: np.ndarray


def run(runs: Sequence[str], output: str | Path = "metrics.png", smooth: int = 1) -> None:
    """Draws runs into a PNG file. Prints the file, and the last step, last loss and best mean IoU of each run.

    Args:
      runs: Folders of training runs, or their metrics.jsonl; also in a bucket.
      output: The PNG file.
      smooth: Number of points in the running mean of training curves; 1: none.

    Raises:
      InputError: if there is no run, a run has no metrics or damaged ones, or the picture cannot be written.
    """
    if not runs:
        raise InputError("no run given; name the folders of one or several training runs")
    output = output_file(output, "--output", ".png")
    files = [metrics_file(user_path(name, "RUN", in_bucket=True)) for name in runs]
    curves = [read_metrics(path) for path in files]
    names = short_names([path.parent.absolute() for path in files])
    with whole_file(output) as path:
        draw(dict(zip(names, curves, strict=True)), smooth).savefig(path, dpi=DPI)
    print(output)
    for name, found in zip(names, curves, strict=True):
        print(summary(name, found))


def metrics_file(run: Path) -> Path:
    """Returns the metrics.jsonl of a run.

    Args:
      run: Folder of the run, or the file itself.

    Raises:
      InputError: if there is none. The message says so if stage 1 has one.
    """
    path = run if run.is_file() else run / METRICS_FILE
    if path.is_file():
        return path
    if (run / "stage1" / METRICS_FILE).is_file():
        raise InputError(f"{run} has no {METRICS_FILE} yet, its first stage has: name {run / 'stage1'}")
    raise InputError(f"no {METRICS_FILE} in {run}; name the folder of a training run")


def read_metrics(path: Path) -> dict[str, Curve]:
    """Returns every metric in a file by its name. If a step is there twice, its last line counts.

    Args:
      path: A metrics.jsonl. Its last line may be incomplete.

    Raises:
      InputError: if another line is damaged, or there are no values.
    """
    values: dict[str, dict[int, float]] = {}
    for line in metric_lines(path):
        step = int(line.pop("step") or 0)
        for name, value in line.items():
            if value is not None and np.isfinite(value):
                values.setdefault(name, {})[step] = float(value)
    if not values:
        raise InputError(f"{path} has no values yet; train a few more steps")
    return {name: _curve(points) for name, points in values.items()}


def _curve(points: dict[int, float]) -> Curve:
    steps = sorted(points)
    return Curve(np.array(steps), np.array([points[step] for step in steps]))


def short_names(folders: Sequence[Path]) -> list[str]:
    """Returns the shortest last parts of the paths that differ, such as a/run and b/run."""
    names = [str(folder) for folder in folders]
    for count in range(max(len(folder.parts) for folder in folders), 0, -1):
        shorter = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(shorter)) < len(set(folders)):
            break
        names = shorter
    return names


def draw(runs: dict[str, dict[str, Curve]], smooth: int = 1) -> Figure:
    """Draws the four panels of a picture.

    Args:
      runs: For each run by its name, the curves of `read_metrics`.
      smooth: Number of points in the running mean of training curves; 1: none.

    Returns:
      A matplotlib figure.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    (loss, accuracy), (iou, speed) = figure.subplots(2, 2, sharex=True)
    for index, (name, curves) in enumerate(runs.items()):
        colour = COLOURS[index % len(COLOURS)]
        _line(loss, curves.get("train/loss"), colour, smooth, label=name)
        if rates := curves.get("train/learning_rate"):
            for step in rates.steps[1:][np.diff(rates.values) < 0]:
                loss.axvline(step, color=colour, linewidth=0.8, linestyle=":", alpha=0.7)
        _line(accuracy, curves.get("train/pixel_accuracy"), colour, smooth, scale=100, thin=True)
        _points(accuracy, curves.get("eval/pixel_accuracy"), colour)
        _points(iou, curves.get("eval/mean_iou"), colour)
        _line(speed, curves.get("train/images_per_second"), colour, smooth)
    _finish(loss, "training loss", "nats per pixel")
    _finish(accuracy, "pixel accuracy: training (thin), evaluation (points)", "%")
    _finish(iou, "mean IoU of evaluations", "%")
    _finish(speed, "throughput", "images/s")
    for axes in (loss, speed):
        axes.set_ylim(bottom=0)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figure


def _line(
    axes: Axes, curve: Curve | None, colour: str, smooth: int, scale: float = 1, thin: bool = False, label: str = ""
) -> None:
    """Draws a curve. A run without values is drawn too, so that every run is in the legend."""
    steps, values = running_mean(curve, smooth) if curve else Curve(np.array([]), np.array([]))
    width, alpha = (0.8, 0.7) if thin else (1.6, 1)
    axes.plot(steps, scale * values, color=colour, linewidth=width, alpha=alpha, label=label)


def _points(axes: Axes, curve: Curve | None, colour: str) -> None:
    if curve:
        axes.plot(curve.steps, 100 * curve.values, color=colour, linewidth=1.6, marker="o", markersize=5)


def _finish(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=12)
    axes.set_ylabel(unit)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if not any(np.size(line.get_xdata()) for line in axes.get_lines()):
        axes.text(0.5, 0.5, "nothing yet", color="grey", ha="center", va="center", transform=axes.transAxes)


def running_mean(curve: Curve, count: int) -> Curve:
    """Returns means over neighbouring points, each at the step of the last one.

    Args:
      curve: The curve.
      count: Number of points per mean. The first means have fewer.

    Returns:
      A curve with the same steps.
    """
    sums = np.concatenate([[0.0], np.cumsum(curve.values)])
    ends = np.arange(1, len(curve.values) + 1)
    begins = np.maximum(ends - count, 0)
    return Curve(curve.steps, (sums[ends] - sums[begins]) / (ends - begins))


def summary(name: str, curves: dict[str, Curve]) -> str:
    """Returns one line about a run: its last step, last loss and best mean IoU.

    Args:
      name: Name of the run.
      curves: The curves of `read_metrics`.
    """
    parts = [f"step {max(int(curve.steps[-1]) for curve in curves.values())}"]
    if "train/loss" in curves:
        parts.append(f"loss {curves['train/loss'].values[-1]:.3f}")
    if "eval/mean_iou" in curves:
        steps, values = curves["eval/mean_iou"]
        best = int(np.argmax(values))
        parts.append(f"best mean IoU {100 * values[best]:.1f} % at step {steps[best]}")
    return f"{name}: {', '.join(parts)}"
