"""Trains and scores small networks that differ in one claim of the paper, each with several seeds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from deconvnet_jax.errors import InputError
from deconvnet_jax.evaluation import SIZES
from deconvnet_jax.files import whole_file, write_text
from deconvnet_jax.terminal import console

from ..common import dataset, evaluation
from ..common.training import run as train
from ..configs import demo

TRAIN_SCENES, VAL_SCENES = 500, 60
COUNTS = (1, 5, 10, 25, 50, 100)
DROPS = (0.75, 0.92)  # shares of the steps at which the learning rate is multiplied by 0.1
MEASURES = ("mean_iou", "boundary_f1", *(f"object_iou/{size}" for size in SIZES))

Settings = dict[str, Any]


class Training(NamedTuple):
    """Training of an experiment.

    Attributes:
      name: of its folder.
      settings: keys of the config that differ from the demo's, with their values.
      share: its number of steps, as a share of --steps.
      start: the training from whose last weights it starts; None starts from random weights.
    """

    name: str
    settings: Settings
    share: float = 1.0
    start: "Training | None" = None


class Row(NamedTuple):
    """Row of a results table: a training and one way of segmenting.

    Attributes:
      label: as the table shows it.
      training: whose network is scored.
      inference: keys of the config's section "inference" that differ from the training's.
    """

    label: str
    training: Training
    inference: Settings


OBJECTS = {"data.windows": ("instance",), "data.label_mode": "instance"}
WINDOWS = {"data.windows": ("proposal",)}
WHOLE = Training("whole_image", {})
STAGE1 = Training("stage1_half", OBJECTS, 0.5)
STAGE2 = Training("stage2_half", WINDOWS, 0.5, STAGE1)
CROPS = Training("proposals", WINDOWS)
PAPER = {"mode": "paper", "num_proposals": 50}

EXPERIMENTS: dict[str, list[Row]] = {
    "unpooling": [
        Row("to the maxima's places", WHOLE, {}),
        Row("to the corner of the window", Training("corner", {"model.unpooling": "corner"}), {}),
        Row("to the whole window", Training("nearest", {"model.unpooling": "nearest"}), {}),
    ],
    "batch_norm": [
        Row("with batch normalisation", WHOLE, {}),
        *(
            Row(
                f"without, learning rate {rate:g}",
                Training(f"no_bn_{rate:g}", {"model.batch_norm": False, "optimizer.learning_rate": rate}),
                {},
            )
            for rate in (0.05, 0.005)
        ),
    ],
    "stages": [
        Row("objects, then proposals", STAGE2, PAPER),
        Row("proposals alone", CROPS, PAPER),
        Row("objects alone", Training("objects", OBJECTS), PAPER),
    ],
    "proposals": [
        *(
            Row(f"{count}, {how}", CROPS, {**PAPER, "num_proposals": count, "aggregation": how})
            for how in ("max", "mean")
            for count in COUNTS
        ),
        Row("the same network, whole image", CROPS, {}),
        Row("trained on whole images, whole image", WHOLE, {}),
    ],
    "crf": [
        Row("50 proposals", CROPS, PAPER),
        Row("+ CRF as released", CROPS, {**PAPER, "crf": "released"}),
        Row("+ CRF with usual numbers", CROPS, {**PAPER, "crf": "usual", "crf_sharpness": 1.0}),
        Row("whole image", WHOLE, {}),
        Row("whole image + CRF as released", WHOLE, {"crf": "released"}),
        Row("whole image + CRF with usual numbers", WHOLE, {"crf": "usual"}),
    ],
}


def run_one(words: Sequence[str], workdir: Path, seeds: int, steps: int) -> None:
    """Runs the experiment that the command line names.

    Args:
      words: of the command line, without flags; the experiment's name.
      workdir: folder for data, trainings and results.
      seeds: number of seeds: 0, 1, ...
      steps: of a training with `share` 1.

    Raises:
      InputError: unless there is one word, and it names an experiment.
    """
    if len(words) != 1 or words[0] not in EXPERIMENTS:
        given = " ".join(words) or "nothing"
        raise InputError(f"expected the name of one experiment ({', '.join(EXPERIMENTS)}); got {given}")
    run(words[0], workdir.absolute(), seeds, steps)


def run(name: str, workdir: Path, seeds: int, steps: int) -> dict[str, list[dict[str, float | None]]]:
    """Trains and scores what is missing, writes the results and prints a table.

    Args:
      name: one of EXPERIMENTS.
      workdir: folder for data, trainings and results.
      seeds: number of seeds: 0, 1, ...
      steps: of a training with `share` 1.

    Returns:
      By the row's label, the measures of every seed (`scored`).
    """
    rows = EXPERIMENTS[name]
    prepare(workdir / "data")
    found = {row.label: [scored(row, workdir, seed, steps) for seed in range(seeds)] for row in rows}
    described = {"experiment": name, "steps": steps, "train_scenes": TRAIN_SCENES, "val_scenes": VAL_SCENES}
    write_text(workdir / f"{name}.json", json.dumps({**described, "rows": found}, indent=1) + "\n")
    with whole_file(workdir / f"{name}.png") as path:
        picture(name, found).savefig(path)
    console(width=150).print(results_table(name, found))
    print(workdir / f"{name}.json", workdir / f"{name}.png", sep="\n")
    return found


def prepare(folder: Path) -> None:
    """Draws the scenes and computes their proposals, unless the folder has them."""
    builder = dataset.prepare_scenes(folder, TRAIN_SCENES, VAL_SCENES, 0)
    for part in ("train", "val"):
        dataset.compute_packed_proposals(builder, part)


def scored(row: Row, workdir: Path, seed: int, steps: int) -> dict[str, float | None]:
    """Returns the measures of one row and seed, and keeps them in a file.

    Args:
      row: of the experiment.
      workdir: folder for data, trainings and results.
      seed: of the training.
      steps: of a training with `share` 1.

    Returns:
      MEASURES with values from 0 to 1; all are None if the training diverged.
    """
    folder = workdir / f"steps{steps}"
    ways = [f"{key}_{value}" for key, value in sorted(row.inference.items())] or ["whole_image"]
    path = folder / "scores" / f"{row.training.name}.seed{seed}.{'.'.join(ways)}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(_score(row, workdir / "data", folder, seed, steps)) + "\n")
    return json.loads(path.read_text())


def _score(row: Row, data: Path, folder: Path, seed: int, steps: int) -> dict[str, float | None]:
    trained = _trained(row.training, data, folder, seed, steps)
    if trained is None:
        return dict.fromkeys(MEASURES)
    inference = dict(row.inference)
    if inference.get("mode") == "paper":
        inference["proposals"] = str(dataset.proposals_file(_builder(data), "val"))
    scores = evaluation.run(trained, changes={f"inference.{key}": value for key, value in inference.items()})
    jax.clear_caches()  # Programs of dozens of networks would use up the process's memory mappings.
    flat = {**scores, **{f"object_iou/{size}": iou for size, iou in scores["object_iou"].items()}}
    return {measure: flat[measure] for measure in MEASURES}


def _trained(training: Training, data: Path, folder: Path, seed: int, steps: int) -> Path | None:
    """Returns the folder of a training, which is run unless it was run before; None if it diverged."""
    workdir, diverged = (folder / "runs" / f"{training.name}.seed{seed}{end}" for end in ("", ".diverged"))
    if diverged.exists():
        return None
    config = config_of(training, data, seed, steps)
    if (workdir / "checkpoints" / str(config.num_steps)).is_dir():
        return workdir
    if training.start is not None:
        start = _trained(training.start, data, folder, seed, steps)
        if start is None:
            return None
        config.init_from = str(start)
    try:
        train(config, str(workdir))
    except InputError as error:
        if "training diverged" not in str(error):
            raise
        write_text(diverged, f"{error}\n")
        return None
    finally:
        jax.clear_caches()
    return workdir


def config_of(training: Training, data: Path, seed: int, steps: int) -> ml_collections.ConfigDict:
    """Returns the demo's config with a training's settings.

    Args:
      training: whose settings are applied.
      data: folder with the scenes and their packed form.
      seed: of the training.
      steps: of a training with `share` 1.
    """
    config = demo.get_config()
    total = max(2, round(training.share * steps))
    config.update_from_flattened_dict(training.settings)
    config.update_from_flattened_dict(
        {
            "seed": seed,
            "num_steps": total,
            "eval_every": 0,
            "checkpoint_every": total,
            "optimizer.drops": tuple(round(drop * total) for drop in DROPS),
            "data.voc_root": str(data / "scenes"),
            "data.data_dir": str(data / "tfds"),
        }
    )
    return config


def _builder(data: Path) -> Any:
    return dataset.packed_folder(data / "scenes", data / "tfds")


def spread(values: Sequence[float | None]) -> str:
    """Returns mean and range of scores from 0 to 1 as text in percent; None stands for a seed that diverged."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "diverged"
    lost = f"; {len(values) - len(known)} of {len(values)} diverged" if len(known) < len(values) else ""
    return f"{np.mean(known):.1f} ({min(known):.1f} to {max(known):.1f}){lost}"


