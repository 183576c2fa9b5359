"""Scores of a network, while it trains and from its checkpoint; images are divided over processes and devices."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from rich.console import Console

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
from deconvnet_jax.training import Evaluation
from deconvnet_jax.visualization import confusion_picture, result_panel, save_label_png
from deconvnet_jax.weights import load_checkpoint

from ..configs import settings
from . import cli, dataset, segmenting
from .checks import training_split, warn_of_common_images
from .output import claim_output, output_folder

PICTURES = 4  # images that every evaluation draws


def evaluator(
    net: Network, class_names: Sequence[str], source: Examples, config: ml_collections.ConfigDict
) -> Callable[[Variables], Evaluation]:
    """Scores a network on (the first `eval_images` of) a split at the images' own resolution, with pictures.

    Images are segmented as the config says if that needs no proposals, else whole; without CRF and partner.
    """
    count, chosen = _evaluated(config, source), _settings(config, net)

    def evaluate(variables: Variables) -> Evaluation:
        segmenter = Segmenter(net, variables, tuple(class_names), config.data.crop_size, chosen)
        matrix = np.zeros((len(class_names), len(class_names)), np.int64)
        pictures = {}
        share = range(jax.process_index(), count, jax.process_count())
        for i, example, result in segmenting.results(segmenter, source, share):
            assert example.label is not None  # of a labelled split
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
        return chosen.changed(batch_size=1)  # a whole image each: memory is for the training step
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
    output: str | Path | None = None,
    panels: int = 100,
) -> dict[str, Any]:
    """Scores a checkpoint.

    Args:
      checkpoint: folder of a training run, of its checkpoints or of an import.
      config: whose data and way of segmenting count instead of the training run's.
      changes: keys of the training run's config with other values, e.g. {"inference.mode": "paper"}.
      overrides: keys of the section "data" with other values, whichever config counts.
      step: of the checkpoint; default: the one with the best evaluation.
      output: folder for metrics.json, label maps and panels; None: nothing is written.
      panels: images that get a panel; -1: all.

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
        described = {
            "checkpoint": str(user_path(checkpoint, "--checkpoint", in_bucket=True).absolute()),
            "step": info["step"],
            "data": where,
            "split": name,
            "inference": {key: value for key, value in asdict(segmenter.settings).items() if key != "batch_size"},
        }
        first_process_first(lambda: claim_output(folder, described))
    writer = ResultWriter(folder, segmenter.class_names, panels, name) if folder else None
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
    """Prints the scores as a table, if the split has masks, and as one JSON object; only in the first process."""
    if jax.process_index() > 0:
        return
    if "mean_iou" in scores:
        Console().print(scores_table(scores))
    print(json.dumps(scores, allow_nan=False))


def open_images(config: ml_collections.ConfigDict, info: dict[str, Any]) -> tuple[DatasetSplit | UnlabelledSplit, str]:
    """The images of the config's evaluation split, and the data's name; warns of those that were trained on.

    Args:
      config: that names the data.
      info: description of the checkpoint.

    Raises:
      InputError: for data that cannot be used, or has other classes than the checkpoint.
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
    """Writes label maps, and panels of the first `panels` images, below a folder."""

    def __init__(self, folder: Path, class_names: Sequence[str], panels: int, split: str):
        self._folder, self._class_names, self._panels = folder, class_names, panels
        self._labels = submission_folder(split) if tuple(class_names) == VOC_CLASSES else Path("labels")

    def __call__(self, index: int, example: Example | Photograph, result: Result) -> None:
        """Writes those of image number `index`."""
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
    segmenter: Segmenter, split: DatasetSplit | UnlabelledSplit, writer: ResultWriter | None
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
    with cli.ProgressBar("evaluating", shown=jax.process_index() == 0) as bar:
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
    """Numbers, examples and results of some images, as they are segmented."""
    names, sizes = [split.name(i) for i in share], [split.size(i) for i in share]
    boxes = segmenting.boxes_from_file(segmenter.settings, names, sizes)
    return segmenting.results(segmenter, split, share, boxes)
