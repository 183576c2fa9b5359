"""Measures speed, quality and exactness of parts of the project, each next to an alternative on the same machine.

Usage:
    python -m experiments.benchmark NAME [FLAG ...]

Examples:
    python -m experiments.benchmark environment
    python -m experiments.benchmark train --width=0.25 --quick --json=train.json
    python -m experiments.benchmark proposals --voc_root=runs/demo/data/scenes --split=val

NAME is one of:
    environment  device, driver and versions of the installed packages
    input        training crops per second, next to PyTorch's DataLoader with OpenCV
    proposals    recall and time of every method of object proposals, on the objects of a data set
    train        training steps of the full network, next to the same network in PyTorch
    repeat       whether two runs of the same training are equal bit for bit
    forward      forward pass of the network, next to PyTorch
    unpool       max pooling with indices and unpooling, next to PyTorch and to the general form
    infer        seconds from a photograph to its label map, next to the same steps in PyTorch and OpenCV
    crf          the dense CRF, next to pydensecrf2
    growth       training steps as batch size, image size and number of devices grow, with a picture
    scaling      time that more accelerators would lose to all-reduces: computed from compiled programs, not measured
    all          all of the above, each in a separate process; `proposals` only with --voc_root

Tables go to stderr. The last line of stdout is one JSON object with all numbers. Every benchmark is a file in
experiments/benchmarks, whose docstring says how it measures.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("json", None, "File for the numbers, as one JSON object. Default: they are only printed.")
    cli.define_path(
        "voc_root",
        None,
        "For proposals (required) and crf: folder with JPEGImages, SegmentationClass and ImageSets. Default: crf "
        "takes drawn images.",
    )
    flags.DEFINE_string("split", "val", "For proposals: the split whose objects are to be found.")
    cli.define_path(
        "forest", None, "For proposals: model file of a structured forest, to compare it too. Default: it is left out."
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "For train and repeat: images per step. For forward and unpool: images per batch. For infer: windows per "
        "batch. Default: train 32 (2 on a CPU), repeat 8 (2 on a CPU), forward both 8 and 64 (2 and 8 on a CPU), "
        "unpool 8, infer 10.",
        lower_bound=1,
    )
    cli.define_path("picture", None, "For growth: PNG file for the picture. Default: none is drawn.")
    flags.DEFINE_float(
        "width", 1.0, "For train, repeat, forward, infer and growth: factor on the width of all layers of the network."
    )
    flags.DEFINE_bool(
        "quick", False, "For train, forward and input: measure for a shorter time, with a larger uncertainty."
    )
    flags.DEFINE_enum(
        "dtype",
        None,
        ("float32", "bfloat16"),
        "For train and repeat: number type of the computation. Default: float32 on a CPU; elsewhere both for train "
        "and bfloat16 for repeat.",
    )
    cli.define_path(
        "report", None, "For scaling: report that `compile --json` wrote. Default: all in docs/results/compiled."
    )
    flags.DEFINE_float(
        "step_ms",
        None,
        "For scaling: measured milliseconds per step on one accelerator. Default: the lower bound in the report.",
    )


def main(argv: Sequence[str]) -> None:
    """Runs one benchmark, or all."""
    from .tasks.benchmark import run

    run(argv[1:], flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
