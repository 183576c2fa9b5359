"""Runs tests and benchmarks on a GPU, each within its share of the time, and writes the report."""

import datetime
import json
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import write_text

from ..benchmarks.harness import Numbers
from ..benchmarks.markdown import markdown
from ..benchmarks.network import FC_FEATURES, check_width
from ..benchmarks.parts import FINISHED, Part, PartRunner, numbers_file
from ..common.output import output_folder

TESTS = ("tests/training", "tests/ops", "tests/models", "tests/inference")  # most important first
TOPOLOGIES = ("h200", "h100", "a100", "b200")  # GPUs that experiments.compile can compile for
PYTHON = (sys.executable, "-m")
_TEST_RESULT = re.compile(r"^(\S+::.*?) (PASSED|FAILED|SKIPPED|ERROR)\b", re.MULTILINE)

# Shares of the time in seconds, for --minutes=DEFAULT_MINUTES. Time that a part leaves goes to later parts.
DEFAULT_MINUTES = 8.8
ENVIRONMENT_SHARE = 20
CHECKS_SHARE = 90
BATCH, FEW = {"gpu": 64, "cpu": 4}, {"gpu": 8, "cpu": 2}  # images per step


def run(output: Path, minutes: float, width: float, allow_cpu: bool) -> None:
    """Runs all parts and writes the report.

    Args:
      output: folder of the report; it must not hold one yet.
      minutes: time limit of all parts together.
      width: factor on the channels of all layers, above 0 and at most 1.
      allow_cpu: True measures the CPU if there is no GPU; otherwise a machine without a GPU is refused.

    Raises:
      InputError: without a GPU, for a width out of range, or for a folder that cannot be used.
    """
    on_cpu = not shutil.which("nvidia-smi")
    if on_cpu and not allow_cpu:
        raise InputError("there is no NVIDIA GPU here (no nvidia-smi); --allow_cpu measures this CPU instead")
    check_width(width)
    folder = output_folder(output)
    if (folder / "report.json").exists():
        raise InputError(f"--output={folder} holds a report already; name another folder")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the running part
    if on_cpu:
        say("warning: there is no GPU here; this CPU is measured instead")
    with tempfile.TemporaryDirectory(prefix="deconvnet_jax_compiled_") as compiled:
        measure(folder, minutes, width, on_cpu, Path(compiled))


def measure(folder: Path, minutes: float, width: float, on_cpu: bool, compiled: Path) -> None:
    """Runs all parts and writes the report after each.

    Args:
      folder: where the report is written.
      minutes: time limit of all parts together.
      width: factor on the channels of all layers, above 0 and at most 1.
      on_cpu: True measures the CPU.
      compiled: folder for compiled programs, which parts share.

    Raises:
      InputError: if JAX cannot use the GPU.
    """
    begin, started = time.monotonic(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def finished(outcomes: Numbers) -> None:
        seconds = round(time.monotonic() - begin, 1)
        report = {"started": started, "seconds": seconds, "width": width, "parts": outcomes}
        write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
        write_text(folder / "report.md", markdown(report))
        if outcomes:
            name, outcome = list(outcomes.items())[-1]
            reason = f": {outcome['error']}" if outcome["error"] else ""
            say(f"[{seconds:.0f} s] {name} {outcome['status']} after {outcome['seconds']:.0f} s{reason}")

    runner, unit = PartRunner(folder, finished), minutes / DEFAULT_MINUTES
    platforms = "cpu" if on_cpu else "cuda,cpu"
    runner.environment.update(JAX_PLATFORMS=platforms, XLA_PYTHON_CLIENT_PREALLOCATE="false")
    runner.run(unit * ENVIRONMENT_SHARE, [benchmark(folder, "environment", "Environment", "environment")])
    known = runner.outcomes["environment"]
    if known["status"] != FINISHED:
        raise InputError(f"JAX cannot compute here: {known['error'].removeprefix('error: ')}")
    if not on_cpu and known["numbers"]["platform"] == "cpu":  # JAX uses the CPU if its GPU plugin is missing.
        version = known["numbers"]["versions"]["jax"]
        raise InputError(
            f'JAX sees no GPU here, only the CPU; install its plugin: pip install "jax[cuda13]=={version}"'
        )
    runner.run(unit * CHECKS_SHARE, checks(folder, width, known["numbers"]["device"]))
    if not on_cpu:  # On a CPU, programs with oneDNN cannot be kept.
        runner.environment["JAX_COMPILATION_CACHE_DIR"] = str(compiled)
    for share, part in measurements(folder, width, on_cpu):
        runner.run(unit * share, [part])
    say(f"{folder / 'report.md'}")


def checks(folder: Path, width: float, device: str) -> list[Part]:
    """Returns the parts that may run at the same time, because they do not measure speed.

    Args:
      folder: of the report.
      width: factor on the channels of all layers.
      device: JAX's name of the GPU, from which the compiler's target is chosen.
    """
    pytest = (*PYTHON, "pytest", "-v", "-m", "accelerator", "-p", "no:cacheprovider")
    options = ("-W", "default", "--continue-on-collection-errors", *TESTS)
    exact = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}  # TF32 is too inexact for the tests' tolerances.
    deterministic = {"XLA_FLAGS": "--xla_gpu_deterministic_ops=true"}
    repeat = ("repeat", f"--width={width}")
    parts = [
        Part("tests", "Tests marked `accelerator`", (*pytest, *options), exact, count_tests),
        benchmark(folder, "repeat_deterministic", "Two runs, deterministic ops", *repeat, **deterministic),
        benchmark(folder, "repeat", "Two runs, default options", *repeat),
    ]
    topology = next((name for name in TOPOLOGIES if name in device.lower()), None)
    if topology:
        parts.append(prediction(folder, width, topology))
    return parts


