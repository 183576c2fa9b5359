"""Runs one benchmark, or each in a separate process, and collects the numbers."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import write_text

from ..benchmarks import harness
from ..benchmarks.registry import BENCHMARKS
from ..common.output import output_file
from ..common.scripts import PACKAGE

ALL = "all"
NAMES = (*BENCHMARKS, ALL)
REFUSED = ("picture", "dtype", "quick")  # flags that are an error for benchmarks without them


def run(words: Sequence[str], values: flags.FlagValues) -> None:
    """Runs one benchmark, or all, prints tables on stderr and the numbers on stdout.

    Args:
      words: The words of the command line that are no flags: the name of a benchmark, or "all".
      values: The parsed flags of `experiments.benchmark`.

    Raises:
      InputError: for another name, or a flag that the benchmark does not have.
    """
    if len(words) != 1 or words[0] not in NAMES:
        given = " ".join(words) or "nothing"
        raise InputError(f"expected the name of one benchmark ({', '.join(NAMES)}); got {given}")
    name = words[0]
    for flag in REFUSED:
        known = [other for other, benchmark in BENCHMARKS.items() if flag in benchmark.flags]
        if values[flag].value and name not in (*known, ALL):
            named = " and ".join(known)
            raise InputError(f"--{flag}={values[flag].value} has no meaning for '{name}', only for {named}")
    path = values.json and output_file(values.json, "--json")
    if values.picture:
        values.picture = output_file(values.picture, "--picture", ".png")
    numbers = run_all(values) if name == ALL else run_one(name, values)
    text = json.dumps(numbers)
    if path:
        write_text(path, text + "\n")
    print(text)


def run_one(name: str, values: flags.FlagValues) -> harness.Numbers:
    """Runs a benchmark with its flags and prints its tables.

    Args:
      name: Name of the benchmark.
      values: The parsed flags.

    Returns:
      Its numbers, as JSON values.
    """
    benchmark = BENCHMARKS[name]
    numbers = benchmark.module.run(**{flag: values[flag].value for flag in benchmark.flags})
    harness.show(benchmark.module.tables(numbers))
    return numbers


def run_all(values: flags.FlagValues) -> dict[str, Any]:
    """Runs every benchmark in a separate process with its flags. Proposals need --voc_root and are otherwise left out.

    Args:
      values: The parsed flags.

    Returns:
      The numbers of each benchmark by its name; None for one that failed.
    """
    numbers: dict[str, Any] = {}
    for name, benchmark in BENCHMARKS.items():
        if name == "proposals" and not values.voc_root:
            continue
        given = [f"--{flag}={values[flag].value}" for flag in benchmark.flags if values[flag].present]
        command = [sys.executable, "-m", f"{PACKAGE}.benchmark", name, *given]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        numbers[name] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    return numbers
