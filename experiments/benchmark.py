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

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import write_text
from experiments.benchmarks import crf as crf_benchmark
from experiments.benchmarks import environment as environment_benchmark
from experiments.benchmarks import forward as forward_benchmark
from experiments.benchmarks import growth as growth_benchmark
from experiments.benchmarks import infer as infer_benchmark
from experiments.benchmarks import input as input_benchmark
from experiments.benchmarks import proposals as proposals_benchmark
from experiments.benchmarks import repeat as repeat_benchmark
from experiments.benchmarks import scaling as scaling_benchmark
from experiments.benchmarks import train as train_benchmark
from experiments.benchmarks import unpool as unpool_benchmark
from experiments.common import cli
from experiments.common.output import output_file

NAMES = (
    "environment",
    "input",
    "proposals",
    "train",
    "repeat",
    "forward",
    "unpool",
    "infer",
    "crf",
    "growth",
    "scaling",
    "all",
)
FLAGS_OF_SOME = {
    "picture": ("growth",),
    "dtype": ("train", "repeat"),
    "quick": ("train", "forward", "input"),
}
PASSED_ON = ("voc_root", "split", "forest", "batch_size", "width", "report", "step_ms", *FLAGS_OF_SOME)


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
    """Runs one benchmark."""
    values = flags.FLAGS
    if len(argv) != 2 or argv[1] not in NAMES:
        given = " ".join(argv[1:]) or "nothing"
        raise InputError(f"expected the name of one benchmark ({', '.join(NAMES)}); got {given}")
    for flag, names in FLAGS_OF_SOME.items():
        if values[flag].value and argv[1] not in (*names, "all"):
            known = " and ".join(names)
            raise InputError(f"--{flag}={values[flag].value} has no meaning for '{argv[1]}', only for {known}")
    path = values.json and output_file(values.json, "--json")
    picture = values.picture and output_file(values.picture, "--picture", ".png")
    benchmarks = {
        "environment": environment_benchmark.run,
        "input": lambda: input_benchmark.run(values.quick),
        "proposals": lambda: proposals_benchmark.run(values.voc_root, values.split, values.forest),
        "train": lambda: train_benchmark.run(values.batch_size, values.width, values.dtype, values.quick),
        "repeat": lambda: repeat_benchmark.run(values.batch_size, values.width, values.dtype),
        "forward": lambda: forward_benchmark.run(values.batch_size, values.width, values.quick),
        "unpool": lambda: unpool_benchmark.run(values.batch_size),
        "infer": lambda: infer_benchmark.run(values.batch_size, values.width),
        "growth": lambda: growth_benchmark.run(values.width, picture),
        "scaling": lambda: scaling_benchmark.run(values.report, values.step_ms),
        "crf": lambda: crf_benchmark.run(values.voc_root),
    }
    numbers = run_all(values) if argv[1] == "all" else benchmarks[argv[1]]()
    text = json.dumps(numbers)
    if path:
        write_text(path, text + "\n")
    print(text)


def run_all(values: flags.FlagValues) -> dict[str, Any]:
    """The numbers of all, each measured in a program of its own with the flags it knows; None of those that failed."""
    numbers: dict[str, Any] = {}
    for name in NAMES[:-1]:
        if name == "proposals" and not values.voc_root:
            continue
        passed_on = [flag for flag in PASSED_ON if values[flag].present and name in FLAGS_OF_SOME.get(flag, (name,))]
        given = [f"--{flag}={values[flag].value}" for flag in passed_on]
        command = [sys.executable, "-m", "experiments.benchmark", name, *given]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        numbers[name] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    return numbers


if __name__ == "__main__":
    define_flags()
    cli.run(main)
