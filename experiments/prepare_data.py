"""Prepares a data set for training.

    python -m experiments.prepare_data --dataset=scenes --data_dir=DIR
    python -m experiments.prepare_data --dataset=voc_layout --voc_root=VOCdevkit/VOC2012 --data_dir=DIR

"scenes" draws the embedded data set into DIR/scenes; "voc_layout" takes any folder in the VOC layout. Both are checked
and packed with TFDS: the scenes under DIR/tfds, other data under DIR. What is already there is used again.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from deconvnet_jax.data import class_names, prepare_voc_layout, write_scenes
from deconvnet_jax.errors import InputError
from experiments import cli

DATASETS = ("scenes", "voc_layout")

_DATASET = flags.DEFINE_string("dataset", None, " or ".join(DATASETS))
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder that gets the data")
_VOC_ROOT = flags.DEFINE_string("voc_root", None, "voc_layout: folder with JPEGImages, SegmentationClass, ImageSets")
_SEED = flags.DEFINE_integer("seed", 0, "scenes: decides what is drawn")
_TRAIN = flags.DEFINE_integer("train_scenes", 200, "scenes: number for training")
_VAL = flags.DEFINE_integer("val_scenes", 40, "scenes: number for evaluation")
flags.mark_flags_as_required(["dataset", "data_dir"])


def main(argv: Sequence[str]) -> None:
    """Prepares one data set."""
    cli.no_arguments(argv)
    data_dir = Path(_DATA_DIR.value).expanduser().absolute()
    if _DATASET.value == "scenes":
        prepare_scenes(data_dir, _TRAIN.value, _VAL.value, _SEED.value)
    elif _DATASET.value == "voc_layout":
        if not _VOC_ROOT.value:
            raise InputError("--dataset=voc_layout needs --voc_root=FOLDER, with JPEGImages and SegmentationClass")
        pack(Path(_VOC_ROOT.value).expanduser().absolute(), data_dir)
    else:
        raise InputError(f"--dataset={_DATASET.value}: unknown; expected {' or '.join(DATASETS)}")


def prepare_scenes(data_dir: Path, train: int, val: int, seed: int) -> None:
    """Draws the scenes into data_dir/scenes and packs them under data_dir/tfds."""
    with _Bar("drawing scenes") as bar:
        write_scenes(data_dir / "scenes", train, val, seed, bar.update)
    pack(data_dir / "scenes", data_dir / "tfds")


def pack(voc_root: Path, data_dir: Path) -> None:
    """Checks and packs a folder in the VOC layout; the last line on stdout says what was made and where."""
    with _Bar("checking and packing") as bar:
        builder = prepare_voc_layout(voc_root, data_dir, bar.update)
    counts = ", ".join(f"{split} {info.num_examples}" for split, info in sorted(builder.info.splits.items()))
    print(f"{voc_root}: {len(class_names(voc_root))} classes, images: {counts}; packed in {builder.data_dir}")


class _Bar:
    """A progress bar on stderr that appears with the first update."""

    def __init__(self, text: str):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(text, total=None)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar.live.is_started:  # otherwise stopping would write an empty line
            self._bar.stop()

    def update(self, done: int, total: int) -> None:
        """Shows `done` of `total`."""
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total)


if __name__ == "__main__":
    cli.run(main)
