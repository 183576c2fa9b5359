"""Prepares a data set for training.

    python -m experiments.prepare_data --dataset=scenes --data_dir=DIR
    python -m experiments.prepare_data --dataset=voc_layout --voc_root=VOCdevkit/VOC2012 --data_dir=DIR

"scenes" draws the embedded data set into DIR/scenes; "voc_layout" takes any folder in the VOC layout. Both are checked
and packed with TFDS: the scenes under DIR/tfds, other data under DIR. What is already there is used again.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from deconvnet_jax.data import class_names, write_scenes
from deconvnet_jax.errors import InputError
from experiments import cli, dataset

DATASETS = ("scenes", "voc_layout")
TRAIN_SCENES, VAL_SCENES = 500, 40


def define_flags() -> None:
    """The command line. Not on import: two programs with a flag of the same name could not be imported together."""
    flags.DEFINE_string("dataset", None, " or ".join(DATASETS))
    flags.DEFINE_string("data_dir", None, "folder that gets the data")
    flags.DEFINE_string("voc_root", None, "voc_layout: folder with JPEGImages, SegmentationClass, ImageSets")
    flags.DEFINE_integer("seed", 0, "scenes: decides what is drawn")
    flags.DEFINE_integer("train_scenes", TRAIN_SCENES, "scenes: number for training")
    flags.DEFINE_integer("val_scenes", VAL_SCENES, "scenes: number for evaluation")
    flags.mark_flags_as_required(["dataset", "data_dir"])


def main(argv: Sequence[str]) -> None:
    """Prepares one data set."""
    cli.no_arguments(argv)
    values = flags.FLAGS
    data_dir = Path(values.data_dir).expanduser().absolute()
    if values.dataset == "scenes":
        prepare_scenes(data_dir, values.train_scenes, values.val_scenes, values.seed)
    elif values.dataset == "voc_layout":
        if not values.voc_root:
            raise InputError("--dataset=voc_layout needs --voc_root=FOLDER, with JPEGImages and SegmentationClass")
        pack(Path(values.voc_root).expanduser().absolute(), data_dir)
    else:
        raise InputError(f"--dataset={values.dataset}: unknown; expected {' or '.join(DATASETS)}")


def prepare_scenes(data_dir: Path, train: int, val: int, seed: int) -> None:
    """Draws the scenes into data_dir/scenes and packs them under data_dir/tfds."""
    with cli.ProgressBar("drawing scenes") as bar:
        write_scenes(data_dir / "scenes", train, val, seed, bar.update)
    pack(data_dir / "scenes", data_dir / "tfds")


def pack(voc_root: Path, data_dir: Path) -> None:
    """Checks and packs a folder in the VOC layout; the last line on stdout says what was made and where."""
    builder = dataset.packed_folder(voc_root, data_dir)
    counts = ", ".join(f"{split} {info.num_examples}" for split, info in sorted(builder.info.splits.items()))
    print(f"{voc_root}: {len(class_names(voc_root))} classes, images: {counts}; packed in {builder.data_dir}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
