"""Measurements beside their alternatives, in one run on one machine.

    python -m experiments.benchmark environment [--json=FILE]
    python -m experiments.benchmark input [--quick] [--json=FILE]
    python -m experiments.benchmark proposals --voc_root=FOLDER [--split=val] [--json=FILE]
    python -m experiments.benchmark train [--batch_size=N] [--width=W] [--dtype=bfloat16] [--quick] [--json=FILE]
    python -m experiments.benchmark repeat [--batch_size=N] [--width=W] [--dtype=bfloat16] [--json=FILE]
    python -m experiments.benchmark forward [--batch_size=N] [--width=W] [--quick] [--json=FILE]
    python -m experiments.benchmark unpool [--batch_size=N] [--json=FILE]
    python -m experiments.benchmark infer [--batch_size=N] [--width=W] [--json=FILE]
    python -m experiments.benchmark crf [--voc_root=FOLDER] [--json=FILE]
    python -m experiments.benchmark growth [--width=W] [--picture=growth.png] [--json=FILE]
    python -m experiments.benchmark scaling [--report=FILE] [--step_ms=MS] [--json=FILE]
    python -m experiments.benchmark all [--voc_root=FOLDER] [--json=FILE]

"environment": device, driver and versions of packages. "input": training crops a second, beside PyTorch's DataLoader
with OpenCV. "proposals": recall and time of every method of object proposals on the objects of a folder in the VOC
layout. "train": training steps of the full network, beside the same network in PyTorch; "repeat": whether two runs of
the same training are equal bit for bit; "forward": the network's forward pass alone. "unpool": pooling with indices
and unpooling, beside PyTorch's and the general form. "infer": seconds from a photograph to its label map, beside the
same steps in PyTorch and OpenCV. "crf": the dense CRF, beside pydensecrf2. "growth": training steps against batch,
size of images and devices, with a picture. "scaling": what more accelerators would lose to summing up gradients,
computed from compiled programs, not measured. "all": one after the other, each in a separate process; proposals with
--voc_root.

Each is a file of experiments/benchmarks, which says how it measures. Tables go to stderr; the last line of stdout is
one JSON object.
"""

from collections.abc import Sequence

from absl import flags

from .common import cli


def define_flags() -> None:
    """The command line. Not on import: two programs with a flag of the same name could not be imported together."""
    cli.define_path("json", None, "file for the numbers")
    cli.define_path("voc_root", None, "proposals, crf: folder with JPEGImages, SegmentationClass, ImageSets")
    flags.DEFINE_string("split", "val", "proposals: whose objects to find")
    cli.define_path("forest", None, "proposals: model file of a structured forest, to be compared too")
    at_once = (
        "train: images a step; default: 2 on a CPU, else 32. repeat: default: 2 on a CPU, else 8. forward, unpool: "
        "images at once; default: 2 and 8 on a CPU, else 8 and 64; 8. infer: windows at once; default: 10"
    )
    flags.DEFINE_integer("batch_size", None, at_once, lower_bound=1)
    cli.define_path("picture", None, "growth: file for the picture, a PNG")
    flags.DEFINE_float("width", 1.0, "train, repeat, forward, infer, growth: multiplies the width of all layers")
    flags.DEFINE_bool("quick", False, "train, forward, input: measure for a short time, which is less exact")
    dtypes = "train, repeat: of the computation; default: float32 on a CPU, else both for train, bfloat16 for repeat"
    flags.DEFINE_enum("dtype", None, ("float32", "bfloat16"), dtypes)
    cli.define_path(
        "report", None, "scaling: file of experiments.compile --json; default: all in docs/results/compiled"
    )
    flags.DEFINE_float(
        "step_ms", None, "scaling: measured time of that step on one accelerator; default: from its bound"
    )


def main(argv: Sequence[str]) -> None:
    """Runs one benchmark, or all."""
    from .tasks.benchmark import run

    run(argv[1:], flags.FLAGS)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
