"""Scores a trained network on a split at the images' own resolution.

    python -m experiments.voc_eval --checkpoint=DIR [--config=FILE] [--config.KEY=VALUE ...] [--output=DIR]
        [--split=val] [--voc_root=DIR]

The data and the way of segmenting (--config.inference.mode, .num_proposals, .crf, .ensemble_checkpoint, ...) are those
of the training run, unless flags say otherwise; the network is the checkpoint's in any case. Prints a table and, as the
last line of stdout, one JSON object. Started in several processes (experiments/hosts.py), each segments its share of
the images, and the first one prints the scores of all.

With --output also metrics.json, confusion.png (which class was taken for which), label maps with VOC's palette, one an
image (of VOC's classes in the folders that the challenge's server expects,
results/VOC2012/Segmentation/comp6_SPLIT_cls/NAME.png, of others in labels/NAME.png), and panels/NAME.jpg (image, truth,
prediction and overlay; of the first --panels images). A split without masks, like VOC's test, is segmented but not
scored. A folder with the results of another evaluation is refused.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import flags
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deconvnet_jax.data import (
    VOC_CLASSES,
    DatasetSplit,
    Example,
    UnlabelledSplit,
    has_no_masks,
    open_split,
    split_counts,
)
from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import Tally, scores_table, submission_folder
from deconvnet_jax.files import user_path, whole_file, write_text
from deconvnet_jax.images import save_picture
from deconvnet_jax.inference import Result, Segmenter
from deconvnet_jax.visualization import confusion_picture, result_panel, save_label_png
from deconvnet_jax.weights import load_checkpoint
from experiments import cli, dataset, hosts, overlap, segmenting
from experiments.output import claim_output, output_folder


def define_flags() -> None:
    """The command line. Not on import: two programs with a flag of the same name could not be imported together."""
    cli.define_config("a file in experiments/configs; default: the training run's", cli.EVERY_SETTING)
    cli.define_path("checkpoint", None, "folder of a training run, or its checkpoints folder", in_bucket=True)
    flags.DEFINE_integer("step", None, "which checkpoint; default: the one with the best evaluation", lower_bound=0)
    cli.define_path("output", None, "folder for metrics.json, label maps and panels", in_bucket=True)
    flags.DEFINE_string("split", None, "split to score; default: config.data.eval_split")
    cli.define_path("voc_root", None, "data in the VOC layout; default: config.data.voc_root")
    cli.define_path("data_dir", None, "where TFDS keeps its copy; default: config.data.data_dir", in_bucket=True)
    flags.DEFINE_integer("panels", 100, "how many images get a panel; -1: all", lower_bound=-1)
    hosts.define_flags()
    flags.mark_flag_as_required("checkpoint")


def main(argv: Sequence[str]) -> None:
    """Runs one evaluation."""
    cli.no_arguments(argv)
    values = flags.FLAGS
    hosts.initialize(values)
    config, changes = cli.given_config(values)
    overrides = {"voc_root": values.voc_root, "eval_split": values.split, "data_dir": values.data_dir}
    scores = run(
        values.checkpoint,
        config=config,
        changes=changes,
        overrides={key: str(value) for key, value in overrides.items() if value},
        step=values.step,
        output=values.output,
        panels=values.panels,
    )
    if jax.process_index() > 0:
        return
    if "mean_iou" in scores:
        Console().print(scores_table(scores))
    print(json.dumps(scores, allow_nan=False))


def run(
    checkpoint: str | Path,
    *,
    config: ml_collections.ConfigDict | None = None,
    changes: dict[str, Any] | None = None,
    overrides: dict[str, str] | None = None,
    step: int | None = None,
    output: str | Path | None = None,
    panels: int = 100,
) -> dict[str, Any]:
    """Scores a checkpoint.

    Args:
      checkpoint: as the flag.
      config: whose data and way of segmenting count instead of the training run's.
      changes: keys of the training run's config with other values, e.g. {"inference.mode": "paper"}.
      overrides: keys of the section "data" with other values, whichever config counts.
      step: as the flag.
      output: as the flag.
      panels: as the flag.

    Returns:
      `evaluation.Tally.scores` (not of a split without masks) with "step", "split", "images" and
      "seconds_per_image" (reading and predicting in each process, without compilation).

    Raises:
      InputError: for a checkpoint, settings, data or an output folder that cannot be used, or classes that differ.
    """
    folder = None if output is None else output_folder(output)
    loaded = load_checkpoint(checkpoint, step)
    info = loaded[2]
    segmenter = segmenting.segmenter_of(loaded, config, changes or {})
    config = dataset.data_config(config, info["config"], overrides or {}, changes)
    split, where = open_images(config, info)
    name = config.data.eval_split
    if folder:
        settings = {key: value for key, value in asdict(segmenter.settings).items() if key != "batch_size"}
        described = {
            "checkpoint": str(user_path(checkpoint, "--checkpoint", in_bucket=True).absolute()),
            "step": info["step"],
        }
        described |= {"data": where, "split": name, "inference": settings}
        hosts.first_process_first(lambda: claim_output(folder, described))
    writer = ResultWriter(folder, segmenter.class_names, panels, name)
    tally, seconds = score_split(segmenter, split, writer)
    labelled = not isinstance(split, UnlabelledSplit)
    tally = tally.summed(hosts.sum_over_processes)
    scores = tally.scores(info["class_names"]) if labelled else {}
    scores |= {"step": info["step"], "split": name, "images": len(split), "seconds_per_image": seconds}
    if folder and jax.process_index() == 0:
        write_text(folder / "metrics.json", json.dumps(scores, indent=2, allow_nan=False) + "\n")
        if labelled:
            with whole_file(folder / "confusion.png") as path:
                confusion_picture(tally.matrix, info["class_names"]).savefig(path)
    return scores


def open_images(config: ml_collections.ConfigDict, info: dict[str, Any]) -> tuple[DatasetSplit | UnlabelledSplit, str]:
    """The images of the config's evaluation split, and the data's name; warns of those that were trained on.

    Args:
      config: that names the data.
      info: description of the checkpoint.

    Raises:
      InputError: for data that cannot be used, or has other classes than the checkpoint.
    """
    dataset.check_dataset(config)
    split = config.data.eval_split
    if config.data.voc_root and has_no_masks(config.data.voc_root, split):
        root = user_path(config.data.voc_root, "config.data.voc_root").absolute()
        return UnlabelledSplit(root, split), str(root)
    config = dataset.resolve_data(config)
    where = dataset.described(config)
    check_classes(dataset.class_names(config), info["class_names"], where)
    builder = hosts.first_process_first(lambda: dataset.open_dataset(config))
    images, trained = open_split(builder, split), overlap.training_split(info["config"], config)
    if trained in split_counts(builder):
        source = open_split(builder, trained)
        overlap.warn_of_common_images(source, range(len(source)), images, trained, split)
    return images, where


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

    def __init__(self, folder: Path | None, class_names: Sequence[str], panels: int, split: str):
        self._folder, self._class_names, self._panels = folder, class_names, panels
        self._labels = submission_folder(split) if tuple(class_names) == VOC_CLASSES else Path("labels")

    def __call__(self, index: int, example: Example, result: Result) -> None:
        """Writes those of image number `index`."""
        if self._folder is None:
            return
        save_label_png(self._path(self._labels, f"{example.name}.png"), result.labels)
        if index < self._panels or self._panels < 0:
            panel = result_panel(example.image, result.labels, self._class_names, truth=example.label)
            path = self._path(Path("panels"), f"{example.name}.jpg")
            save_picture(path, panel)

    def _path(self, kind: Path, name: str) -> Path:
        path = self._folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)  # names may have folders in them
        return path


def score_split(
    segmenter: Segmenter, split: DatasetSplit | UnlabelledSplit, writer: ResultWriter
) -> tuple[Tally, float]:
    """Segments this process's share of the images.

    Returns:
      What is counted of them, and the seconds that each took.
    """
    tally = Tally(len(segmenter.class_names))
    share = range(jax.process_index(), len(split), jax.process_count())
    if not share:
        return tally, 0.0
    for _ in _results(segmenter, split, share[: segmenter.group_size]):  # compiles
        pass
    seconds = 0.0
    with _progress() as progress:
        task = progress.add_task("evaluating", total=len(share))
        began = time.perf_counter()
        for index, example, result in _results(segmenter, split, share):
            seconds += time.perf_counter() - began
            if example.label is not None:
                tally.add(example.label, result.labels, example.instances)
            writer(index, example, result)
            progress.advance(task)
            began = time.perf_counter()
    return tally, seconds / len(share)


def _results(
    segmenter: Segmenter, split: DatasetSplit | UnlabelledSplit, share: range
) -> Iterator[tuple[int, Example, Result]]:
    """Numbers, examples and results of some images, as they are segmented."""
    names, sizes = (list(map(of, share)) for of in (split.name, split.size))
    boxes = segmenting.boxes_from_file(segmenter.settings, names, sizes)
    return segmenting.results(segmenter, split, share, boxes)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    if not console.is_terminal:
        hosts.say("evaluating")
    return Progress(*columns, console=console, disable=not console.is_terminal or jax.process_index() > 0)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
