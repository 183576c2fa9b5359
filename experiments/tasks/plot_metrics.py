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

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
SIZE = (14, 9)  # inches
DPI = 100


class Curve(NamedTuple):
    """Values of one metric: int [n] steps in ascending order, float [n] values."""

    steps: np.ndarray
    values: np.ndarray


def run(runs: Sequence[str], output: str | Path = "metrics.png", smooth: int = 1) -> None:
    """Draws runs into a file and prints where it is, and of each run the last step, loss and best mean IoU.

    Raises:
      InputError: if there is no run, one has no metrics or damaged ones, or the picture cannot be written.
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
    """The metrics.jsonl of a run."""
    path = run if run.is_file() else run / METRICS_FILE
    if path.is_file():
        return path
    if (run / "stage1" / METRICS_FILE).is_file():
        raise InputError(f"{run} has no {METRICS_FILE} yet, its first stage has: name {run / 'stage1'}")
    raise InputError(f"no {METRICS_FILE} in {run}; name the folder of a training run")


def read_metrics(path: Path) -> dict[str, Curve]:
    """Every metric of a file by its name; of a step that comes twice the last line counts.

    Raises:
      InputError: if a line is damaged, other than the last, or there is none.
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
    """The last parts of the paths, as many as it takes to tell them apart."""
    names = [str(folder) for folder in folders]
    for count in range(max(len(folder.parts) for folder in folders), 0, -1):
        shorter = ["/".join(folder.parts[-count:]) for folder in folders]
        if len(set(shorter)) < len(set(folders)):
            break
        names = shorter
    return names


def draw(runs: dict[str, dict[str, Curve]], smooth: int = 1) -> Figure:
    """The picture of runs by name."""
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
    _finish(loss, "training loss", "nats a pixel")
    _finish(accuracy, "pixel accuracy: training (thin), evaluation (points)", "%")
    _finish(iou, "mean IoU of evaluations", "%")
    _finish(speed, "throughput", "images a second")
    for axes in (loss, speed):
        axes.set_ylim(bottom=0)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return figure


def _line(
    axes: Axes, curve: Curve | None, colour: str, smooth: int, scale: float = 1, thin: bool = False, label: str = ""
) -> None:
    """Draws a curve; its label also where there is nothing to draw, so that every run is in the legend."""
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
    """Means over `count` points, each at the step of its last one; fewer where the curve begins."""
    sums = np.concatenate([[0.0], np.cumsum(curve.values)])
    ends = np.arange(1, len(curve.values) + 1)
    begins = np.maximum(ends - count, 0)
    return Curve(curve.steps, (sums[ends] - sums[begins]) / (ends - begins))


def summary(name: str, curves: dict[str, Curve]) -> str:
    """One line for a run."""
    parts = [f"step {max(int(curve.steps[-1]) for curve in curves.values())}"]
    if "train/loss" in curves:
        parts.append(f"loss {curves['train/loss'].values[-1]:.3f}")
    if "eval/mean_iou" in curves:
        steps, values = curves["eval/mean_iou"]
        best = int(np.argmax(values))
        parts.append(f"best mean IoU {100 * values[best]:.1f} % at step {steps[best]}")
    return f"{name}: {', '.join(parts)}"
