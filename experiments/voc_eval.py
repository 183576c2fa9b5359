"""Scores a trained network on a split at the images' own resolution.

    python -m experiments.voc_eval --checkpoint=DIR [--config=FILE] [--output=DIR] [--split=val] [--voc_root=DIR]

The data is that of the training run, unless --config (and with it --config.data.KEY=VALUE), --voc_root, --split or
--data_dir says otherwise; the network is the checkpoint's in any case. Prints a table and, as the last line of stdout,
one JSON object.

With --output also metrics.json, labels/NAME.png (label maps with VOC's palette, one an image) and panels/NAME.jpg
(image, truth, prediction and overlay; of the first --panels images).
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deconvnet_jax.data import Example, open_split
from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import confusion_matrix, scores_table, segmentation_scores
from deconvnet_jax.inference import Result, Segmenter
from deconvnet_jax.visualization import result_panel, save_label_png
from deconvnet_jax.weights import load_checkpoint
from experiments import cli, dataset
from experiments.output import output_folder


def define_flags() -> None:
    """The command line. Not on import: two programs with a flag of the same name could not be imported together."""
    config_flags.DEFINE_config_file("config", None, "a file in experiments/configs; default: the training run's data")
    flags.DEFINE_string("checkpoint", None, "folder of a training run, or its checkpoints folder")
    flags.DEFINE_integer("step", None, "which checkpoint; default: the one with the best evaluation", lower_bound=0)
    flags.DEFINE_string("output", None, "folder for metrics.json, label maps and panels")
    flags.DEFINE_string("split", None, "split to score; default: config.data.eval_split")
    flags.DEFINE_string("voc_root", None, "data in the VOC layout; default: config.data.voc_root")
    flags.DEFINE_string("data_dir", None, "where TFDS keeps its copy; default: config.data.data_dir")
    flags.DEFINE_integer("panels", 100, "how many images get a panel; -1: all", lower_bound=-1)
    flags.DEFINE_integer("batch_size", 8, "images a batch", lower_bound=1)
    flags.mark_flag_as_required("checkpoint")


def main(argv: Sequence[str]) -> None:
    """Runs one evaluation."""
    cli.no_arguments(argv)
    values = flags.FLAGS
    overrides = {"voc_root": values.voc_root, "eval_split": values.split, "data_dir": values.data_dir}
    scores = run(
        values.checkpoint,
        config=values.config,
        overrides={key: value for key, value in overrides.items() if value},
        step=values.step,
        output=values.output,
        panels=values.panels,
        batch_size=values.batch_size,
    )
    Console().print(scores_table(scores))
    print(json.dumps(scores, allow_nan=False))


def run(
    checkpoint: str | Path,
    *,
    config: ml_collections.ConfigDict | None = None,
    overrides: dict[str, str] | None = None,
    step: int | None = None,
    output: str | Path | None = None,
    panels: int = 100,
    batch_size: int = 8,
) -> dict[str, Any]:
    """Scores a checkpoint; arguments as the flags, `overrides` by their keys in `config.data`.

    Returns:
      `evaluation.segmentation_scores` with "step", "split", "images" and "seconds_per_image" (reading and predicting,
      without compilation).

    Raises:
      InputError: for a checkpoint, data or output folder that cannot be used, or classes that differ.
    """
    folder = None if output is None else output_folder(output)
    net, variables, info = load_checkpoint(checkpoint, step)
    config = dataset.resolve_data(dataset.data_config(config, info["config"], overrides or {}))
    check_classes(dataset.class_names(config), info["class_names"], dataset.described(config))
    split = open_split(dataset.open_dataset(config), config.data.eval_split)
    writer = ResultWriter(folder, info["class_names"], panels)
    matrix, seconds = score_split(Segmenter.from_loaded(net, variables, info), split, batch_size, writer)
    scores = segmentation_scores(matrix, info["class_names"])
    scores |= {
        "step": info["step"],
        "split": config.data.eval_split,
        "images": len(split),
        "seconds_per_image": seconds,
    }
    if folder:
        (folder / "metrics.json").write_text(json.dumps(scores, indent=2, allow_nan=False) + "\n")
    return scores


def check_classes(found: Sequence[str], trained: Sequence[str], where: str) -> None:
    """Raises InputError unless the data has the classes of the checkpoint, in the same order."""
    if list(found) == list(trained):
        return
    if len(found) != len(trained):
        what = f"{len(found)} classes, the checkpoint was trained on {len(trained)}"
    else:
        i = next(i for i, (ours, theirs) in enumerate(zip(found, trained, strict=True)) if ours != theirs)
        what = f"class {i} = '{found[i]}', which is '{trained[i]}' in the checkpoint"
    raise InputError(
        f"{where} has {what}; score it on its own data (--voc_root), or correct classes.txt there (VOC's 21 classes "
        "without that file)"
    )


class ResultWriter:
    """Writes label maps, and panels of the first `panels` images, below a folder; nothing if that is None."""

    def __init__(self, folder: Path | None, class_names: Sequence[str], panels: int):
        self._folder, self._class_names, self._panels_left = folder, class_names, panels

    def __call__(self, example: Example, result: Result) -> None:
        """Writes one image's."""
        if self._folder is None:
            return
        save_label_png(self._path("labels", f"{example.name}.png"), result.labels)
        if self._panels_left:
            self._panels_left -= 1
            panel = result_panel(example.image, result.labels, self._class_names, truth=example.label)
            Image.fromarray(panel).save(self._path("panels", f"{example.name}.jpg"), quality=92, subsampling=0)

    def _path(self, kind: str, name: str) -> Path:
        path = self._folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)  # names may have folders in them
        return path


def score_split(
    segmenter: Segmenter, split: Sequence[Example], batch_size: int, writer: ResultWriter
) -> tuple[np.ndarray, float]:
    """The confusion matrix of all images, int64 [K, K], and the seconds that each took."""
    num_classes = len(segmenter.class_names)
    matrix = np.zeros((num_classes, num_classes), np.int64)
    list(segmenter.segment([split[0].image], batch_size))  # compiles
    seconds = 0.0
    with _progress() as progress:
        task = progress.add_task("evaluating", total=len(split))
        began = time.perf_counter()
        for examples in _batches(split, batch_size):
            results = list(segmenter.segment([example.image for example in examples], batch_size))
            seconds += time.perf_counter() - began
            for example, result in zip(examples, results, strict=True):
                matrix += confusion_matrix(example.label, result.labels, num_classes)
                writer(example, result)
            progress.advance(task, len(examples))
            began = time.perf_counter()
    return matrix, seconds / len(split)


def _batches(split: Sequence[Example], batch_size: int) -> Iterator[list[Example]]:
    for start in range(0, len(split), batch_size):
        yield [split[i] for i in range(start, min(start + batch_size, len(split)))]


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    if not console.is_terminal:
        print("evaluating", file=sys.stderr)
    return Progress(*columns, console=console, disable=not console.is_terminal)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