def prediction(folder: Path, width: float, topology: str) -> Part:
    """Returns the part that compiles the step of `train_bfloat16` and computes its bound; it uses only the CPU.

    Args:
      folder: of the report.
      width: factor on the channels of all layers.
      topology: one of TOPOLOGIES.
    """
    settings = {
        "batch_size": BATCH["gpu"],
        "bn_group": 0,  # batch statistics of all images, as in the benchmark
        "model.dtype": "bfloat16",
        "model.width": width,
        "model.fc_features": max(1, round(FC_FEATURES * width)),
    }
    command = (
        *(*PYTHON, "experiments.compile", "--config=voc_stage1"),
        f"--topology={topology}:1",
        *(f"--config.{key}={value}" for key, value in settings.items()),
        f"--json={numbers_file(folder, 'prediction')}",
    )
    return Part("prediction", f"Step as compiled for {topology}", command, {"JAX_PLATFORMS": "cpu"})


def measurements(folder: Path, width: float, on_cpu: bool) -> list[tuple[float, Part]]:
    """Returns the parts that run one after the other, most important first, each with its share of the time in seconds.

    Args:
      folder: of the report.
      width: factor on the channels of all layers.
      on_cpu: True for the batch sizes of a CPU.
    """
    kind, wide = "cpu" if on_cpu else "gpu", f"--width={width}"
    batch, few = BATCH[kind], FEW[kind]
    step, exact = ("train", wide, "--quick", "--dtype=bfloat16"), ("train", wide, "--quick", "--dtype=float32")
    many = f"--batch_size={batch}"
    parts = (
        (113, "train_bfloat16", f"Training step, bfloat16, {batch} images", *step, many),
        (85, "infer", "Photograph to labels", "infer", wide),
        (80, "train_float32", f"Training step, float32 (TF32 on a GPU), {batch} images", *exact, many),
        (40, "crf", "Dense CRF", "crf"),
        (25, "unpool", "Pooling and unpooling", "unpool"),
        (45, "forward", f"Forward pass, {batch} images", "forward", wide, "--quick", many),
        (30, "input", "Input pipeline", "input", "--quick"),
        (0, "train_bfloat16_few", f"Training step, bfloat16, {few} images", *step, f"--batch_size={few}"),
    )
    return [(share, benchmark(folder, *given)) for share, *given in parts]


def benchmark(folder: Path, name: str, title: str, *arguments: str, **environment: str) -> Part:
    """Returns a part that runs one benchmark of `experiments.benchmark`.

    Args:
      folder: of the report.
      name: of the part and its files.
      title: as the report shows it.
      *arguments: name and flags of the benchmark.
      **environment: variables for this part.
    """
    command = (*PYTHON, "experiments.benchmark", *arguments, f"--json={numbers_file(folder, name)}")
    return Part(name, title, command, environment)


def count_tests(log: str) -> Numbers:
    """Counts results in pytest's verbose log, which may be incomplete; also returns the names of failed tests."""
    results = _TEST_RESULT.findall(log)
    counts = {word.lower(): sum(found == word for _, found in results) for word in ("PASSED", "FAILED", "SKIPPED")}
    return {**counts, "failures": [name for name, found in results if found in ("FAILED", "ERROR")]}


def say(text: str) -> None:
    """Prints a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)