def results_table(name: str, found: dict[str, list[dict[str, float | None]]]) -> Table:
    """Returns a table of mean and range of every measure over the seeds.

    Args:
      name: of the experiment.
      found: the result of `run`.
    """
    headings = ("mean IoU %", "boundary F1 %", *(f"{size} objects, IoU %" for size in SIZES))
    table = Table(name, *headings)
    for label, seeds in found.items():
        table.add_row(label, *(spread([scores[measure] for scores in seeds]) for measure in MEASURES))
    return table


def picture(name: str, found: dict[str, list[dict[str, float | None]]]) -> Figure:
    """Returns a picture of every row's mean IoU: a point for each seed, and their mean.

    Args:
      name: of the experiment.
      found: the result of `run`.
    """
    figure = Figure(figsize=(9, 0.9 + 0.42 * len(found)), dpi=100, layout="constrained")
    axes = figure.subplots()
    for i, (label, seeds) in enumerate(found.items()):
        known = [100 * scores["mean_iou"] for scores in seeds if scores["mean_iou"] is not None]
        axes.plot(known, [i] * len(known), "o", color="#0072B2", alpha=0.6)
        if known:
            axes.plot(np.mean(known), i, "|", color="#D55E00", markersize=18, markeredgewidth=2.5)
        else:
            axes.text(0.02, i, f"{label}: diverged", va="center", transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(found)), found)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("mean IoU, %: points are seeds, the bar is their mean")
    axes.set_title(name, loc="left", fontsize=12)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
