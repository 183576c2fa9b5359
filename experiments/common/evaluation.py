"""Scores networks during training and from checkpoints. Images are divided over processes and devices."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from deconvnet_jax.data import (
    VOC_CLASSES,
    DatasetSplit,
    Example,
    Photograph,
    UnlabelledSplit,
    has_no_masks,
    open_split,
    split_counts,
)
from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import Tally, confusion_matrix, scores_table, segmentation_scores, submission_folder
from deconvnet_jax.files import user_path, whole_file, write_text
from deconvnet_jax.images import Examples, save_picture
from deconvnet_jax.inference import InferenceSettings, Result, Segmenter, mode_of, settings_from
from deconvnet_jax.models import Network, Variables
from deconvnet_jax.processes import first_process_first, sum_over_processes
from deconvnet_jax.terminal import ProgressBar, console
from deconvnet_jax.training import Evaluation
from deconvnet_jax.visualization import confusion_picture, result_panel, save_label_png
from deconvnet_jax.weights import load_checkpoint

from ..configs import settings
from . import dataset, segmenting
from .checks import training_split, warn_of_common_images
from .output import claim_output, output_folder

PICTURES = 4  # number of panels per evaluation during training


def evaluator(
    net: Network, class_names: Sequence[str], source: Examples, config: ml_collections.ConfigDict
) -> Callable[[Variables], Evaluation]:
    """Returns a function that scores variables of a network on the first images of a split, at their own resolution.

    Images are segmented as `config.inference` says, without CRF and second network. Modes that need proposals are
    replaced by "whole_image". With several processes, each segments its share.

    Args:
      net: The network.
      class_names: Names of the classes in the order of their ids.
      source: Labelled images of the evaluation split. The first `config.eval_images` are used; 0: all.
      config: The checked config of the training.

    Returns:
      A function from variables to an `Evaluation`: mean IoU, pixel accuracy, IoU per class, and `PICTURES` panels.
    """
    count, chosen = _evaluated(config, source), _settings(config, net)

    def evaluate(variables: Variables) -> Evaluation:
        segmenter = Segmenter(net, variables, tuple(class_names), config.data.crop_size, chosen)
        matrix = np.zeros((len(class_names), len(class_names)), np.int64)
        pictures = {}
        share = range(jax.process_index(), count, jax.process_count())
        for i, example, result in segmenting.results(segmenter, source, share):
            assert example.label is not None  # The split has masks.
            matrix += confusion_matrix(example.label, result.labels, len(class_names))
            if len(pictures) < PICTURES:
                pictures[f"image{i}"] = result_panel(example.image, result.labels, class_names, truth=example.label)
        scores = segmentation_scores(sum_over_processes(matrix), class_names)
        found = {name: scores[name] for name in ("mean_iou", "pixel_accuracy")}
        found |= {f"iou/{name}": np.nan if iou is None else iou for name, iou in scores["iou_per_class"].items()}
        return Evaluation(found, pictures)

    return evaluate


def _settings(config: ml_collections.ConfigDict, net: Network) -> InferenceSettings:
    chosen = settings_from(config.inference.to_dict()).changed(crf="none", ensemble_checkpoint="")
    if chosen.uses_proposals:
        chosen = InferenceSettings(mode="whole_image")
    if mode_of(net, chosen.mode).one_window:
        return chosen.changed(batch_size=1)  # One whole image at a time leaves memory for the training step.
    return chosen


def _evaluated(config: ml_collections.ConfigDict, source: Examples) -> int:
    return min(config.eval_images or len(source), len(source)) if config.eval_every else 0


def run(
    checkpoint: str | Path,
    *,
    config: ml_collections.ConfigDict | None = None,
    changes: dict[str, Any] | None = None,
    overrides: dict[str, str] | None = None,
    step: int | None = None,
    averages: bool = True,
    output: str | Path | None = None,
    panels: int = 100,
    palette: str = "voc",
    names: bool = True,
) -> dict[str, Any]:
    """Scores a checkpoint.

    Args:
      checkpoint: Folder of a training run, of its checkpoints or of imported weights.
      config: Config that names the data and says how to segment; None: that of the training run.
      changes: Settings of the training run's config to change, such as {"inference.mode": "paper"}.
      overrides: Keys of the section `data` to change, in whichever config is used.
      step: Step of the checkpoint; None: the step with the best evaluation.
      averages: Whether to use the averaged weights, if the run has kept them (`config.ema_decay`).
      output: Folder for metrics.json, label maps and panels; None: nothing is written.
      panels: Number of images that get a panel; -1: all.
      palette: Colours of the classes in the panels, "voc" or "colour_blind".
      names: Write the names of the classes into the panels.

    Returns:
      The scores of `evaluation.Tally.scores` (left out for a split without masks), with "step", "split", "images" and
      "seconds_per_image" (reading and predicting in this process, without compilation).

    Raises:
      InputError: for a checkpoint, settings, data or output folder that cannot be used, or if the data has other
        classes than the checkpoint.
    """
    folder = None if output is None else output_folder(output)
    loaded = load_checkpoint(checkpoint, step, averages)
    info = loaded[2]
    segmenter = segmenting.segmenter_of(loaded, config, changes or {})
    config = dataset.data_config(config, info["config"], overrides or {}, changes)
    split, where = open_images(config, info)
    name = config.data.eval_split
    if folder:
        described = {
            "checkpoint": str(user_path(checkpoint, "--checkpoint", in_bucket=True).absolute()),
            "step": info["step"],
            "data": where,
            "split": name,
            "inference": {key: value for key, value in asdict(segmenter.settings).items() if key != "batch_size"},
            "averages": averages,
        }
        first_process_first(lambda: claim_output(folder, described))
    drawing = {"names": names, "palette": palette}
    writer = ResultWriter(folder, segmenter.class_names, panels, name, **drawing) if folder else None
    tally, seconds = score_split(segmenter, split, writer)
    labelled = not isinstance(split, UnlabelledSplit)
    tally = tally.summed(sum_over_processes)
    scores = tally.scores(info["class_names"]) if labelled else {}
    scores |= {"step": info["step"], "split": name, "images": len(split), "seconds_per_image": seconds}
    if folder and jax.process_index() == 0:
        write_text(folder / "metrics.json", json.dumps(scores, indent=2, allow_nan=False) + "\n")
        if labelled:
            with whole_file(folder / "confusion.png") as path:
                confusion_picture(tally.matrix, info["class_names"]).savefig(path)
    return scores


def show(scores: dict[str, Any]) -> None:
    """Prints scores as one JSON object, after a table if the split has masks; only in the first process."""
    if jax.process_index() > 0:
        return
    if "mean_iou" in scores:
        console().print(scores_table(scores))
    print(json.dumps(scores, allow_nan=False))


def open_images(config: ml_collections.ConfigDict, info: dict[str, Any]) -> tuple[DatasetSplit | UnlabelledSplit, str]:
    """Opens the evaluation split of a config. Warns if the network was trained on some of its images.

    Args:
      config: Config that names the data.
      info: Description of the checkpoint, from `weights.load_checkpoint`.

    Returns:
      The images, and the data's name for messages. A split without masks becomes an `UnlabelledSplit`.

    Raises:
      InputError: for data that cannot be used, or that has other classes than the checkpoint.
    """
    config = settings.checked(config)
    dataset.check_named(config)
    split = config.data.eval_split
    if config.data.voc_root and has_no_masks(config.data.voc_root, split):
        root = user_path(config.data.voc_root, "config.data.voc_root").absolute()
        return UnlabelledSplit(root, split), str(root)
    config = dataset.resolve_data(config)
    where = dataset.described(config)
    check_classes(dataset.class_names(config), info["class_names"], where)
    builder = dataset.open_dataset(config)
    images, trained = open_split(builder, split), training_split(info["config"], config)
    if trained in split_counts(builder):
        source = open_split(builder, trained)
        warn_of_common_images(source, range(len(source)), images, trained, split)
    return images, where


def check_classes(found: Sequence[str], trained: Sequence[str], where: str) -> None:
    """Checks that data has the classes of a checkpoint, in the same order.

    Args:
      found: Class names of the data.
      trained: Class names of the checkpoint.
      where: Name of the data for the message.

    Raises:
      InputError: for another number of classes, or the first class that differs.
    """
    if list(found) == list(trained):
        return
    if len(found) != len(trained):
        what = f"{len(found)} classes, the checkpoint was trained on {len(trained)}"
    else:
        i = next(i for i, (ours, theirs) in enumerate(zip(found, trained, strict=True)) if ours != theirs)
        what = f"class {i} = '{found[i]}', which is '{trained[i]}' in the checkpoint"
    raise InputError(
        f"{where} has {what}; give the checkpoint's data with --voc_root, or correct classes.txt (without it the "
        "classes are VOC's 21)"
    )


class ResultWriter:
    """Writer of label maps, and of panels of the first images of a split, into a folder."""

    def __init__(self, folder: Path, class_names: Sequence[str], panels: int, split: str, **drawing: Any):
        """Chooses the folders. VOC's classes go where the challenge's server expects label maps, others to labels/.

        Args:
          folder: Folder for the results.
          class_names: Names of the classes in the order of their ids.
          panels: Number of images that get a panel; -1: all.
          split: Name of the split, part of the folder's name for VOC's classes.
          drawing: Names and palette of `result_panel`.
        """
        self._folder, self._class_names, self._panels, self._drawing = folder, class_names, panels, drawing
        self._labels = submission_folder(split) if tuple(class_names) == VOC_CLASSES else Path("labels")

    def __call__(self, index: int, example: Example | Photograph, result: Result) -> None:
        """Writes the label map of one image, and its panel if it is one of the first `panels`.

        Args:
          index: Number of the image in its split, from 0.
          example: The image, with its mask if it has one.
          result: What the network found.
        """
        save_label_png(self._path(self._labels, f"{example.name}.png"), result.labels)
        if index < self._panels or self._panels < 0:
            panel = result_panel(example.image, result.labels, self._class_names, example.label, **self._drawing)
            path = self._path(Path("panels"), f"{example.name}.jpg")
            save_picture(path, panel)

    def _path(self, kind: Path, name: str) -> Path:
        path = self._folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)  # A name may contain folders.
        return path


def score_split(
    segmenter: Segmenter, split: DatasetSplit | UnlabelledSplit, writer: ResultWriter | None
) -> tuple[Tally, float]:
    """Segments and scores this process's share of the images, with a progress bar in the first process.

    Args:
      segmenter: The Segmenter.
      split: The images. Those without masks are segmented only.
      writer: Writes the results; None: nothing is written.

    Returns:
      The tally of this process, and the seconds per image, without compilation. A process without images returns 0.0.
    """
    tally = Tally(len(segmenter.class_names))
    share = range(jax.process_index(), len(split), jax.process_count())
    if not share:
        return tally, 0.0
    for _ in _results(segmenter, split, share[: segmenter.group_size]):  # The first images compile the network.
        pass
    seconds = 0.0
    with ProgressBar("evaluating", shown=jax.process_index() == 0) as bar:
        began = time.perf_counter()
        for done, (index, example, result) in enumerate(_results(segmenter, split, share), 1):
            seconds += time.perf_counter() - began
            if example.label is not None:
                tally.add(example.label, result.labels, example.instances)
            if writer:
                writer(index, example, result)
            bar.update(done, len(share))
            began = time.perf_counter()
    return tally, seconds / len(share)


def _results(
    segmenter: Segmenter, split: DatasetSplit | UnlabelledSplit, share: range
) -> Iterator[tuple[int, Example | Photograph, Result]]:
    """Yields numbers, examples and results of some images; proposals come from a file if the settings name one."""
    names, sizes = [split.name(i) for i in share], [split.size(i) for i in share]
    boxes = segmenting.boxes_from_file(segmenter.settings, names, sizes)
    return segmenting.results(segmenter, split, share, boxes)
